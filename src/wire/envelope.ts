/**
 * Scans JSON-RPC messages without building them: one pass checks the text and finds the few spans
 * that are read or replaced, so that everything else passes through byte for byte.
 */
import { HangarError } from "../errors.ts";

/** Half-open range [start, end) in a message's text, in UTF-16 units. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** The members of one JSON object: value spans by decoded key, in order. */
export type Members = ReadonlyMap<string, Span>;

/** One JSON-RPC 2.0 message: its text, untouched, and where its parts are. */
export interface Message {
  readonly text: string;
  readonly kind: "request" | "notification" | "response";
  /** Raw JSON text, so that no id ever changes. `null` and undefined occur only in a response with `error`, undefined also in a notification. */
  readonly id: string | undefined;
  /** Decoded. */
  readonly method: string | undefined;
  readonly params: Span | undefined;
  readonly result: Span | undefined;
  readonly error: Span | undefined;
  /** Members of `params` (request, notification) or `result` (response); empty when that is absent or no object. */
  readonly body: Members;
  /** Members of the body's `_meta`; empty when that is absent or no object. */
  readonly meta: Members;
}

/** Replaces `span` by `text`; an empty span inserts. */
export interface Edit {
  readonly span: Span;
  readonly text: string;
}

/** Deepest nesting of objects and arrays in a message; the message's own object is level 1. */
const MAX_DEPTH = 64;

const TAB = 0x09;
const LINE_FEED = 0x0a;
const CARRIAGE_RETURN = 0x0d;
const SPACE = 0x20;
const QUOTE = 0x22;
const PLUS = 0x2b;
const COMMA = 0x2c;
const MINUS = 0x2d;
const DOT = 0x2e;
const ZERO = 0x30;
const NINE = 0x39;
const COLON = 0x3a;
const UPPER_E = 0x45;
const OPEN_BRACKET = 0x5b;
const BACKSLASH = 0x5c;
const CLOSE_BRACKET = 0x5d;
const LOWER_E = 0x65;
const LOWER_U = 0x75;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;

/** The longest piece of a message that an error repeats, in UTF-16 units. */
const MAX_QUOTED = 60;

/** The members of `params` or `result` and of its `_meta`, and where the value ends. */
interface Body {
  readonly members: Members;
  readonly meta: Members;
  readonly end: number;
}

const NO_MEMBERS: Members = new Map();
const NO_BODY: Body = { members: NO_MEMBERS, meta: NO_MEMBERS, end: 0 };

/** The top-level keys with a meaning, the frequent ones first. */
const RESERVED = ["jsonrpc", "id", "method", "params", "result", "error"].map((key) => ({
  key,
  text: `"${key}"`,
}));

/** Reserved names under Unicode simple case folding, which is how lenient parsers match them (`paramſ` is `params` to them). */
const RESERVED_IN_ANY_CASE = /^(?:jsonrpc|id|method|params|result|error)$/iu;

/**
 * Checks `text` and finds its parts. Accepts what JSON.parse accepts, less what is not one unambiguous JSON-RPC 2.0 message.
 * Throws `parse_error` for bad JSON and `invalid_message` for the rest; the first fault from the left is the one reported.
 */
