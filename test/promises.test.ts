import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { titlesIn } from "./titles.ts";

const PAGE = join(import.meta.dirname, "../docs/guide/reliability.md");

/** The promises of the page, and the tests they name. */
function promises(): { promise: string; file: string; title: string }[] {
  const [, table = ""] = readFileSync(PAGE, "utf8").split("## Promises");
  const rows = (table.split("\n## ")[0] ?? "").split("\n").filter((line) => line.startsWith("| "));
  return rows.slice(1).map((row) => {
    const [, promise = "", file = "", title = ""] =
      /^\| (.+) \| `([^`]+)`: (.+) \|$/.exec(row) ?? [];
    return { promise, file, title };
  });
}

describe("what docs/guide/reliability.md promises", () => {
  test("is proved by a test for each promise, whose name it says", () => {
    const all = promises();
    expect(all.length).toBeGreaterThan(10);
    const unproved = all.filter(({ promise, file, title }) => {
      const path = join(import.meta.dirname, file);
      const named = promise !== "" && file !== "" && existsSync(path);
      return !named || !titlesIn(readFileSync(path, "utf8")).has(title);
    });
    expect(unproved).toEqual([]);
  });
});
