import { HangarError } from "../errors.ts";
import type { Tell } from "../observe/events.ts";
import { holdCall } from "../providers/held-call.ts";
import { intercept } from "../routing/intercept.ts";
import type { CallHandler, Era, Outcome, Target } from "../target.ts";
import { type Message, stringAt } from "../wire/envelope.ts";
import {
  LEGACY_VERSION,
  LEGACY_VERSIONS,
  META,
  MODERN_VERSIONS,
  modernVersionOf,
} from "../wire/eras.ts";
import { INSTRUCTIONS, SERVER_INFO } from "./server-info.ts";

/** What Hangar's own face can do; `listChanged` is absent because its list of tools never changes. */
const CAPABILITIES = '{"tools":{}}';
/** How long a modern client may keep the answer to `server/discover`, in milliseconds. */
const DISCOVER_TTL_MS = 3_600_000;

const DISCOVERED = `{"resultType":"complete","supportedVersions":${JSON.stringify(MODERN_VERSIONS)},"capabilities":${CAPABILITIES},"instructions":${JSON.stringify(INSTRUCTIONS)},"ttlMs":${DISCOVER_TTL_MS},"cacheScope":"public","_meta":{"${META.serverInfo}":${SERVER_INFO}}}`;

/**
 * The era a request is of. A modern one describes itself; `server/discover` exists only there.
 * Responses and notifications follow the requests of their client.
 */
export function eraOf(message: Message): Era {
  const modern = modernVersionOf(message) !== undefined || message.method === "server/discover";
  return modern ? "modern" : "legacy";
}

/**
 * Refuses a modern request whose envelope is incomplete or of a revision Hangar does not speak
 * (2026-07-28, "Request metadata"). Throws `unsupported_version` or `invalid_params`.
 */
export function requireEnvelope(message: Message): void {
  const { text, meta } = message;
  const version = modernVersionOf(message);
  if (version === undefined) throw lacks(META.protocolVersion);
  if (!MODERN_VERSIONS.includes(version)) {
    throw new HangarError("unsupported_version", `Unsupported protocol version: ${version}`, {
      details: { supported: MODERN_VERSIONS, requested: version },
    });
  }
  const capabilities = meta.get(META.clientCapabilities);
  if (capabilities === undefined || text[capabilities.start] !== "{") {
    throw lacks(META.clientCapabilities);
  }
}

function lacks(key: string): HangarError {
  return new HangarError("invalid_params", `params._meta lacks ${key}`);
}

/** Hangar's own MCP server as a client sees it: the handshake of both eras, and `target` for everything else. */
export function ownFace(target: Target, tell: Tell): Target {
  return intercept(target, (call, handler) => {
    const { message, caller } = call;
    const own = caller.era === "modern" ? answerModern(message) : answerLegacy(message);
    const safe = guarded(handler, tell);
    if (own === undefined) return target.dispatch(call, safe);
    return holdCall(own, call, safe, tell);
  });
}

/** A provider as if the client were connected to it directly. Only a ping is not worth starting one for. */
export function relayFace(target: Target, startupMs: number, tell: Tell): Target {
  return intercept(target, (call, handler) => {
    const { message, caller } = call;
    const safe = guarded(handler, tell);
    // The handshake waits for a start, however short the deadline of calls is.
    if (message.method === "initialize" || message.method === "server/discover") {
      return target.dispatch({ ...call, timeoutMs: startupMs }, safe);
    }
    if (message.method !== "ping" || caller.era === "modern") return target.dispatch(call, safe);
    return holdCall(PONG, call, safe, tell);
  });
}

const PONG: Outcome = { kind: "reply", isError: false, text: "{}" };

function answerModern(message: Message): Outcome | undefined {
  switch (message.method) {
    case "server/discover":
      return { kind: "reply", isError: false, text: DISCOVERED };
    case "initialize":
    case "ping":
      return new HangarError(
        "method_not_found",
        `Method not found: ${message.method} is not part of protocol revision ${modernVersionOf(message)}`,
      );
    default:
      return undefined;
  }
}

function answerLegacy(message: Message): Outcome | undefined {
  switch (message.method) {
    case "initialize":
      return initialize(message);
    case "ping":
      return PONG;
    default:
      return undefined;
  }
}

/** Speaks the client's revision where Hangar knows it, else offers its newest (2025-11-25, "Lifecycle"). */
function initialize({ text, body }: Message): Outcome {
  const requested = stringAt(text, body.get("protocolVersion"));
  if (requested === undefined) {
    return new HangarError("invalid_params", "initialize needs `protocolVersion`, a string");
  }
  const version = LEGACY_VERSIONS.includes(requested) ? requested : LEGACY_VERSION;
  return {
    kind: "reply",
    isError: false,
    text: `{"protocolVersion":"${version}","capabilities":${CAPABILITIES},"serverInfo":${SERVER_INFO},"instructions":${JSON.stringify(INSTRUCTIONS)}}`,
  };
}

/** `handler`, whose exceptions are told instead of thrown into whoever delivers. */
function guarded(handler: CallHandler, tell: Tell): CallHandler {
  function safely(deliver: () => void): void {
    try {
      deliver();
    } catch (error) {
      tell({ type: "defect", error });
    }
  }
  return {
    note: (text) => safely(() => handler.note(text)),
    ask: (question) => handler.ask(question),
    pause: () => handler.pause(),
    end: (outcome) => safely(() => handler.end(outcome)),
  };
}
