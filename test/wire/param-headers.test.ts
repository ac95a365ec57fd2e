import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { HangarError } from "../../src/errors.ts";
import { type Message, scanMessage } from "../../src/wire/envelope.ts";
import { encodeHeader } from "../../src/wire/headers.ts";
import { paramHeaders, requireParamHeaders } from "../../src/wire/param-headers.ts";

const TOOL = toolOf({
  type: "object",
  properties: {
    region: { type: "string", "x-mcp-header": "Region" },
    count: { type: "integer", "x-mcp-header": "count" },
    dry: { type: "boolean", "x-mcp-header": "Dry-Run" },
    plain: { type: "string" },
    where: {
      type: "object",
      properties: { city: { type: "string", "x-mcp-header": "City" } },
    },
    list: { type: "array", items: { type: "string", "x-mcp-header": "Item" } },
  },
});

function toolOf(inputSchema: unknown): { readonly text: string } {
  return { text: JSON.stringify({ name: "t", inputSchema }) };
}

/** A call whose arguments are `args`, raw JSON when it is a string. */
function callWith(args: unknown): Message {
  const text = typeof args === "string" ? args : JSON.stringify(args);
  return scanMessage(
    `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":${text}}}`,
  );
}

function refusal(args: unknown, given: Record<string, string>): string {
  try {
    requireParamHeaders(TOOL, callWith(args), given);
  } catch (error) {
    expect(error).toBeInstanceOf(HangarError);
    expect((error as HangarError).code).toBe("header_mismatch");
    return (error as HangarError).message;
  }
  return "";
}

describe("the headers of a call", () => {
  it("repeat the arguments that the tool's schema marks, nested ones too, and no others", () => {
    const args = {
      region: "us-west1",
      count: 7,
      dry: false,
      plain: "no",
      where: { city: "Zürich" },
      list: ["no"],
      City: "no",
    };
    expect(paramHeaders(TOOL, callWith(args))).toEqual({
      "mcp-param-region": "us-west1",
      "mcp-param-count": "7",
      "mcp-param-dry-run": "false",
      "mcp-param-city": encodeHeader("Zürich"),
    });
  });

  it("leave out what is null or not there", () => {
    expect(paramHeaders(TOOL, callWith({ region: null, where: null }))).toEqual({});
    expect(paramHeaders(TOOL, callWith({ where: {} }))).toEqual({});
    const bare = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t"}}';
    expect(paramHeaders(TOOL, scanMessage(bare))).toEqual({});
  });

  it("keep numbers as they are spelled and texts as they are meant", () => {
    expect(paramHeaders(TOOL, callWith('{"count":9007199254740993,"region":"\\u0061"}'))).toEqual({
      "mcp-param-count": "9007199254740993",
      "mcp-param-region": "a",
    });
  });

  it("of a tool without marks, or with odd ones, are none", () => {
    for (const schema of [
      { type: "object" },
      { type: "object", properties: { a: { type: "string" } } },
      { type: "object", properties: { a: { "x-mcp-header": 5 }, b: null, c: true } },
      { type: "object", "x-mcp-header": "Root" },
      { type: "object", properties: { a: { "x-mcp-header": "no token" } } },
      { type: "object", properties: { a: { "x-mcp-header": "a\r\nX" } } },
      { type: "object", properties: { a: { "x-mcp-header": "" } } },
      "x-mcp-header",
      undefined,
    ]) {
      expect(paramHeaders(toolOf(schema), callWith({ a: "x" }))).toEqual({});
    }
  });

  it("are found in a schema of any depth in a bounded time", () => {
    let schema: unknown = { "x-mcp-header": "Deep" };
    for (let depth = 0; depth < 25; depth++) schema = { properties: { a: schema } };
    expect(paramHeaders(toolOf(schema), callWith({ a: {} }))).toEqual({});
    const properties = Object.fromEntries(
      Array.from({ length: 500 }, (_, n) => [`p${n}`, { "x-mcp-header": `P${n}` }]),
    );
    const args = Object.fromEntries(Object.keys(properties).map((key) => [key, "x"]));
    const found = Object.keys(paramHeaders(toolOf({ properties }), callWith(args)));
    expect(found.length).toBeGreaterThan(0);
    expect(found.length).toBeLessThanOrEqual(64);
  });
});

describe("headers that came with a call", () => {
  it("agree with the body that they were made from, whatever is in it", () => {
    const args = fc.record(
      {
        region: fc.oneof(fc.string({ unit: "grapheme" }), fc.constant(null)),
        count: fc.integer(),
        dry: fc.boolean(),
        where: fc.record({ city: fc.string() }, { requiredKeys: [] }),
      },
      { requiredKeys: [] },
    );
    fc.assert(
      fc.property(args, (given) => {
        const call = callWith(given);
        requireParamHeaders(TOOL, call, paramHeaders(TOOL, call));
      }),
    );
  });

  it.each([
    ["is missing", { region: "a" }, {}, "missing"],
    ["says something else", { region: "a" }, { "mcp-param-region": "b" }, "mcp-param-region is b"],
    ["says it in other letters", { region: "a" }, { "mcp-param-region": "A" }, "region is A"],
    ["stands for nothing", {}, { "mcp-param-region": "a" }, "says nothing"],
    ["stands for null", { region: null }, { "mcp-param-region": "null" }, "says nothing"],
    ["is encoded wrongly", { region: "a" }, { "mcp-param-region": "=?base64?YQ?=" }, "YQ"],
    ["is another number", { count: 1 }, { "mcp-param-count": "2" }, "count is 2"],
    ["is a truth for a text", { dry: true }, { "mcp-param-dry-run": "1" }, "dry-run is 1"],
  ])("are refused when one %s", (_, args, given, why) => {
    expect(refusal(args, given as Record<string, string>)).toContain(why);
  });

  it("agree when they name the same integer in another spelling, or the same text encoded", () => {
    expect(refusal('{"count":1.0}', { "mcp-param-count": "1" })).toBe("");
    expect(refusal({ count: 100 }, { "mcp-param-count": "1e2" })).toBe("");
    expect(refusal({ region: "a" }, { "mcp-param-region": "=?base64?YQ==?=" })).toBe("");
  });

  it("do not agree when big integers only look the same as floating point numbers", () => {
    const given = { "mcp-param-count": "9007199254740992" };
    expect(refusal('{"count":9007199254740993}', given)).toContain("9007199254740993");
  });

  it("may be more than the tool asks for", () => {
    expect(refusal({ region: "a" }, { "mcp-param-region": "a", "mcp-param-other": "x" })).toBe("");
  });
});