export function scanMessage(text: string): Message {
  let at = skipSpace(text, 0);
  if (text.charCodeAt(at) !== OPEN_BRACE) return refuseNonObject(text, at);

  const top = new Map<string, Span>();
  let paramsBody = NO_BODY;
  let resultBody = NO_BODY;
  at = skipSpace(text, at + 1);
  let closed = text.charCodeAt(at) === CLOSE_BRACE;
  while (!closed) {
    const keyEnd = skipKey(text, at);
    const key = reservedKey(text, at) ?? unreservedKey(text, at, keyEnd);
    if (top.has(key)) throw duplicateKey(key, at);
    const start = skipColon(text, keyEnd);
    let end: number;
    if (key === "params") {
      paramsBody = scanBody(text, start);
      end = paramsBody.end;
    } else if (key === "result") {
      resultBody = scanBody(text, start);
      end = resultBody.end;
    } else if (key === "error") {
      end = scanBody(text, start).end;
    } else end = skipValue(text, start, 1);
    top.set(key, { start, end });
    at = skipSpace(text, end);
    if (text.charCodeAt(at) === COMMA) at = skipSpace(text, at + 1);
    else if (text.charCodeAt(at) === CLOSE_BRACE) closed = true;
    else throw syntax(text, at, "`,` or `}`");
  }
  expectEnd(text, at + 1);

  const jsonrpc = top.get("jsonrpc");
  const id = top.get("id");
  const method = top.get("method");
  const params = top.get("params");
  const result = top.get("result");
  const error = top.get("error");
  if (jsonrpc === undefined) throw invalid('The message has no `jsonrpc`; it must be "2.0".');
  if (stringAt(text, jsonrpc) !== "2.0") {
    throw invalid(`\`jsonrpc\` must be "2.0", found ${excerpt(text, jsonrpc)}.`);
  }
  if (result !== undefined && error !== undefined) {
    throw invalid("The message has both `result` and `error`.");
  }
  const isResponse = result !== undefined || error !== undefined;
  if (method === undefined && !isResponse) {
    throw invalid("The message has neither `method` nor `result` nor `error`.");
  }
  if (method !== undefined && isResponse) {
    throw invalid("The message has `method` together with `result` or `error`.");
  }
  if (id === undefined && result !== undefined) {
    throw invalid("The message has a `result` but no `id` to say whose.");
  }
  const methodName = stringAt(text, method);
  if (method !== undefined && methodName === undefined) {
    throw invalid(`\`method\` must be a string, found ${excerpt(text, method)}.`);
  }
  if (id !== undefined && !isId(text, id, error !== undefined)) {
    throw invalid(`\`id\` must be a string or a number, found ${excerpt(text, id)}.`);
  }
  if (params !== undefined) {
    const c = text.charCodeAt(params.start);
    if (c !== OPEN_BRACE && c !== OPEN_BRACKET) {
      throw invalid(`\`params\` must be an object or an array, found ${excerpt(text, params)}.`);
    }
  }
  if (error !== undefined && text.charCodeAt(error.start) !== OPEN_BRACE) {
    throw invalid(`\`error\` must be an object, found ${excerpt(text, error)}.`);
  }

  const { members, meta } = isResponse ? resultBody : paramsBody;
  return {
    text,
    kind: isResponse ? "response" : id === undefined ? "notification" : "request",
    id: id === undefined ? undefined : textOf(text, id),
    method: methodName,
    params,
    result,
    error,
    body: members,
    meta,
  };
}

/** What decides whether a message is a request, and whose. */
const TELLING: readonly string[] = ["id", "method", "result", "error"];
const PRIMITIVE_ID = /^(?:"[^]*"|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)$/;

/**
 * The id of the request that `text`, no acceptable message or the beginning of one, was to be: raw JSON, `null` where
 * that cannot be told. Reads as far as it can and past most faults.
 */
export function idIn(text: string): string {
  const found = new Map<string, string>();
  try {
    let at = skipSpace(text, 0);
    if (text.charCodeAt(at) !== OPEN_BRACE) return "null";
    do {
      const keyAt = skipSpace(text, at + 1);
      const keyEnd = skipKey(text, keyAt);
      const key = decodeString(text, keyAt, keyEnd);
      const start = skipColon(text, keyEnd);
      at = skipRoughly(text, start);
      if (!TELLING.includes(key)) continue;
      if (found.has(key)) return "null";
      found.set(key, text.slice(start, at).trimEnd());
    } while (text.charCodeAt(at) === COMMA);
  } catch {
    // Nothing after this can be read; what was found before stays.
  }
  const id = found.get("id");
  const isRequest = found.has("method") && !found.has("result") && !found.has("error");
  return isRequest && id !== undefined && PRIMITIVE_ID.test(id) ? id : "null";
}

/** The end of the value at `at`, of which only strings and brackets are looked at; the comma or bracket after it. Throws where the text ends before. */
function skipRoughly(text: string, at: number): number {
  let level = 0;
  for (;;) {
    const c = text.charCodeAt(at);
    if (c === QUOTE) {
      at = skipString(text, at);
      continue;
    }
    if (at >= text.length) throw syntax(text, at, "the end of a value");
    if (c === OPEN_BRACE || c === OPEN_BRACKET) level++;
    else if (level === 0 && (c === COMMA || c === CLOSE_BRACE || c === CLOSE_BRACKET)) return at;
    else if (c === CLOSE_BRACE || c === CLOSE_BRACKET) level--;
    at++;
  }
}

/**
 * The members of the object at `span`, a value of a scanned message; undefined when there is none or it is no object.
 * Throws `invalid_message` on a duplicate key.
 */
export function membersOf(text: string, span: Span | undefined): Members | undefined {
  if (span === undefined || text.charCodeAt(span.start) !== OPEN_BRACE) return undefined;
  const members = new Map<string, Span>();
  scanMembers(text, span.start, 0, members, undefined, false);
  return members;
}

