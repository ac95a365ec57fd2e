import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { HangarError } from "../../src/errors.ts";
import { type Message, scanMessage, textOf } from "../../src/wire/envelope.ts";
import {
  commonLegacyVersion,
  META,
  modernVersionOf,
  withMeta,
  withoutEnvelope,
} from "../../src/wire/eras.ts";

const ENVELOPE = `"${META.protocolVersion}":"2026-07-28","${META.clientCapabilities}":{}`;
const ENVELOPE_VALUE = { [META.protocolVersion]: "2026-07-28", [META.clientCapabilities]: {} };

/** Texts that JSON.stringify would not give back: their bytes must survive. */
const rawValue = fc.oneof(
  fc.constantFrom("1.0", "1e400", "9007199254740993", '"\\u0041"', "[ 1 , 2 ]", "-0", '{ "a" : 1}'),
  fc.jsonValue({ maxDepth: 2 }).map((value) => JSON.stringify(value)),
);
const key = fc.oneof(
  fc.constantFrom("name", "arguments", "vendor/x", "progressToken", "__proto__", "a\\u0062c"),
  fc.string({ maxLength: 6 }).map((text) => JSON.stringify(text).slice(1, -1)),
);
const space = fc.constantFrom("", " ", "\n  ");

interface RawMember {
  readonly key: string;
  readonly value: string;
}

function members(keys: fc.Arbitrary<string>): fc.Arbitrary<RawMember[]> {
  return fc.uniqueArray(fc.record({ key: keys, value: rawValue }), {
    selector: (member) => JSON.parse(`"${member.key}"`) as string,
    maxLength: 4,
  });
}

function objectText(list: readonly RawMember[], gap: string): string {
  return `{${gap}${list.map(({ key: name, value }) => `"${name}"${gap}:${gap}${value}`).join(`,${gap}`)}${gap}}`;
}

/** The text of a request with these params, whose `_meta` stands at `place` among them. */
const request = fc
  .record({
    body: members(key.filter((text) => JSON.parse(`"${text}"`) !== "_meta")),
    meta: fc.option(members(key), { nil: undefined }),
    place: fc.nat({ max: 4 }),
    gap: space,
  })
  .map(({ body, meta, place, gap }) => {
    const all = [...body];
    if (meta !== undefined) {
      all.splice(Math.min(place, all.length), 0, { key: "_meta", value: objectText(meta, gap) });
    }
    const params = objectText(all, gap);
    return { body, meta, text: `{"jsonrpc":"2.0","id":1,"method":"x/y","params":${params}}` };
  });

function bytesOf(message: Message, from: ReadonlyMap<string, { start: number; end: number }>) {
  return [...from].map(([name, span]) => [name, textOf(message.text, span)] as const);
}

