import { HangarError } from "../errors.ts";
import type { Tell } from "../observe/events.ts";
import { holdCall } from "../providers/held-call.ts";
import type { Call, CallHandler, Era, Outcome, Running, Target } from "../target.ts";
import { type Message, stringAt, textOf } from "../wire/envelope.ts";
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

/**
 * One MCP server as a client sees it: the handshake of both eras, and `target` for everything else.
 * Knows no transport and keeps nothing between requests.
 */
export function endpoint(target: Target, tell: Tell): Target {
  return {
    name: target.name,
    get available() {
      return target.available;
    },
    dispatch(call, handler) {
      const { message, caller } = call;
      const own = caller.era === "modern" ? answerModern(message) : answerLegacy(message);
      const safe = guarded(handler, tell);
      if (own === undefined) return target.dispatch(call, safe);
      return holdCall(Promise.resolve(own), call, safe, tell);
    },
  };
}

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
      return { kind: "reply", isError: false, text: "{}" };
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
    end: (outcome) => safely(() => handler.end(outcome)),
  };
}

/** The calls of one client that are under way, by the client's own ids (raw JSON text). */
export class CallsUnderWay {
  readonly #running = new Map<string, Running>();
  /** When the last one ended, in milliseconds since 1970. */
  endedAt = 0;

  get size(): number {
    return this.#running.size;
  }

  /** Throws `invalid_message` when the call's id is in use. */
  dispatch(target: Target, call: Call, handler: CallHandler): Running {
    const id = call.message.id as string;
    if (this.#running.has(id)) {
      throw new HangarError("invalid_message", `The id ${id} is in use by a request under way`);
    }
    const running = target.dispatch(call, {
      note: (text) => handler.note(text),
      end: (outcome) => {
        this.#running.delete(id);
        this.endedAt = Date.now();
        handler.end(outcome);
      },
    });
    this.#running.set(id, running);
    return running;
  }

  /** Takes a `notifications/cancelled` of the client. An id that is not under way is no error (the end may have crossed it). */
  cancel({ text, body }: Message): void {
    const id = body.get("requestId");
    if (id === undefined) return;
    const reason = stringAt(text, body.get("reason")) ?? "no reason given";
    this.#running
      .get(textOf(text, id))
      ?.cancel(new HangarError("cancelled", `cancelled by the client: ${reason}`));
  }

  cancelAll(reason: HangarError): void {
    for (const running of this.#running.values()) running.cancel(reason);
  }
}