/** The items of the array at `span`, a value of a scanned message; undefined when there is none or it is no array. */
export function itemsOf(text: string, span: Span | undefined): Span[] | undefined {
  if (span === undefined || text.charCodeAt(span.start) !== OPEN_BRACKET) return undefined;
  const items: Span[] = [];
  let at = skipSpace(text, span.start + 1);
  if (text.charCodeAt(at) === CLOSE_BRACKET) return items;
  for (;;) {
    const end = skipValue(text, at, 1);
    items.push({ start: at, end });
    at = skipSpace(text, end);
    const c = text.charCodeAt(at);
    if (c === CLOSE_BRACKET) return items;
    if (c !== COMMA) throw syntax(text, at, "`,` or `]`");
    at = skipSpace(text, at + 1);
  }
}

/** The span of all of `text`. */
export function wholeOf(text: string): Span {
  return { start: 0, end: text.length };
}

/** The raw JSON text of the value at `span`. */
export function textOf(text: string, span: Span): string {
  return text.slice(span.start, span.end);
}

/** The decoded string at `span`; undefined when there is none or the value is no string. */
export function stringAt(text: string, span: Span | undefined): string | undefined {
  if (span === undefined || text.charCodeAt(span.start) !== QUOTE) return undefined;
  return decodeString(text, span.start, span.end);
}

/**
 * The text of `within` with `edits` applied, in any order; they must lie inside `within` and not overlap.
 * Insertions at one place keep their order. Every byte outside the edits stays as it was.
 */
export function splice(text: string, within: Span, edits: readonly Edit[]): string {
  return spliceParts(text, within, edits).join("");
}

/** The same in pieces, which together are the text: for large texts, whose pieces are not put together in vain. */
export function spliceParts(text: string, within: Span, edits: readonly Edit[]): string[] {
  const ordered =
    edits.length < 2
      ? edits
      : edits.toSorted((a, b) => a.span.start - b.span.start || a.span.end - b.span.end);
  const parts: string[] = [];
  let at = within.start;
  for (const { span, text: replacement } of ordered) {
    if (span.start < at || span.end < span.start || span.end > within.end) {
      throw new HangarError(
        "internal",
        `An edit at ${span.start} overlaps another or lies outside.`,
      );
    }
    parts.push(text.slice(at, span.start), replacement);
    at = span.end;
  }
  parts.push(text.slice(at, within.end));
  return parts;
}

/** The reserved key written plainly at `at`; found by comparison, since slices must be hashed anew as map keys. */
function reservedKey(text: string, at: number): string | undefined {
  for (const reserved of RESERVED) {
    if (text.startsWith(reserved.text, at)) return reserved.key;
  }
  return undefined;
}

/** The top-level key in [at, end), decoded: an unknown one, or a reserved one written with escapes. */
function unreservedKey(text: string, at: number, end: number): string {
  const key = decodeString(text, at, end);
  refuseNul(key, at);
  if (RESERVED_IN_ANY_CASE.test(key) && !RESERVED.some((reserved) => reserved.key === key)) {
    throw invalid(`The key ${quote(key)} at position ${at} is a reserved name in the wrong case.`);
  }
  return key;
}

/** Scans the value of `params` or `result` at `at`. */
function scanBody(text: string, at: number): Body {
  if (text.charCodeAt(at) !== OPEN_BRACE) {
    return { members: NO_MEMBERS, meta: NO_MEMBERS, end: skipValue(text, at, 1) };
  }
  const members = new Map<string, Span>();
  const meta = new Map<string, Span>();
  const end = scanMembers(text, at, 1, members, meta, true);
  return { members, meta, end };
}

/**
 * Collects the members of the object at `at`, which lies in `depth` others, and those of its `_meta` if `meta` is given.
 * Returns the object's end. `strict` refuses NUL in keys, which some parsers cut names at.
 */
function scanMembers(
  text: string,
  at: number,
  depth: number,
  members: Map<string, Span>,
  meta: Map<string, Span> | undefined,
  strict: boolean,
): number {
  at = skipSpace(text, at + 1);
  if (text.charCodeAt(at) === CLOSE_BRACE) return at + 1;
  for (;;) {
    const keyEnd = skipKey(text, at);
    const key = decodeString(text, at, keyEnd);
    if (members.has(key)) throw duplicateKey(key, at);
    if (strict) refuseNul(key, at);
    const start = skipColon(text, keyEnd);
    const end =
      meta !== undefined && key === "_meta" && text.charCodeAt(start) === OPEN_BRACE
        ? scanMembers(text, start, depth + 1, meta, undefined, strict)
        : skipValue(text, start, depth + 1);
    members.set(key, { start, end });
    at = skipSpace(text, end);
    const c = text.charCodeAt(at);
    if (c === CLOSE_BRACE) return at + 1;
    if (c !== COMMA) throw syntax(text, at, "`,` or `}`");
    at = skipSpace(text, at + 1);
  }
}

