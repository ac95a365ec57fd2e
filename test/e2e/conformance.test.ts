/**
 * The official conformance suite loses nothing behind Hangar: every check that succeeds directly succeeds through
 * it, but for those that test/conformance/expected.json gives a reason for.
 */
import { readFileSync } from "node:fs";
import { beforeAll, describe, expect, test } from "vitest";
import { type Comparison, compare, kinds, renderPage } from "../conformance/run.ts";

const COMPARE_MS = 300_000;
const PAGE = new URL("../../docs/reference/conformance.md", import.meta.url);

let comparisons: readonly Comparison[] = [];

beforeAll(async () => {
  comparisons = await compare();
}, COMPARE_MS);

describe("behind Hangar", () => {
  test.each(kinds)("no check of the suite is lost: $title", ({ name }) => {
    const comparison = comparisons.find(({ kind }) => kind.name === name);
    expect(comparison?.problems).toEqual([]);
  });
});

test("the page with the figures is current", () => {
  expect(readFileSync(PAGE, "utf8")).toBe(renderPage(comparisons));
});
