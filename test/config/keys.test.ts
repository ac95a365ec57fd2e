import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { configReference } from "../../src/config/schema.ts";
import { titlesIn } from "../titles.ts";
import { KEY_EFFECTS } from "./key-effects.ts";

const TESTS = join(import.meta.dirname, "..");

describe("every configuration key has a test of its effect", () => {
  const keys = configReference().map((row) => row.key);

  test("the table names every key of the schema and no other", () => {
    expect(keys.length).toBeGreaterThan(0);
    expect(Object.keys(KEY_EFFECTS).toSorted()).toEqual(keys.toSorted());
  });

  test("the tests it names exist", () => {
    const missing = Object.entries(KEY_EFFECTS).filter(([, { file, title }]) => {
      const path = join(TESTS, file);
      return !existsSync(path) || !titlesIn(readFileSync(path, "utf8")).has(title);
    });
    expect(missing.map(([key, { file, title }]) => `${key}: ${file}: ${title}`)).toEqual([]);
  });

  test("titles are read from single-line, broken and parametrised calls", () => {
    const source = `test("a", x); test(\n  'it\\'s b', y); test.each([1])("c %i", z); it.concurrent(\`d\`, w);`;
    expect([...titlesIn(source)]).toEqual(["a", "it's b", "c %i", "d"]);
  });
});
