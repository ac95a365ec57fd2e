import { Buffer } from "node:buffer";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { splitLines } from "../../src/wire/lines.ts";

const RUNS = { numRuns: 1000 };

/** What the splitter says about `chunks`, refusals as `!reason:head`. */
function split(chunks: Iterable<Uint8Array>, maxBytes = 1_000_000): string[] {
  const seen: string[] = [];
  const lines = splitLines(maxBytes, {
    line: (text) => seen.push(text),
    refused: (reason, head) => seen.push(`!${reason}:${head}`),
  });
  for (const chunk of chunks) lines.push(chunk);
  lines.end();
  return seen;
}

/** `bytes` cut at the given places (fractions of its length). */
function cut(bytes: Uint8Array, places: readonly number[]): Uint8Array[] {
  const at = places.map((place) => Math.floor(place * bytes.length)).toSorted((a, b) => a - b);
  return [0, ...at].map((start, i) => bytes.subarray(start, at[i] ?? bytes.length));
}

function bytewise(bytes: Uint8Array): Uint8Array[] {
  return Array.from(bytes, (byte) => Uint8Array.of(byte));
}

const places = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 12 });
const lineText = fc
  .string({ unit: "grapheme", maxLength: 40 })
  .map((text) => `<${text.replaceAll(/[\r\n]/g, " ")}>`);

describe("splitLines", () => {
  it("delivers the same lines however the bytes arrive, with LF or CRLF, the last one with or without", () => {
    const ending = fc.constantFrom("\n", "\r\n");
    fc.assert(
      fc.property(
        fc.array(fc.tuple(lineText, ending), { maxLength: 10 }),
        fc.boolean(),
        places,
        (lines, terminated, cuts) => {
          const whole = lines.map(([text, end]) => text + end).join("");
          const bytes = Buffer.from(terminated ? whole : whole.trimEnd());
          const expected = lines.map(([text]) => text);
          expect(split(cut(bytes, cuts))).toEqual(expected);
          expect(split(bytewise(bytes))).toEqual(expected);
        },
      ),
      RUNS,
    );
  });

  it("skips blank lines", () => {
    expect(split([Buffer.from("\n\r\n  \t\r\na\n\n \nb\n ")])).toEqual(["a", "b"]);
  });

  it("refuses each line over the limit once, with its beginning, and goes on with the next", () => {
    const limit = 20;
    fc.assert(
      fc.property(fc.array(fc.nat(3 * limit), { maxLength: 8 }), places, (lengths, cuts) => {
        const lines = lengths.map((length, i) => String(i).repeat(length));
        const bytes = Buffer.from(lines.map((line) => `${line}\n`).join(""));
        const expected = lines
          .filter((line) => line !== "")
          .map((line) => (line.length <= limit ? line : "!too_long"));
        for (const chunks of [cut(bytes, cuts), bytewise(bytes), [bytes]]) {
          const seen = split(chunks, limit).map((text) =>
            text.replace(/^(!too_long):(\d)\2*$/, "$1"),
          );
          expect(seen).toEqual(expected);
        }
      }),
      RUNS,
    );
  });

  it("tells at most 200 characters of a refused line", () => {
    const long = Buffer.from(`${"語".repeat(5000)}\nnext\n`);
    expect(split([long], 10_000)).toEqual([`!too_long:${"語".repeat(200)}`, "next"]);
    expect(split([long.subarray(0, 7), long.subarray(7)], 10_000)).toEqual([
      `!too_long:${"語".repeat(200)}`,
      "next",
    ]);
  });

  it("reports a line that is too long before it ends", () => {
    const seen: string[] = [];
    const lines = splitLines(10, {
      line: (text) => seen.push(text),
      refused: (reason) => seen.push(reason),
    });
    lines.push(Buffer.from("0123456789a"));
    expect(seen).toEqual(["too_long"]);
    lines.push(Buffer.from("more and more"));
    lines.push(Buffer.from("end\nok\n"));
    lines.end();
    expect(seen).toEqual(["too_long", "ok"]);
  });

  it("refuses exactly the lines that are not UTF-8", () => {
    const bytes = fc.uint8Array({ maxLength: 6 }).map((raw) => raw.filter((byte) => byte !== 0x0a));
    const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    fc.assert(
      fc.property(fc.array(fc.oneof(bytes, lineText), { maxLength: 6 }), places, (lines, cuts) => {
        // The first line is fixed, so that no random bytes stand where a byte order mark would be dropped.
        const all = [Buffer.from("first"), ...lines.map((line) => Buffer.from(line as string))];
        const expected = all.flatMap((line) => {
          try {
            const text = strict.decode(line).replace(/\r$/, "");
            return text.trim() === "" ? [] : [text];
          } catch {
            return ["!not_utf8"];
          }
        });
        const whole = Buffer.concat(all.flatMap((line) => [line, Buffer.from("\n")]));
        const seen = split(cut(whole, cuts)).map((text) => text.replace(/^(!not_utf8):.*$/s, "$1"));
        expect(seen).toEqual(expected);
      }),
      RUNS,
    );
  });

  it("drops a byte order mark at the beginning of the stream and nowhere else", () => {
    const bytes = Buffer.from("\ufeffa\n\ufeffb\n");
    expect(split([bytes])).toEqual(["a", "\ufeffb"]);
    expect(split(bytewise(bytes))).toEqual(["a", "\ufeffb"]);
    expect(split([Buffer.from("\ufeff\n\ufeffb")])).toEqual(["\ufeffb"]);
  });

  it("goes on undisturbed when a handler throws, and tells the first error at the end of the push", () => {
    const seen: string[] = [];
    const lines = splitLines(8, {
      line(text) {
        seen.push(text);
        if (text.startsWith("bad")) throw new Error(text);
      },
      refused(reason) {
        seen.push(reason);
        throw new Error(reason);
      },
    });
    lines.push(Buffer.from("ba"));
    expect(() => lines.push(Buffer.from("d1\nok1\nbad2\nok2\npar"))).toThrow("bad1");
    lines.push(Buffer.from("t\n"));
    expect(() => lines.push(Buffer.from("far too long"))).toThrow("too_long");
    lines.push(Buffer.from("still\nok3\nbad3"));
    expect(() => lines.end()).toThrow("bad3");
    lines.end();
    expect(seen).toEqual(["bad1", "ok1", "bad2", "ok2", "part", "too_long", "ok3", "bad3"]);
  });

  it("keeps what it was given although the caller reuses its chunk", () => {
    const seen: string[] = [];
    const lines = splitLines(1000, { line: (text) => seen.push(text), refused: () => {} });
    const chunk = Buffer.from("abc");
    lines.push(chunk);
    chunk.fill("x");
    lines.push(Buffer.from("def\n"));
    expect(seen).toEqual(["abcdef"]);
  });

  it("puts a long line together from very many small chunks", () => {
    const text = "0123456789abcdef".repeat(250_000);
    const bytes = Buffer.from(`${text}\n`);
    const chunks = function* () {
      for (let at = 0; at < bytes.length; at += 64) yield bytes.subarray(at, at + 64);
    };
    expect(split(chunks(), text.length)[0] === text).toBe(true);
    expect(split(chunks(), text.length - 1)).toEqual([`!too_long:${text.slice(0, 200)}`]);
  });
});