describe("withMeta", () => {
  it("adds to _meta and keeps every other byte, with and without a _meta", () => {
    const seen = { without: 0, empty: 0, filled: 0 };
    fc.assert(
      fc.property(request, ({ meta, text }) => {
        seen[meta === undefined ? "without" : meta.length === 0 ? "empty" : "filled"]++;
        const message = scanMessage(text);
        const params = withMeta(message, ENVELOPE, []).join("");
        const after = scanMessage(`{"jsonrpc":"2.0","id":1,"method":"x/y","params":${params}}`);
        const others = (m: Message) => bytesOf(m, m.body).filter(([name]) => name !== "_meta");
        expect(others(after)).toEqual(others(message));
        expect(bytesOf(after, after.meta)).toEqual([
          ...Object.entries(ENVELOPE_VALUE).map(([k, value]) => [k, JSON.stringify(value)]),
          ...bytesOf(message, message.meta),
        ]);
        // Taking out what went in gives back the very text.
        const added = [`"_meta":{${ENVELOPE}},`, `"_meta":{${ENVELOPE}}`, `${ENVELOPE},`, ENVELOPE];
        const original = textOf(text, message.params as { start: number; end: number });
        expect(added.map((what) => params.replace(what, () => ""))).toContain(original);
      }),
      { numRuns: 1000 },
    );
    expect(Math.min(seen.without, seen.empty, seen.filled)).toBeGreaterThan(50);
  });

  it("applies edits to values of params and of _meta in the same pass", () => {
    fc.assert(
      fc.property(request, fc.nat(), ({ text }, pick) => {
        const message = scanMessage(text);
        const spans = [...message.meta.values(), ...message.body.values()];
        const metaSpan = message.body.get("_meta");
        const editable = spans.filter((span) => span !== metaSpan);
        fc.pre(editable.length > 0);
        const span = editable[pick % editable.length] as { start: number; end: number };
        const edited = text.slice(0, span.start) + '"edited"' + text.slice(span.end);
        expect(withMeta(message, ENVELOPE, [{ span, text: '"edited"' }]).join("")).toBe(
          withMeta(scanMessage(edited), ENVELOPE, []).join(""),
        );
      }),
      { numRuns: 500 },
    );
  });

  it.each([
    ["no params", "", `{"_meta":{${ENVELOPE}}}`],
    ["empty params", ',"params":{}', `{"_meta":{${ENVELOPE}}}`],
    ["an empty _meta", ',"params":{"_meta":{}}', `{"_meta":{${ENVELOPE}}}`],
    ["a _meta", ',"params":{"a":1.0,"_meta":{"b":2}}', `{"a":1.0,"_meta":{${ENVELOPE},"b":2}}`],
    ["no _meta", ',"params":{ "a":1.0}', `{"_meta":{${ENVELOPE}}, "a":1.0}`],
  ])("writes the _meta of a message with %s", (_, params, expected) => {
    const message = scanMessage(`{"jsonrpc":"2.0","id":1,"method":"m"${params}}`);
    expect(withMeta(message, ENVELOPE, []).join("")).toBe(expected);
  });

  it.each(['{"a":1,"_meta":null}', '{"_meta":5}', '{"_meta":"text"}', '{"_meta":[]}'])(
    "replaces a _meta that is no object, as in %s",
    (params) => {
      const message = scanMessage(`{"jsonrpc":"2.0","id":1,"method":"m","params":${params}}`);
      const written = JSON.parse(withMeta(message, ENVELOPE, []).join(""));
      expect(written).toEqual({ ...JSON.parse(params), _meta: ENVELOPE_VALUE });
    },
  );

  it.each(["[]", "[1]"])("writes no broken JSON for the params %s", (params) => {
    const message = scanMessage(`{"jsonrpc":"2.0","id":1,"method":"m","params":${params}}`);
    let written = "{}";
    try {
      written = withMeta(message, ENVELOPE, []).join("");
    } catch (error) {
      expect(error).toBeInstanceOf(HangarError);
    }
    expect(() => JSON.parse(written)).not.toThrow();
  });
});

describe("withoutEnvelope", () => {
  it("takes the envelope out of _meta, replaces the progress token, and keeps every other byte", () => {
    fc.assert(
      fc.property(request, ({ text, meta }) => {
        const message = scanMessage(text);
        fc.pre(meta !== undefined);
        const head = '{"jsonrpc":"2.0","id":1,"method":"m","params":';
        const modern = scanMessage(`${head}${withMeta(message, ENVELOPE, []).join("")}}`);
        const plain = scanMessage(`${head}${withoutEnvelope(modern, "17").join("")}}`);
        const kept = bytesOf(message, message.meta).map(([name, value]) =>
          name === "progressToken" ? [name, "17"] : [name, value],
        );
        expect(bytesOf(plain, plain.meta)).toEqual(kept);
        const others = (one: Message) =>
          bytesOf(one, one.body).filter(([name]) => name !== "_meta");
        expect(others(plain)).toEqual(others(message));
      }),
      { numRuns: 500 },
    );
  });
});

describe("commonLegacyVersion", () => {
  it.each([
    ["2025-06-18", "2025-11-25", "2025-06-18"],
    ["2025-11-25", "2024-11-05", "2024-11-05"],
    ["2025-11-25", "2025-11-25", "2025-11-25"],
    ["1999-01-01", "2025-03-26", "2025-03-26"],
  ])("of a client's %s and a provider's %s is %s", (client, provider, common) => {
    expect(commonLegacyVersion(client, provider)).toBe(common);
  });
});

describe("modernVersionOf", () => {
  it.each([
    ['{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}', "2026-07-28"],
    ['{"_meta":{"io.modelcontextprotocol\\/protocolVersion":"x"}}', "x"],
    ['{"_meta":{"io.modelcontextprotocol/protocolVersion":5}}', ""],
    ['{"_meta":{"progressToken":1}}', undefined],
    ['{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}', undefined],
  ])("of params %s is %j", (params, expected) => {
    const message = scanMessage(`{"jsonrpc":"2.0","id":1,"method":"m","params":${params}}`);
    expect(modernVersionOf(message)).toBe(expected);
  });
});
