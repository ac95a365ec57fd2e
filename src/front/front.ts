import type { Tell } from "../observe/events.ts";

/** What every front needs to know. */
export interface FrontOptions {
  readonly maxMessageBytes: number;
  readonly tell: Tell;
}

/** A place where clients arrive. */
export interface Front {
  /** Settles when no client will come any more by itself; never for HTTP. */
  readonly closed: Promise<void>;
  /** Takes nothing new, waits for what is under way up to `graceMs`, cancels the rest. */
  drain(graceMs: number): Promise<void>;
}
