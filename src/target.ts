import type { HangarError } from "./errors.ts";
import type { Message } from "./wire/envelope.ts";

/** The two families of protocol revisions: `initialize` and sessions, or self-describing requests (2026-07-28 on). */
export type Era = "legacy" | "modern";

/** Who makes a call, as far as a target may know. */
export interface Caller {
  /** The authenticated identity; `local` for a client on this machine that needs none. */
  readonly principal: string;
  readonly era: Era;
}

/** One request with everything that belongs to it, until its one end. Immutable. */
export interface Call {
  /** What the client sent; its `params` pass as the bytes they came as. */
  readonly message: Message;
  readonly caller: Caller;
  /** The deadline the caller chose, in milliseconds; without it the target's own applies. */
  readonly timeoutMs?: number;
}

/** The provider's own answer, JSON-RPC errors included: `text` is the raw JSON of `result` or `error`. */
export interface Reply {
  readonly kind: "reply";
  readonly isError: boolean;
  readonly text: string;
}

/** How a call ended: with a reply, or with a failure that is ours and says whether the request was `sent`. */
export type Outcome = Reply | HangarError;

/** Receives what happens to one call. */
export interface CallHandler {
  /** A notification that belongs to the call, as the text of a whole message; never after `end`. */
  note(text: string): void;
  /** The end: exactly once, and never before `dispatch` has returned. */
  end(outcome: Outcome): void;
}

/** A call under way. */
export interface Running {
  /** Ends the call with `reason`, unless its end came first. */
  cancel(reason: HangarError): void;
}

/** Everything that can answer an MCP call: a connection, a provider, a group, Hangar itself. */
export interface Target {
  readonly name: string;
  /** Would a call be accepted now? */
  readonly available: boolean;
  dispatch(call: Call, handler: CallHandler): Running;
}
