import { HangarError } from "../errors.ts";
import type { Tell } from "../observe/events.ts";
import { holdCall } from "../providers/held-call.ts";
import type { Target } from "../target.ts";
import { intercept } from "./intercept.ts";

/** Principals that are remembered; the one that has been quiet for longest makes room. */
const MAX_PRINCIPALS = 10_000;
/** So much of a token may be lost to arithmetic. */
const ROUNDING = 1e-9;

interface Bucket {
  tokens: number;
  at: number;
}

/** A token bucket for each principal: `rps` requests per second in the long run, `burst` at once after a pause. */
export class RateLimit {
  readonly #rps: number;
  readonly #burst: number;
  readonly #buckets = new Map<string, Bucket>();

  constructor(rps: number, burst: number) {
    this.#rps = rps;
    this.#burst = burst;
  }

  /** Takes a token; otherwise says in how many milliseconds there will be one. `now` is in milliseconds. */
  take(principal: string, now: number): number | undefined {
    const { tokens, at } = this.#buckets.get(principal) ?? { tokens: this.#burst, at: now };
    const filled = Math.min(this.#burst, tokens + ((now - at) / 1000) * this.#rps);
    const missing = Math.max(0, 1 - filled);
    const passes = missing < ROUNDING;
    const left = passes ? filled - 1 : filled;
    // The last one used stands last.
    this.#buckets.delete(principal);
    this.#buckets.set(principal, { tokens: left, at: now });
    const [quietest] = this.#buckets.keys();
    if (this.#buckets.size > MAX_PRINCIPALS) this.#buckets.delete(quietest as string);
    return passes ? undefined : (missing / this.#rps) * 1000;
  }
}

/** Refuses requests of principals that make too many, as `overloaded`. */
export function rateLimited(target: Target, limit: RateLimit, tell: Tell): Target {
  return intercept(target, (call, handler) => {
    const retryAfterMs = limit.take(call.caller.principal, performance.now());
    if (retryAfterMs === undefined) return target.dispatch(call, handler);
    const why = "overloaded: more requests per second than rate_limit allows";
    const refusal = new HangarError("overloaded", why, { retryAfterMs });
    return holdCall(refusal, call, handler, tell);
  });
}
