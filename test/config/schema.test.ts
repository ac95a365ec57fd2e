import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { schemaText } from "../../scripts/schema.ts";
import { configJsonSchema, configReference } from "../../src/config/schema.ts";

const ROOT = join(import.meta.dirname, "../..");

describe("the JSON Schema for editors", () => {
  test("the file in the package is the one that the definition gives", () => {
    expect(readFileSync(join(ROOT, "schema/config.schema.json"), "utf8")).toBe(schemaText());
  });

  test("its text is the schema", () => {
    expect(JSON.parse(schemaText())).toEqual(JSON.parse(JSON.stringify(configJsonSchema())));
  });

  test("it is of draft 2020-12 and refuses unknown keys at the top", () => {
    expect(configJsonSchema()).toMatchObject({
      $schema: "https://json-schema.org/draft/2020-12/schema",
      type: "object",
      additionalProperties: false,
    });
  });
});

describe("the table of keys", () => {
  test("every key is described in a sentence and has a type", () => {
    const rows = configReference();
    expect(rows.length).toBeGreaterThan(20);
    for (const { key, type, description } of rows) {
      expect(description, key).toMatch(/^[A-Z`].*\.$/);
      expect(type, key).not.toBe("");
    }
  });

  test("nested keys, ranges, choices and defaults are in it", () => {
    const rows = new Map(configReference().map((row) => [row.key, row]));
    expect(rows.get("providers.<id>.idle_ttl_s")).toMatchObject({
      type: "number, 0 to 604800",
      default: "300",
    });
    expect(rows.get("providers.<id>.command")).toMatchObject({ default: "required" });
    expect(rows.get("providers.<id>.tools.allow")).toMatchObject({ default: '["*"]' });
    expect(rows.get("logging.level")).toMatchObject({
      type: "`debug`, `info`, `warn`, `error`",
      default: "info",
    });
    expect(rows.get("providers.<id>.endpoint")).toMatchObject({ default: "required" });
    expect(rows.get("providers.<id>.scope")).toMatchObject({ default: "shared" });
    expect(rows.get("providers.<id>.mode")).toMatchObject({
      type: "`subprocess`, `remote`, `container`, `docker`, `podman`, `group`",
      default: "subprocess",
    });
  });
});
