/** The HTTP headers of the modern era that mirror the body (2026-07-28, "Standard request headers"). */
import { HangarError } from "../errors.ts";
import { type Message, stringAt } from "./envelope.ts";
import { modernVersionOf } from "./eras.ts";

/** The member of `params` that the header `Mcp-Name` repeats, by method. */
const NAMED_BY: Readonly<Record<string, string>> = {
  "tools/call": "name",
  "prompts/get": "name",
  "resources/read": "uri",
  "tasks/get": "taskId",
  "tasks/update": "taskId",
  "tasks/cancel": "taskId",
};

/** True for methods whose requests carry `Mcp-Name`. */
function hasMirroredName(method: string): boolean {
  return Object.hasOwn(NAMED_BY, method);
}

/** What `Mcp-Name` says of the request; undefined when it has no such header. */
export function mirroredName({ method, text, body }: Message): string | undefined {
  const member = method === undefined || !hasMirroredName(method) ? undefined : NAMED_BY[method];
  return member === undefined ? undefined : stringAt(text, body.get(member));
}

/** `value` as a header value: plain where it is visible ASCII, else `=?base64?...?=`. */
export function encodeHeader(value: string): string {
  const plain = /^[!-~](?:[ -~]*[!-~])?$/.test(value) && !value.startsWith("=?base64?");
  return plain ? value : `=?base64?${Buffer.from(value, "utf8").toString("base64")}?=`;
}

const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

/** The value that a header stands for; undefined when it is encoded, but wrongly. */
export function decodeHeader(value: string): string | undefined {
  const encoded = /^=\?base64\?(.*)\?=$/.exec(value)?.[1];
  if (encoded === undefined) return value;
  return BASE64.test(encoded) ? Buffer.from(encoded, "base64").toString("utf8") : undefined;
}

/**
 * Throws `header_mismatch` unless the headers that mirror the body say what it says (2026-07-28, "Standard request headers").
 * `header` gives the value of a header by its name in lower case.
 */
export function requireAgreement(
  message: Message,
  header: (name: string) => string | undefined,
): void {
  const { method } = message;
  const expected: [string, string | undefined][] = [
    ["MCP-Protocol-Version", modernVersionOf(message)],
    ["Mcp-Method", method],
  ];
  if (hasMirroredName(method as string)) expected.push(["Mcp-Name", mirroredName(message)]);
  for (const [name, value] of expected) {
    const found = header(name.toLowerCase());
    if (found === undefined) throw mismatch(`the header ${name} is missing`);
    if (value === undefined || decodeHeader(found) !== value) {
      throw mismatch(`the header ${name} is ${found}, but the body says ${value ?? "nothing"}`);
    }
  }
}

/** A header that does not say what the body says. */
export function mismatch(what: string): HangarError {
  return new HangarError("header_mismatch", `Header mismatch: ${what}`);
}
