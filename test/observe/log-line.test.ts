import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { decodeLine, encodeLine, type LogLine, readableLine } from "../../src/observe/log-line.ts";

const TIME = "2026-01-05T09:12:33.120Z";
const LINE: LogLine = { time: TIME, hangar: 4711, run: 3, stream: "stderr", text: "text" };
/** Everything but what people see; in the file a line ends with a line feed, in front of a person it does not. */
// oxlint-disable-next-line no-control-regex -- they are what must not be there
const STEERS = /[\0-\x08\n-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/;

describe("a line of a log", () => {
  it("comes back as it was, whatever is in it, and obeys no terminal on the way", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        const stored = encodeLine({ ...LINE, text });
        expect(decodeLine(stored)).toEqual({ ...LINE, text });
        expect(stored.slice(0, -1)).not.toMatch(STEERS);
        expect(readableLine({ ...LINE, text })).not.toMatch(STEERS);
      }),
    );
  });

  it("is none where it is torn, or something else", () => {
    const stored = encodeLine(LINE);
    for (let length = 0; length < stored.length - 1; length++) {
      expect(decodeLine(stored.slice(0, length))).toBeUndefined();
    }
    for (const other of ["null", "3", "[]", '"text"', "{}", '{"time":1,"text":"","stream":""}']) {
      expect(decodeLine(other)).toBeUndefined();
    }
  });

  it("is looked through in linear time", () => {
    for (const text of [
      "\u001b[".repeat(200_000),
      "\u001b]".repeat(200_000),
      "\u001b[1;".repeat(100_000),
    ]) {
      const began = performance.now();
      readableLine({ ...LINE, text });
      expect(performance.now() - began).toBeLessThan(2_000);
    }
  });

  it("of Hangar itself carries no number before it", () => {
    expect(readableLine({ ...LINE, stream: "hangar", text: "-- run 3 started" })).toBe(
      `${TIME} -- run 3 started`,
    );
  });
});
