import { HangarError } from "../errors.ts";
import { type Edit, type Message, splice, stringAt } from "./envelope.ts";

/** The modern revisions Hangar speaks. */
export const MODERN_VERSIONS: readonly string[] = ["2026-07-28"];
/** The newest modern revision, which Hangar names to providers. */
export const MODERN_VERSION = "2026-07-28";
/** The legacy revisions Hangar speaks, newest last. */
export const LEGACY_VERSIONS: readonly string[] = [
  "2024-11-05",
  "2025-03-26",
  "2025-06-18",
  "2025-11-25",
];
/** The legacy revision Hangar offers first. */
export const LEGACY_VERSION = "2025-11-25";

/** Keys of `_meta` in the modern revisions (2026-07-28, "Request metadata"). */
export const META = {
  protocolVersion: "io.modelcontextprotocol/protocolVersion",
  clientInfo: "io.modelcontextprotocol/clientInfo",
  clientCapabilities: "io.modelcontextprotocol/clientCapabilities",
  logLevel: "io.modelcontextprotocol/logLevel",
  serverInfo: "io.modelcontextprotocol/serverInfo",
} as const;

const ENVELOPE_KEYS: readonly string[] = [
  META.protocolVersion,
  META.clientInfo,
  META.clientCapabilities,
  META.logLevel,
];

/** The revision a modern message names, or undefined: then the message is legacy. */
export function modernVersionOf(message: Message): string | undefined {
  const named = message.meta.get(META.protocolVersion);
  // A value that is no string still marks the message as modern; it is then refused as such.
  return named === undefined ? undefined : (stringAt(message.text, named) ?? "");
}

/** The members of a message's `_meta` that are not the modern envelope, as `"key":value` texts. */
export function plainMeta(message: Message): string[] {
  return [...message.meta]
    .filter(([key]) => !ENVELOPE_KEYS.includes(key))
    .map(([key, span]) => `${JSON.stringify(key)}:${message.text.slice(span.start, span.end)}`);
}

/**
 * The `params` text of `message` with `members` (`"key":value,...`) put first in its `_meta`, and
 * `edits` applied. Throws `invalid_params` for an array. For requests and notifications without a modern envelope of their own.
 */
export function withMeta(message: Message, members: string, edits: readonly Edit[]): string {
  const { text, params, body } = message;
  if (params === undefined) return `{"_meta":{${members}}}`;
  if (text[params.start] !== "{") {
    throw new HangarError("invalid_params", "`params` must be an object");
  }
  const meta = body.get("_meta");
  if (meta !== undefined && text[meta.start] !== "{") {
    return splice(text, params, [...edits, { span: meta, text: `{${members}}` }]);
  }
  // Into an object, right behind its opening brace; the comma depends on what follows.
  const insert = (at: number, what: string, followed: boolean): Edit => ({
    span: { start: at + 1, end: at + 1 },
    text: followed ? `${what},` : what,
  });
  const envelope =
    meta === undefined
      ? insert(params.start, `"_meta":{${members}}`, body.size > 0)
      : insert(meta.start, members, message.meta.size > 0);
  return splice(text, params, [...edits, envelope]);
}
