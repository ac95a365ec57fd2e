import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { matchesGlob } from "../../src/lib/glob.ts";

/** The definition, written down: exponential, for short patterns only. */
function matchesByDefinition(pattern: string[], name: string[]): boolean {
  const [first, ...rest] = pattern;
  if (first === undefined) return name.length === 0;
  if (first === "*") {
    return (
      matchesByDefinition(rest, name) ||
      (name.length > 0 && matchesByDefinition(pattern, name.slice(1)))
    );
  }
  return (
    name.length > 0 &&
    (first === "?" || first === name[0]) &&
    matchesByDefinition(rest, name.slice(1))
  );
}

describe("matchesGlob", () => {
  it("agrees with the definition of * and ?", () => {
    const seen = { matched: 0, missed: 0 };
    const pattern = fc.array(fc.constantFrom("*", "?", "a", "b", "😀"), { maxLength: 8 });
    const name = fc.array(fc.constantFrom("a", "a", "b", "😀"), { maxLength: 8 });
    fc.assert(
      fc.property(pattern, name, (p, n) => {
        const expected = matchesByDefinition(p, n);
        expect(matchesGlob(p.join(""), n.join(""))).toBe(expected);
        seen[expected ? "matched" : "missed"]++;
      }),
      { numRuns: 3000 },
    );
    expect(seen.matched).toBeGreaterThan(100);
    expect(seen.missed).toBeGreaterThan(100);
  });

  it.each([
    ["read_*", "read_file", true],
    ["read_*", "Read_file", false],
    ["read_*", "xread_file", false],
    ["read", "read_file", false],
    ["*", "", true],
    ["?", "", false],
    ["a.b", "axb", false],
    ["[ab]", "a", false],
    ["[ab]", "[ab]", true],
    ["a\\*", "a\\bc", true],
    ["", "", true],
  ])("says of %j and %j: %s", (pattern, name, expected) => {
    expect(matchesGlob(pattern, name)).toBe(expected);
  });

  it("does not explode on many stars", () => {
    const name = "a".repeat(20_000);
    expect(matchesGlob("a*a*a*a*b", name)).toBe(false);
    expect(matchesGlob(`${"a*".repeat(200)}b`, name)).toBe(false);
    expect(matchesGlob("a*a*a*a*b", `${name}b`)).toBe(true);
  });
});
