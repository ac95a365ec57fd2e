/** Headers that mirror arguments of a tool (2026-07-28, "Custom headers from tool parameters"). */
import { membersOf, type Message, type Span, stringAt, textOf, wholeOf } from "./envelope.ts";
import { decodeHeader, encodeHeader, mismatch } from "./headers.ts";

/** One argument that a header repeats. */
interface ParamHeader {
  /** The whole header name, in lower case. */
  readonly header: string;
  /** Where the value stands in `arguments`. */
  readonly path: readonly string[];
}

const PREFIX = "mcp-param-";
/** Annotations of one tool that are looked at; and how deep in its schema. */
const MAX_ANNOTATIONS = 64;
const MAX_SCHEMA_DEPTH = 16;

/** RFC 9110, 5.6.2. */
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;

const known = new WeakMap<{ readonly text: string }, readonly ParamHeader[]>();

/** The headers that calls of `tool`, a tool's definition as raw JSON, carry. */
function paramHeadersOf(tool: { readonly text: string }): readonly ParamHeader[] {
  let headers = known.get(tool);
  if (headers === undefined) {
    headers = tool.text.includes("x-mcp-header") ? annotationsIn(tool.text) : [];
    known.set(tool, headers);
  }
  return headers;
}

function annotationsIn(text: string): ParamHeader[] {
  const found: ParamHeader[] = [];
  function visit(schema: Span | undefined, path: readonly string[]): void {
    if (path.length > MAX_SCHEMA_DEPTH || found.length >= MAX_ANNOTATIONS) return;
    const members = membersOf(text, schema);
    const name = stringAt(text, members?.get("x-mcp-header"));
    // A name that no header can have makes no header.
    if (name !== undefined && TOKEN.test(name) && path.length > 0) {
      found.push({ header: PREFIX + name.toLowerCase(), path });
    }
    for (const [key, property] of membersOf(text, members?.get("properties")) ?? []) {
      visit(property, [...path, key]);
    }
  }
  visit(membersOf(text, wholeOf(text))?.get("inputSchema"), []);
  return found;
}

/** The value that the header repeats, as text; undefined when the call has none, or null. */
function valueAt({ text, body }: Message, path: readonly string[]): string | undefined {
  let span = body.get("arguments");
  for (const step of path) span = membersOf(text, span)?.get(step);
  if (span === undefined) return undefined;
  const raw = textOf(text, span);
  return raw === "null" ? undefined : (stringAt(text, span) ?? raw);
}

/** The headers that a call of `tool` carries. */
export function paramHeaders(
  tool: { readonly text: string },
  call: Message,
): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const { header, path } of paramHeadersOf(tool)) {
    const value = valueAt(call, path);
    if (value !== undefined) headers[header] = encodeHeader(value);
  }
  return headers;
}

/** Throws `header_mismatch` unless the headers that came with a call of `tool` say what its arguments say. */
export function requireParamHeaders(
  tool: { readonly text: string },
  call: Message,
  given: Readonly<Record<string, string>>,
): void {
  for (const { header, path } of paramHeadersOf(tool)) {
    const wanted = valueAt(call, path);
    const found = given[header];
    if (wanted === undefined && found === undefined) continue;
    const at = `the header ${header}`;
    if (found === undefined) throw mismatch(`${at} is missing; the body says ${wanted}`);
    const value = decodeHeader(found);
    const agrees = value !== undefined && wanted !== undefined;
    if (agrees && (value === wanted || isSameInteger(value, wanted))) continue;
    throw mismatch(`${at} is ${found}, but the body says ${wanted ?? "nothing"}`);
  }
}

/** Integers are compared as numbers: `1` and `1.0` are one. Beyond what a double holds exactly, only as text. */
function isSameInteger(one: string, other: string): boolean {
  const number = /^-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?$/;
  if (!number.test(one) || !number.test(other)) return false;
  return Number.isSafeInteger(Number(one)) && Number(one) === Number(other);
}
