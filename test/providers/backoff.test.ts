import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { backoffMs } from "../../src/providers/backoff.ts";

const chance = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
const failures = fc.integer({ min: 1, max: 10_000 });
const JUST_BELOW_ONE = 1 - Number.EPSILON;

describe("backoffMs", () => {
  it("lies between a tenth of a second and a minute", () => {
    fc.assert(
      fc.property(failures, chance, (n, random) => {
        const ms = backoffMs(n, random);
        expect(Number.isInteger(ms)).toBe(true);
        expect(ms).toBeGreaterThanOrEqual(100);
        expect(ms).toBeLessThanOrEqual(60_000);
      }),
    );
  });

  it("never shrinks as failures add up", () => {
    fc.assert(
      fc.property(failures, chance, (n, random) => {
        expect(backoffMs(n + 1, random)).toBeGreaterThanOrEqual(backoffMs(n, random));
      }),
    );
  });

  it.each([
    [1, 500],
    [2, 1000],
    [3, 2000],
    [7, 32_000],
    [8, 60_000],
    [5000, 60_000],
  ])("spreads the wait after %i failures over all of %i ms", (n, longest) => {
    expect(backoffMs(n, 0)).toBe(100);
    expect(backoffMs(n, 0.5)).toBe(50 + longest / 2);
    expect(backoffMs(n, JUST_BELOW_ONE)).toBe(longest);
  });
});
