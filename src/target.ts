import type { HangarError } from "./errors.ts";
import type { Message } from "./wire/envelope.ts";

/** The two families of protocol revisions: `initialize` and sessions, or self-describing requests (2026-07-28 on). */
export type Era = "legacy" | "modern";

/** Who makes a call, as far as a target may know. */
export interface Caller {
  /** The authenticated identity; `local` for a client on this machine that needs none. */
  readonly principal: string;
  readonly era: Era;
  /** Names one client for as long as it is connected: a session, a pipe; of modern HTTP clients, the principal. */
  readonly client: string;
  /** What a legacy client declared in `initialize`, raw JSON; a modern client says it in each request. */
  readonly capabilities: string;
}

/** One request with everything that belongs to it, until its one end. Immutable. */
export interface Call {
  /** What the client sent; its `params` pass as the bytes they came as. */
  readonly message: Message;
  readonly caller: Caller;
  /** The deadline the caller chose, in milliseconds; without it the target's own applies. */
  readonly timeoutMs?: number;
  /** When it will be cancelled if nothing comes of it, by `performance.now()`. */
  readonly expiresAt?: number;
  /** HTTP headers that belong to the call beyond this hop, names in lower case: `mcp-param-*`, trace context. */
  readonly headers?: Readonly<Record<string, string>>;
}

/** The provider's own answer, JSON-RPC errors included: `text` is the raw JSON of `result` or `error`. */
export interface Reply {
  readonly kind: "reply";
  readonly isError: boolean;
  readonly text: string;
}

/** How a call ended: with a reply, or with a failure that is ours and says whether the request was `sent`. */
export type Outcome = Reply | HangarError;

/** A request of a provider to a client: sampling, elicitation, roots (legacy era only). */
export interface Question {
  /** As the provider sent it, with the provider's own id. */
  readonly message: Message;
  /** The client's answer; what comes after the first is ignored. */
  answer(reply: Reply): void;
  /** What the client has to say about it meanwhile: progress, as a whole message. */
  note(message: Message): void;
}

/** A question that was put to a client. */
export interface Asked {
  /** The provider no longer wants to know; `message` is its `notifications/cancelled`. */
  withdraw(message: Message): void;
}

/** Receives what happens to one call. */
export interface CallHandler {
  /** A notification that belongs to the call, as the text of a whole message; never after `end`. */
  note(text: string): void;
  /** Puts a question of the provider to the client that made the call; never after `end`. */
  ask(question: Question): Asked;
  /** The provider closed the event stream of the answer and wants the client to come back for it (2025-11-25, "Streamable HTTP"). */
  pause(): void;
  /** The end: exactly once, and never before `dispatch` has returned. */
  end(outcome: Outcome): void;
}

/** `handler` with another end. */
export function atEnd(handler: CallHandler, end: (outcome: Outcome) => void): CallHandler {
  return {
    note: (text) => handler.note(text),
    ask: (question) => handler.ask(question),
    pause: () => handler.pause(),
    end,
  };
}

/** A call under way. */
export interface Running {
  /** Ends the call with `reason`, unless its end came first. */
  cancel(reason: HangarError): void;
}

/** A client that wants to know what happens without a call. */
export interface Watcher {
  readonly caller: Caller;
  /** A notification that belongs to no call, as the text of a whole message. */
  note(text: string): void;
  /** A question outside any call; only where the run is this client's alone. */
  ask(question: Question): Asked;
}

/** A watcher's hold on its target; survives the target's runs and never starts one. */
export interface Watch {
  /** A notification of the client for the provider; lost when nothing runs. */
  note(message: Message): void;
  close(): void;
}

/** Everything that can answer an MCP call: a connection, a provider, a group, Hangar itself. */
export interface Target {
  readonly name: string;
  /** Would a call be accepted now? */
  readonly available: boolean;
  dispatch(call: Call, handler: CallHandler): Running;
  watch(watcher: Watcher): Watch;
}
