import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseSse, sseComment, sseEvent, ssePriming } from "../../src/wire/sse.ts";

const RUNS = { numRuns: 1000 };

interface Seen {
  readonly data: string;
  readonly type: string;
  readonly id: string | undefined;
}

/** What the parser says of `chunks`: events, `retry` as a number, and what was too long as a text. */
function parse(chunks: Iterable<Uint8Array>, maxChars = 1_000_000): (Seen | number | string)[] {
  const seen: (Seen | number | string)[] = [];
  const parser = parseSse(maxChars, {
    event: (data, type, id) => seen.push({ data, type, id }),
    retry: (ms) => seen.push(ms),
    tooLong: () => seen.push("too long"),
  });
  for (const chunk of chunks) parser.push(chunk);
  return seen;
}

function parseText(text: string, maxChars?: number): (Seen | number | string)[] {
  return parse([Buffer.from(text)], maxChars);
}

function message(data: string, id?: string): Seen {
  return { data, type: "message", id };
}

/** `bytes` cut at the given places (fractions of its length). */
function cut(bytes: Uint8Array, places: readonly number[]): Uint8Array[] {
  const at = places.map((place) => Math.floor(place * bytes.length)).toSorted((a, b) => a - b);
  return [0, ...at].map((start, i) => bytes.subarray(start, at[i] ?? bytes.length));
}

function bytewise(bytes: Uint8Array): Uint8Array[] {
  return Array.from(bytes, (byte) => Uint8Array.of(byte));
}

/** The rules of the WHATWG text as it stands there, one after the other, for a whole stream at once. */
function byTheBook(stream: string): (Seen | number)[] {
  const seen: (Seen | number)[] = [];
  const lines = stream.replace(/^\uFEFF/, "").split(/\r\n|\r|\n/);
  lines.pop(); // not ended by a line break: incomplete
  let data = "";
  let type = "";
  let id = "";
  let everNamed = false;
  let namedHere = false;
  for (const line of lines) {
    if (line === "") {
      // Beyond the book, the parser also tells of an event that has nothing but an id.
      if (data !== "" || namedHere) {
        const text = data.endsWith("\n") ? data.slice(0, -1) : data;
        seen.push({ data: text, type: type || "message", id: everNamed ? id : undefined });
      }
      data = "";
      type = "";
      namedHere = false;
      continue;
    }
    const colon = line.indexOf(":");
    if (colon === 0) continue;
    const field = colon === -1 ? line : line.slice(0, colon);
    const value = colon === -1 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") type = value;
    else if (field === "data") data += `${value}\n`;
    else if (field === "id" && !value.includes("\0")) {
      id = value;
      everNamed = namedHere = true;
    } else if (field === "retry" && /^[0-9]+$/.test(value)) seen.push(Number(value));
  }
  return seen;
}

const places = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 12 });
const breaks = fc.constantFrom("\n", "\r", "\r\n");
const value = fc.oneof(
  fc.string({ unit: "grapheme", maxLength: 12 }).map((text) => text.replaceAll(/[\r\n]/g, " ")),
  fc.constantFrom("", " ", "17", "1e3", "a\0b", ":", "é€😀"),
);
const line = fc.oneof(
  fc
    .tuple(
      fc.constantFrom("data", "event", "id", "retry", "Data", "datum", ""),
      fc.constantFrom(":", ": ", ":  ", ""),
      value,
    )
    .map(([field, colon, text]) => `${field}${colon}${text}`),
  fc.constant(""),
);
const stream = fc
  .array(fc.tuple(line, breaks), { maxLength: 25 })
  .map((lines) => lines.map(([text, end]) => text + end).join(""));