/** The closing character of each container that skipValue is inside of, by level. */
const closers = new Uint8Array(MAX_DEPTH + 1);

/** Checks the value at `at`, which lies in `depth` objects and arrays, and returns its end. Never recurses. */
function skipValue(text: string, at: number, depth: number): number {
  let level = depth;
  for (;;) {
    const c = text.charCodeAt(at);
    if (c === QUOTE) at = skipString(text, at);
    else if (c === OPEN_BRACE || c === OPEN_BRACKET) {
      if (level === MAX_DEPTH) {
        throw invalid(`The message is nested deeper than ${MAX_DEPTH} levels at position ${at}.`);
      }
      const closer = c + 2;
      at = skipSpace(text, at + 1);
      if (text.charCodeAt(at) !== closer) {
        closers[++level] = closer;
        if (closer === CLOSE_BRACE) at = skipColon(text, skipKey(text, at));
        continue;
      }
      at++;
    } else at = skipScalar(text, at, c);

    // A value has ended: close what ends with it, or go on to the next one.
    for (;;) {
      if (level === depth) return at;
      at = skipSpace(text, at);
      const next = text.charCodeAt(at);
      const closer = closers[level];
      if (next === COMMA) {
        at = skipSpace(text, at + 1);
        if (closer === CLOSE_BRACE) at = skipColon(text, skipKey(text, at));
        break;
      }
      if (next !== closer)
        throw syntax(text, at, closer === CLOSE_BRACE ? "`,` or `}`" : "`,` or `]`");
      at++;
      level--;
    }
  }
}

function skipSpace(text: string, at: number): number {
  while (isSpace(text.charCodeAt(at))) at++;
  return at;
}

/** Only space may follow. Apart from skipSpace, because one read past the end makes V8 compile every later read there for that case, a third slower. */
function expectEnd(text: string, at: number): void {
  while (at < text.length && isSpace(text.charCodeAt(at))) at++;
  if (at < text.length) throw syntax(text, at, "the end of the message");
}

function isSpace(c: number): boolean {
  return c <= SPACE && (c === SPACE || c === LINE_FEED || c === CARRIAGE_RETURN || c === TAB);
}

function skipKey(text: string, at: number): number {
  if (text.charCodeAt(at) !== QUOTE) throw syntax(text, at, "a key in double quotes");
  return skipString(text, at);
}

/** From a key's end to the start of its value. */
function skipColon(text: string, keyEnd: number): number {
  const at = skipSpace(text, keyEnd);
  if (text.charCodeAt(at) !== COLON) throw syntax(text, at, "`:`");
  return skipSpace(text, at + 1);
}

