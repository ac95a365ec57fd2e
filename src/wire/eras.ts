import { HangarError } from "../errors.ts";
import { type Edit, type Message, spliceParts, stringAt } from "./envelope.ts";

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
  subscriptionId: "io.modelcontextprotocol/subscriptionId",
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

/**
 * The `params` text, in pieces, of a message with the modern envelope taken out of its `_meta`, and `token` put in the place of
 * its progress token, if it has one. For requests that go to a provider of the legacy era.
 */
export function withoutEnvelope(message: Message, token: string): string[] {
  const { text, params, body } = message;
  const meta = body.get("_meta");
  if (params === undefined || meta === undefined) return ["{}"];
  const members = [...message.meta]
    .filter(([key]) => !ENVELOPE_KEYS.includes(key))
    .map(([key, span]) => {
      const value = key === "progressToken" ? token : text.slice(span.start, span.end);
      return `${JSON.stringify(key)}:${value}`;
    });
  return spliceParts(text, params, [{ span: meta, text: `{${members.join(",")}}` }]);
}

/** The newest legacy revision that both sides speak, given what each would like to speak. */
export function commonLegacyVersion(client: string, provider: string): string {
  const wanted = LEGACY_VERSIONS.indexOf(client);
  return wanted === -1 || wanted > LEGACY_VERSIONS.indexOf(provider) ? provider : client;
}

/**
 * The `params` text of `message`, in pieces, with `members` (`"key":value,...`) put first in its `_meta`, and
 * `edits` applied. Throws `invalid_params` for an array. For requests and notifications without a modern envelope of their own.
 */
export function withMeta(message: Message, members: string, edits: readonly Edit[]): string[] {
  const { text, params, body } = message;
  if (params === undefined) return [`{"_meta":{${members}}}`];
  if (text[params.start] !== "{") {
    throw new HangarError("invalid_params", "`params` must be an object");
  }
  const meta = body.get("_meta");
  if (meta !== undefined && text[meta.start] !== "{") {
    return spliceParts(text, params, [...edits, { span: meta, text: `{${members}}` }]);
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
  return spliceParts(text, params, [...edits, envelope]);
}
