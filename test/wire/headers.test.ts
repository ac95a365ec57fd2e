import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { scanMessage } from "../../src/wire/envelope.ts";
import {
  decodeHeader,
  encodeHeader,
  mirroredName,
  requireAgreement,
} from "../../src/wire/headers.ts";

const RUNS = { numRuns: 1000 };

function nameOf(method: string, params: unknown): string | undefined {
  return mirroredName(scanMessage(JSON.stringify({ jsonrpc: "2.0", id: 1, method, params })));
}

/** Checks a modern request of that method that has no Mcp-Name. */
function sendWithoutName(method: string): void {
  const _meta = { "io.modelcontextprotocol/protocolVersion": "2026-07-28" };
  const request = { jsonrpc: "2.0", id: 1, method, params: { name: "x", _meta } };
  const headers = new Map([
    ["mcp-protocol-version", "2026-07-28"],
    ["mcp-method", method],
  ]);
  requireAgreement(scanMessage(JSON.stringify(request)), (name) => headers.get(name));
}

describe("a value in a header", () => {
  it("comes out as it went in, and is sendable and one line in between", () => {
    const value = fc.oneof(
      fc.string({ unit: "grapheme" }),
      fc.constantFrom("", " ", "a ", " a", "\t", "=?base64?YQ==?=", "=?base64?", "a\r\nX: y", "é"),
    );
    fc.assert(
      fc.property(value, (text) => {
        const header = encodeHeader(text);
        expect(header).toMatch(/^[!-~](?:[ -~]*[!-~])?$/);
        expect(decodeHeader(header)).toBe(text);
      }),
      RUNS,
    );
  });

  it.each(["add", "a b", "file:///a?b=c", "a=?base64?", "x"])(
    "stays plain where it can: %s",
    (text) => {
      expect(encodeHeader(text)).toBe(text);
    },
  );

  it.each([
    ["é", "=?base64?w6k=?="],
    [" a", "=?base64?IGE=?="],
    ["", "=?base64??="],
    ["=?base64?YQ==?=", "=?base64?PT9iYXNlNjQ/WVE9PT89?="],
  ])("is encoded where it cannot: %j", (text, header) => {
    expect(encodeHeader(text)).toBe(header);
  });

  it.each(["=?base64?YQ?=", "=?base64?Y===?=", "=?base64?a b=?=", "=?base64?w6k-?="])(
    "is nothing when it is encoded wrongly: %s",
    (header) => {
      expect(decodeHeader(header)).toBeUndefined();
    },
  );

  it("is plain when it only begins, or only ends, like an encoded one", () => {
    for (const header of ["=?base64?YQ==", "YQ==?=", "=?BASE64?YQ==?="]) {
      expect(decodeHeader(header)).toBe(header);
    }
  });
});

describe("the name that Mcp-Name repeats", () => {
  it.each([
    ["tools/call", { name: "é" }, "é"],
    ["prompts/get", { name: "p" }, "p"],
    ["resources/read", { uri: "file:///x", name: "no" }, "file:///x"],
    ["tasks/get", { taskId: "t" }, "t"],
    ["tasks/update", { taskId: "t" }, "t"],
    ["tasks/cancel", { taskId: "t" }, "t"],
  ])("of %s stands in %j", (method, params, name) => {
    expect(() => sendWithoutName(method)).toThrow("the header Mcp-Name is missing");
    expect(nameOf(method, params)).toBe(name);
  });

  it("is there for no other method, and for none of an object's own", () => {
    for (const method of ["tools/list", "completion/complete", "toString", "constructor"]) {
      expect(() => sendWithoutName(method)).not.toThrow();
      expect(nameOf(method, { name: "x" })).toBeUndefined();
    }
  });

  it("is not there when the body has none, or none that is a string", () => {
    expect(nameOf("tools/call", {})).toBeUndefined();
    expect(nameOf("tools/call", { name: 5 })).toBeUndefined();
  });
});