/** Strings are walked for this many characters before a search is set up, which costs more than it saves on short ones. */
const SHORT_RUN = 32;
/** From this length on, searching once per control character (memchr) is faster than one regular expression. */
const LONG_RUN = 1000;
/** All characters but quote, backslash and control characters. */
const PLAIN_CHARACTERS = /[ !#-[\]-\uffff]*/y;
const CONTROL_CHARACTERS = Array.from({ length: SPACE }, (_, code) => String.fromCharCode(code));

/** Checks the string whose opening quote is at `at` and returns its end. Linear, however escapes and quotes are spread. */
function skipString(text: string, at: number): number {
  at++;
  for (;;) {
    for (const near = at + SHORT_RUN; at < near; ) {
      const c = text.charCodeAt(at);
      if (c === QUOTE) return at + 1;
      if (c === BACKSLASH) at = skipEscape(text, at);
      else if (c >= SPACE) at++;
      else throw syntax(text, at, "a closing quote (control characters must be escaped)");
    }
    const quoteAt = text.indexOf('"', at);
    if (quoteAt === -1) at = skipLongRun(text, at, text.length);
    else if (quoteAt - at >= LONG_RUN) at = skipLongRun(text, at, quoteAt);
    else {
      PLAIN_CHARACTERS.lastIndex = at;
      PLAIN_CHARACTERS.test(text);
      at = PLAIN_CHARACTERS.lastIndex;
    }
  }
}

/** Checks a string's characters from `at` to the quote (or the end of the text) at `end`; returns `end`, or one more when that quote is escaped. */
function skipLongRun(text: string, at: number, end: number): number {
  const run = text.slice(at, end);
  for (const control of CONTROL_CHARACTERS) {
    const index = run.indexOf(control);
    if (index !== -1) throw syntax(text, at + index, "no unescaped control character in a string");
  }
  let next = at;
  for (;;) {
    const index = run.indexOf("\\", next - at);
    if (index === -1) return Math.max(next, end);
    next = at + index;
    do next = skipEscape(text, next);
    while (text.charCodeAt(next) === BACKSLASH);
  }
}

function skipEscape(text: string, at: number): number {
  const c = text.charCodeAt(at + 1);
  if (c === LOWER_U) {
    for (let i = at + 2; i < at + 6; i++) {
      if (!isHexDigit(text.charCodeAt(i))) throw syntax(text, i, "four hexadecimal digits");
    }
    return at + 6;
  }
  if (ESCAPABLE[c] !== 1) throw syntax(text, at + 1, "an escape character");
  return at + 2;
}

/** What may follow a backslash, apart from `u`. */
const ESCAPABLE = new Uint8Array(128);
for (const c of '"\\/bfnrt') ESCAPABLE[c.charCodeAt(0)] = 1;

function isHexDigit(c: number): boolean {
  return isDigit(c) || (c >= 0x41 && c <= 0x46) || (c >= 0x61 && c <= 0x66);
}

function isDigit(c: number): boolean {
  return c >= ZERO && c <= NINE;
}

/** Checks the number or literal at `at`, which begins with `c`. */
function skipScalar(text: string, at: number, c: number): number {
  if (c === MINUS || isDigit(c)) return skipNumber(text, at);
  if (text.startsWith("true", at) || text.startsWith("null", at)) return at + 4;
  if (text.startsWith("false", at)) return at + 5;
  throw syntax(text, at, "a value");
}

function skipNumber(text: string, at: number): number {
  if (text.charCodeAt(at) === MINUS) at++;
  if (text.charCodeAt(at) === ZERO) at++;
  else at = skipDigits(text, at);
  if (text.charCodeAt(at) === DOT) at = skipDigits(text, at + 1);
  const e = text.charCodeAt(at);
  if (e === LOWER_E || e === UPPER_E) {
    const sign = text.charCodeAt(at + 1);
    at = skipDigits(text, sign === PLUS || sign === MINUS ? at + 2 : at + 1);
  }
  return at;
}

/** Skips one digit or more. */
function skipDigits(text: string, at: number): number {
  if (!isDigit(text.charCodeAt(at))) throw syntax(text, at, "a digit");
  do at++;
  while (isDigit(text.charCodeAt(at)));
  return at;
}

/** Decodes the checked string in [start, end), quotes included. */
function decodeString(text: string, start: number, end: number): string {
  const raw = text.slice(start + 1, end - 1);
  if (!raw.includes("\\")) return raw;
  const decoded: string = JSON.parse(text.slice(start, end));
  return decoded;
}

function isId(text: string, id: Span, nullAllowed: boolean): boolean {
  const c = text.charCodeAt(id.start);
  return c === QUOTE || c === MINUS || isDigit(c) || (nullAllowed && textOf(text, id) === "null");
}

function refuseNul(key: string, at: number): void {
  if (key.includes("\0"))
    throw invalid(`The key ${quote(key)} at position ${at} contains a NUL character.`);
}

/** Something else than an object: bad JSON before anything, since a line of log output may well begin with `[`. */
function refuseNonObject(text: string, at: number): never {
  const end = skipValue(text, at, 0);
  expectEnd(text, end);
  throw invalid(
    text.charCodeAt(at) === OPEN_BRACKET
      ? "The message is an array; batches are not supported, send one object at a time."
      : `The message must be an object, found ${excerpt(text, { start: at, end })}.`,
  );
}

function duplicateKey(key: string, at: number): HangarError {
  return invalid(`The key ${quote(key)} occurs a second time at position ${at}.`);
}

function invalid(message: string): HangarError {
  return new HangarError("invalid_message", message);
}

function syntax(text: string, at: number, expected: string): HangarError {
  const found = at < text.length ? quote(String.fromCodePoint(text.codePointAt(at)!)) : "the end";
  return new HangarError("parse_error", `Expected ${expected} at position ${at}, found ${found}.`);
}

function quote(piece: string): string {
  return JSON.stringify(piece.length > MAX_QUOTED ? `${piece.slice(0, MAX_QUOTED)}…` : piece);
}

function excerpt(text: string, { start, end }: Span): string {
  return end - start > MAX_QUOTED
    ? `${text.slice(start, start + MAX_QUOTED)}…`
    : text.slice(start, end);
}

/** Whether a notification of a call, as text, tells its progress. */
export function isProgress(text: string): boolean {
  return text.includes('"notifications/progress"');
}
