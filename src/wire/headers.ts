/** The HTTP headers of the modern era that mirror the body (2026-07-28, "Standard request headers"). */
import { type Message, stringAt } from "./envelope.ts";

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
export function hasMirroredName(method: string): boolean {
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
