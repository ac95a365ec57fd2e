/** The states of a provider, as the registry tools show them. */
export type State = "cold" | "initializing" | "ready" | "degraded" | "dead";

import { backoffMs } from "./backoff.ts";

/**
 * What a provider is doing. `run` numbers its starts, so that news of an earlier run is ignored;
 * `failures` counts failures in a row; `crashes` are the times of failed starts and unwanted exits since it was
 * last healthy for long enough, oldest first. `degraded` is a running provider that keeps failing, or
 * (with `retryAt`, in milliseconds of the clock in use) one that waits for its next retry.
 */
export type Lifecycle = {
  readonly run: number;
  readonly failures: number;
  readonly crashes: readonly number[];
} & (
  | { readonly state: "cold" }
  | { readonly state: "initializing" }
  | { readonly state: "ready" }
  | { readonly state: "degraded"; readonly reason: string; readonly retryAt?: number }
  | { readonly state: "dead"; readonly reason: string; readonly cause: DeathCause }
);

/** `crash_loop`: it failed too often in a short time; `permanent`: it cannot start until somebody mends it. */
export type DeathCause = "crash_loop" | "permanent";

/** News about a provider. Everything but `start` and `stopped` belongs to a run. */
export type LifecycleEvent =
  | { readonly type: "start" }
  | { readonly type: "started"; readonly run: number }
  /** The start failed, or the run ended by itself after `upMs` of being ready; `random` is in [0, 1). */
  | {
      readonly type: "failed";
      readonly run: number;
      readonly reason: string;
      readonly at: number;
      readonly upMs?: number;
      readonly random: number;
      /** The provider said itself how long to stay away. */
      readonly retryAfterMs?: number | undefined;
    }
  /** It cannot start until somebody mends it: no such command, a variable that is not set. */
  | { readonly type: "impossible"; readonly run: number; readonly reason: string }
  /** A health check or a call failed while it ran. */
  | { readonly type: "check_failed"; readonly run: number; readonly reason: string }
  | { readonly type: "check_passed"; readonly run: number }
  /** On purpose: for idleness, by hand, at the end. Not a failure; what is dead stays dead. */
  | { readonly type: "stopped" };

export interface LifecyclePolicy {
  /** Failures in a row that make a running provider `degraded`. */
  readonly max_consecutive_failures: number;
  readonly restart: {
    /** Crashes within `window_s` that make the provider dead. */
    readonly limit: number;
    readonly window_s: number;
    /** Ready for so long, a provider is forgiven its earlier crashes. */
    readonly healthy_s: number;
  };
}

export const COLD: Lifecycle = { state: "cold", run: 0, failures: 0, crashes: [] };

/** Crashes that are remembered; the backoff grows no more long before. */
const MAX_CRASHES = 100;
/** A provider that asks for more time is tried again all the same, in milliseconds. */
const MAX_RETRY_AFTER_MS = 600_000;

/** The whole state machine. An event that does not apply leaves the state as it was. */
export function next(now: Lifecycle, event: LifecycleEvent, policy: LifecyclePolicy): Lifecycle {
  if ("run" in event && event.run !== now.run) return now;
  const { run, failures, crashes } = now;
  const running = isRunning(now);
  switch (event.type) {
    case "start":
      if (running || now.state === "initializing") return now;
      // Only a person starts what is dead, and has mended it.
      return {
        ...{ state: "initializing", run: run + 1, failures },
        crashes: now.state === "dead" ? [] : crashes,
      };
    case "started":
      return now.state === "initializing" ? { state: "ready", run, failures: 0, crashes } : now;
    case "failed":
      return running || now.state === "initializing" ? crashed(now, event, policy.restart) : now;
    case "impossible":
      if (now.state !== "initializing") return now;
      return {
        ...{ state: "dead", run, failures: failures + 1, crashes },
        ...{ reason: event.reason, cause: "permanent" },
      };
    case "check_failed": {
      if (!running) return now;
      const failed = failures + 1;
      return failed >= policy.max_consecutive_failures
        ? { state: "degraded", run, failures: failed, crashes, reason: event.reason }
        : { state: "ready", run, failures: failed, crashes };
    }
    case "check_passed":
      return running && failures > 0 ? { state: "ready", run, failures: 0, crashes } : now;
    case "stopped":
      return now.state === "dead" ? now : { state: "cold", run, failures: 0, crashes };
  }
}

/** Waits for its next retry, or is dead when it has crashed too often for that. */
function crashed(
  now: Lifecycle,
  { at, upMs = 0, random, reason, retryAfterMs = 0 }: LifecycleEvent & { type: "failed" },
  { limit, window_s, healthy_s }: LifecyclePolicy["restart"],
): Lifecycle {
  // A start that failed was never healthy, also where no time at all is asked for.
  const before = isRunning(now) && upMs >= healthy_s * 1000 ? [] : now.crashes;
  const crashes = [...before, at].slice(-MAX_CRASHES);
  const failed = { run: now.run, failures: now.failures + 1, crashes };
  const recent = crashes.filter((one) => one > at - window_s * 1000).length;
  if (recent >= limit) {
    const loop = `crash loop: ${recent} failures within ${window_s} s; the last: ${reason}`;
    return { ...failed, state: "dead", cause: "crash_loop", reason: loop };
  }
  const asked = Math.min(retryAfterMs, MAX_RETRY_AFTER_MS);
  const waitMs = Math.max(backoffMs(crashes.length, random), asked);
  return { ...failed, state: "degraded", reason, retryAt: at + waitMs };
}

/** True while the provider's process answers calls: `ready`, or `degraded` without a pending retry. */
export function isRunning(now: Lifecycle): boolean {
  return now.state === "ready" || (now.state === "degraded" && now.retryAt === undefined);
}
