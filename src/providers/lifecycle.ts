/** The states of a provider, as the registry tools show them. */
export type State = "cold" | "initializing" | "ready" | "degraded" | "dead";

/**
 * What a provider is doing. `run` numbers its starts, so that news of an earlier run is ignored;
 * `failures` counts failures in a row. `degraded` is a running provider that keeps failing, or
 * (with `retryAt`, in milliseconds of the clock in use) one that waits for its next retry.
 */
export type Lifecycle = { readonly run: number; readonly failures: number } & (
  | { readonly state: "cold" }
  | { readonly state: "initializing" }
  | { readonly state: "ready" }
  | { readonly state: "degraded"; readonly reason: string; readonly retryAt?: number }
  | { readonly state: "dead"; readonly reason: string }
);

/** News about a provider. Everything but `start` and `stopped` belongs to a run. */
export type LifecycleEvent =
  | { readonly type: "start" }
  | { readonly type: "started"; readonly run: number }
  /** The start failed or the run ended by itself; `retryAt` is when the next start may be tried. */
  | {
      readonly type: "failed";
      readonly run: number;
      readonly reason: string;
      readonly retryAt: number;
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
}

export const COLD: Lifecycle = { state: "cold", run: 0, failures: 0 };

/** The whole state machine. An event that does not apply leaves the state as it was. */
export function next(now: Lifecycle, event: LifecycleEvent, policy: LifecyclePolicy): Lifecycle {
  if ("run" in event && event.run !== now.run) return now;
  const { run, failures } = now;
  const running = isRunning(now);
  switch (event.type) {
    case "start":
      if (running || now.state === "initializing") return now;
      return { state: "initializing", run: run + 1, failures };
    case "started":
      return now.state === "initializing" ? { state: "ready", run, failures: 0 } : now;
    case "failed":
      if (!running && now.state !== "initializing") return now;
      return {
        state: "degraded",
        run,
        failures: failures + 1,
        reason: event.reason,
        retryAt: event.retryAt,
      };
    case "impossible":
      if (now.state !== "initializing") return now;
      return { state: "dead", run, failures: failures + 1, reason: event.reason };
    case "check_failed": {
      if (!running) return now;
      const failed = failures + 1;
      return failed >= policy.max_consecutive_failures
        ? { state: "degraded", run, failures: failed, reason: event.reason }
        : { state: "ready", run, failures: failed };
    }
    case "check_passed":
      return running && failures > 0 ? { state: "ready", run, failures: 0 } : now;
    case "stopped":
      return now.state === "dead" ? now : { state: "cold", run, failures: 0 };
  }
}

/** True while the provider's process answers calls: `ready`, or `degraded` without a pending retry. */
export function isRunning(now: Lifecycle): boolean {
  return now.state === "ready" || (now.state === "degraded" && now.retryAt === undefined);
}
