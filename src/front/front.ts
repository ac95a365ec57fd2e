import { HangarError } from "../errors.ts";
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
  /** Takes nothing new, waits for what is under way up to `graceMs`, cancels the rest. Settles when its clients know. */
  drain(graceMs: number): Promise<void>;
}

/** How long a client may take none of what is on its way to it when Hangar ends, in milliseconds. */
export const LAST_BYTES_MS = 500;
/** When a client may try again, in milliseconds: whatever starts Hangar again needs a moment. */
const BACK_AFTER_MS = 1_000;

/** Why a drain takes no new call. */
export function takesNoMore(): HangarError {
  const why = "Hangar is shutting down and takes no new calls";
  return new HangarError("shutting_down", why, { retryAfterMs: BACK_AFTER_MS });
}

/** Why a drain ends a call that is under way. */
export function cutOff(): HangarError {
  return new HangarError(
    "shutting_down",
    "Hangar is shutting down and waits for the call no longer",
  );
}