describe("parseSse", () => {
  it("finds what the WHATWG rules find, however the bytes arrive", () => {
    fc.assert(
      fc.property(stream, fc.boolean(), places, (text, marked, cuts) => {
        const bytes = Buffer.from(marked ? `\uFEFF${text}` : text);
        const expected = byTheBook(text);
        expect(parse([bytes])).toEqual(expected);
        expect(parse(cut(bytes, cuts))).toEqual(expected);
        expect(parse(bytewise(bytes))).toEqual(expected);
      }),
      RUNS,
    );
  });

  it("reads back the events that are written here", () => {
    const json = fc.json().map((text) => text.replaceAll(/[\r\n]/g, " "));
    fc.assert(
      fc.property(fc.array(json, { maxLength: 5 }), places, (texts, cuts) => {
        const bytes = Buffer.from(texts.map((text, n) => sseEvent(text, String(n))).join(""));
        const expected = texts.map((text, n) => message(text, String(n)));
        expect(parse(cut(bytes, cuts))).toEqual(expected);
      }),
      RUNS,
    );
    expect(parseText(`${sseComment("still here")}${ssePriming("7", 250)}`)).toEqual([
      250,
      message("", "7"),
    ]);
  });

  it.each([
    ["data: YHOO\ndata: +2\ndata: 10\n\n", [message("YHOO\n+2\n10")]],
    [
      ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
      [message("first event", "1"), message("second event", ""), message(" third event", "")],
    ],
    ["data\n\ndata\ndata\n\ndata:", [message(""), message("\n")]],
    ["data:test\n\ndata: test\n\n", [message("test"), message("test")]],
    ["event: add\ndata: 1\n\ndata: 2\n\n", [{ ...message("1"), type: "add" }, message("2")]],
    ["event: add\nevent:\ndata: 1\n\n", [message("1")]],
  ])("reads the example %j as the rules say", (text, expected) => {
    expect(parseText(text)).toEqual(expected);
  });

  it("takes a LF that follows a CR for its second half only once", () => {
    for (const pieces of [["data: a\r", "\n", "\n"], ["data: a\r\n\n"], ["data: a\r", "\r"]]) {
      expect(parse(pieces.map((piece) => Buffer.from(piece)))).toEqual([message("a")]);
    }
  });

  it("skips an event that is too long, once, and goes on with the next", () => {
    const limit = 20;
    const long = "x".repeat(limit + 1);
    const fits = "x".repeat(limit);
    for (const event of [
      `data: ${long}\n\n`,
      `data: a\ndata: ${long}\ndata: b\n\n`,
      `data: ${fits}\ndata: b\n\n`,
      `data: a\nid: ${long}${long}\n\n`,
    ]) {
      const bytes = Buffer.from(`${event}data: ${fits}\n\n`);
      expect(parse([bytes], limit)).toEqual(["too long", message(fits)]);
      expect(parse(bytewise(bytes), limit)).toEqual(["too long", message(fits)]);
    }
  });

  it("holds no more than the limit of an event that never ends", () => {
    const parser = parseSse(1_000, { event: fail, retry: fail, tooLong: fail });
    const chunk = Buffer.from("x".repeat(100_000));
    const before = process.memoryUsage().heapUsed;
    for (let n = 0; n < 2_000; n++) parser.push(chunk);
    expect(process.memoryUsage().heapUsed - before).toBeLessThan(100_000_000);
  });

  it("leaves out what the end of the stream cut short", () => {
    expect(parseText("data: a\n\ndata: b\n")).toEqual([message("a")]);
    expect(parseText("data: a\n\nid: 5\ndata: b")).toEqual([message("a")]);
  });
});

function fail(): never {
  throw new Error("nothing is complete here");
}

describe("sseEvent", () => {
  it("keeps a message on one line, whatever breaks are between its tokens", () => {
    for (const text of ['{"a":\r1}', '{"a":\n1}', '{"a":\r\n1}']) {
      const [seen] = parseText(sseEvent(text)) as Seen[];
      expect(JSON.parse(seen?.data ?? "")).toEqual({ a: 1 });
      expect(sseEvent(text).match(/[\r\n]/g)).toHaveLength(3);
    }
  });
});
