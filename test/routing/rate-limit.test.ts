import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { RateLimit } from "../../src/routing/rate-limit.ts";

describe("the rate limit", () => {
  it("never lets more through than a burst and the rate since, whatever the times, and the wait it names is enough", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 400 }), { maxLength: 200 }),
        fc.constantFrom(0.5, 3, 50),
        fc.integer({ min: 1, max: 20 }),
        (gaps, rps, burst) => {
          const limit = new RateLimit(rps, burst);
          let now = 0;
          let through = 0;
          for (const gap of gaps) {
            now += gap;
            const wait = limit.take("p", now);
            if (wait === undefined) through++;
            else {
              expect(wait).toBeGreaterThan(0);
              // Rounding up, as the answer to a client does.
              now += Math.ceil(wait);
              expect(limit.take("p", now)).toBeUndefined();
              through++;
            }
            expect(through).toBeLessThanOrEqual(burst + (now / 1000) * rps + 1e-6);
          }
        },
      ),
    );
  });

  it("counts each principal by itself, and forgets those that were quiet for longest", () => {
    const limit = new RateLimit(0.001, 1);
    expect(limit.take("a", 0)).toBeUndefined();
    expect(limit.take("a", 0)).toBeDefined();
    expect(limit.take("b", 0)).toBeUndefined();
    for (let n = 0; n < 9_999; n++) limit.take(`other ${n}`, 0);
    expect(limit.take("b", 0)).toBeDefined();
    expect(limit.take("a", 0)).toBeUndefined();
  });
});
