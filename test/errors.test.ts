import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { ERRORS } from "../src/errors.ts";

const root = join(import.meta.dirname, "..");
const codes = Object.keys(ERRORS).toSorted();

/** The codes in the first argument of every `new HangarError(...)` in `source`: literals, also the branches of a condition. */
function thrownIn(source: string): string[] {
  return [...source.matchAll(/new HangarError\(([^,]+),/g)].flatMap(([, code = ""]) =>
    [...code.matchAll(/"(\w+)"/g)].map(([, literal = ""]) => literal),
  );
}

describe("the error table", () => {
  test("every code is thrown somewhere, and none that is not in the table", () => {
    const files = globSync("src/**/*.ts", { cwd: root });
    const thrown = files.flatMap((file) => thrownIn(readFileSync(join(root, file), "utf8")));
    expect(files.length).toBeGreaterThan(0);
    expect([...new Set(thrown)].toSorted()).toEqual(codes);
  });

  test("every code has its section in the troubleshooting page, and no section is of a code that is gone", () => {
    const page = readFileSync(join(root, "docs/TROUBLESHOOTING.md"), "utf8");
    const sections = [...page.matchAll(/^### `(\w+)`$/gm)].map(([, code = ""]) => code);
    expect(sections.toSorted()).toEqual(codes);
  });

  test("every entry says in whole sentences what happened and what to do", () => {
    for (const [code, { cause, fix }] of Object.entries(ERRORS)) {
      expect(cause, code).toMatch(/^[A-Z].*\.$/);
      expect(fix, code).toMatch(/^[A-Z].*\.$/);
    }
  });
});
