import type { HangarError } from "../errors.ts";
import type { OutputStream } from "../observe/events.ts";

/** How a run ended. */
export interface Exit {
  /** The exit code, or null when a signal ended it. */
  readonly code: number | null;
  readonly signal: string | null;
}

/** What a run says while it lives. */
export interface RunEvents {
  /**
   * One piece of its output that may be a message; `about` is the id of the request whose answer it
   * came with, where the way of transport tells. False when it is none.
   */
  line(text: string, about?: number): boolean;
  /** A line that is no message, secrets taken out. */
  readonly printed: (stream: OutputStream, line: string) => void;
  /** The provider closed the event stream of this answer on purpose; it is taken up again later. */
  paused(id: number): void;
  /** Whether somebody still waits for the answer to request `id`. */
  waits(id: number): boolean;
  /** The request `id` will get no answer. */
  lost(id: number, why: HangarError): void;
  /** A line that was dropped because it cannot be one; `head` is its beginning. */
  refused(reason: "too_long" | "not_utf8", head: string): void;
}

/** What a message that is sent is about, for ways of transport that are not a plain pipe. */
export interface About {
  /** The id of the request; undefined for notifications and responses. */
  readonly id?: number;
  readonly method?: string;
  /** What the header `Mcp-Name` repeats. */
  readonly name?: string | undefined;
  /** Headers of the client that go on, names in lower case. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
}

/** One start-to-exit of a provider. */
export interface Run {
  /** For people: `pid 4711`. */
  readonly what: string;
  /** Writes one message, given in pieces. False when the provider reads too slowly and the message was not taken. */
  send(parts: readonly string[], about: About): boolean;
  /** The handshake is done; whoever mirrors it in headers needs to know. */
  settled?(era: "legacy" | "modern", version: string): void;
  /** Nobody waits for the answer to this request any more. */
  forget?(id: number): void;
  /** Settles once, when the run is over; never rejects. */
  readonly exited: Promise<Exit>;
  /** The last lines that it has printed and that are no messages, oldest first; those of stdout are marked. */
  tail(): readonly string[];
  /** Asks, waits `graceMs` at each step, then kills; settles when nothing of the run is left. May be called twice. */
  stop(graceMs: number): Promise<void>;
}

/** Runs a provider in one mode. Knows nothing of retries, health checks or MCP. */
export interface Driver {
  /**
   * Starts one run. An abort ends the start and leaves nothing behind.
   * Throws `start_failed`, or `not_startable` when trying again cannot help.
   */
  start(events: RunEvents, signal: AbortSignal): Promise<Run>;
}
