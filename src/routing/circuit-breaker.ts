import type { ErrorCode } from "../errors.ts";
import { isOverdue } from "../providers/diagnosis.ts";
import type { BreakerFacts, BreakerState } from "../providers/registry.ts";
import type { Outcome } from "../target.ts";

/** The last calls that are judged by: at most so many, none older than this. */
const WINDOW_CALLS = 100;
const WINDOW_MS = 60_000;
/** The open time grows up to this many times `open_s`. */
const MAX_GROWTH = 10;
/** When to come again while trials are under way, in milliseconds. */
const TRIAL_MS = 1_000;

export interface BreakerPolicy {
  /** Share of failed calls, above 0 and at most 1, from which on the breaker opens. */
  readonly failure_rate: number;
  readonly min_calls: number;
  readonly open_s: number;
  /** Trials after the open time. */
  readonly half_open_calls: number;
  /** `open` refuses everything, `closed` nothing. */
  readonly force?: "open" | "closed" | undefined;
}

/** What the end of a call says about the provider. */
export type Verdict = "success" | "failure" | "neutral";

/** A call was let through, in this period of the breaker's life; news of an earlier period changes nothing. */
export interface Permit {
  readonly period: number;
  readonly isTrial: boolean;
}

/**
 * Decides whether calls may go to a provider by how the last ones ended. Closed, all may. Open, none may for a while.
 * Half-open, exactly `half_open_calls` may, and as soon as their ends are clear enough it closes, or opens again for
 * twice as long. Takes the time, in milliseconds, as an argument.
 */
export class CircuitBreaker {
  readonly #policy: BreakerPolicy;
  readonly #told: (facts: BreakerFacts) => void;
  #state: BreakerState = "closed";
  #permit: Permit = { period: 0, isTrial: false };
  #openings = 0;
  #openUntil = 0;
  /** The last calls, in a ring: when they ended, and whether they failed. */
  readonly #ends = new Float64Array(WINDOW_CALLS);
  readonly #failed = new Uint8Array(WINDOW_CALLS);
  #first = 0;
  #cause: object | undefined;
  #calls = 0;
  #failures = 0;
  /** Trials under way, those of earlier periods included; and of this period: let through, and how they ended. */
  #trying = 0;
  #trials = 0;
  #passed = 0;
  #lost = 0;

  /** `told` hears of each change of state, once. */
  constructor(policy: BreakerPolicy, told: (facts: BreakerFacts) => void) {
    this.#policy = policy;
    this.#told = told;
  }

  /** Lets a call through, or not; each permit must be settled once. */
  admit(now: number): Permit | undefined {
    if (this.#policy.force !== undefined) {
      return this.#policy.force === "closed" ? this.#permit : undefined;
    }
    if (this.#state === "closed") return this.#permit;
    if (this.#state === "open") {
      if (now < this.#openUntil) return undefined;
      this.#become("half_open", now);
    }
    const most = this.#policy.half_open_calls;
    if (this.#trials >= most || this.#trying >= most) return undefined;
    this.#trials++;
    this.#trying++;
    return this.#permit;
  }

  /** `cause` is what failed: a run that ends, or a start, is one failure, however many calls it takes with it. */
  settle(permit: Permit, ended: Verdict, now: number, cause?: object): void {
    const known = ended === "failure" && cause !== undefined && cause === this.#cause;
    const verdict = known ? "neutral" : ended;
    if (verdict === "failure") this.#cause = cause;
    if (permit.isTrial) this.#trying--;
    if (permit.period !== this.#permit.period || this.#policy.force !== undefined) return;
    if (permit.isTrial) this.#tried(verdict, now);
    else if (verdict !== "neutral") this.#count(verdict === "failure", now);
  }

  /** Closes it: somebody knows that the provider is well again. */
  reset(now: number): void {
    if (this.#state !== "closed") this.#become("closed", now);
  }

  facts(now: number): BreakerFacts {
    const { force, open_s } = this.#policy;
    this.#expire(now);
    const isOver = this.#state === "open" && now >= this.#openUntil;
    return {
      state: force ?? (isOver ? "half_open" : this.#state),
      forced: force !== undefined,
      calls: this.#calls,
      failures: this.#failures,
      openings: this.#openings,
      retryAfterMs: force === "open" ? open_s * 1000 : this.#waitMs(now),
    };
  }

  #waitMs(now: number): number {
    if (this.#state === "open" && now < this.#openUntil) return this.#openUntil - now;
    return this.#state === "closed" ? 0 : TRIAL_MS;
  }

  #tried(verdict: Verdict, now: number): void {
    if (verdict === "neutral") {
      this.#trials--;
      return;
    }
    if (verdict === "success") this.#passed++;
    else this.#lost++;
    const { half_open_calls: most, failure_rate } = this.#policy;
    if (this.#lost / most >= failure_rate) this.#become("open", now);
    // Even if all that are still under way failed, it would be well.
    else if ((most - this.#passed) / most < failure_rate) this.#become("closed", now);
  }

  #count(failed: boolean, now: number): void {
    this.#expire(now);
    if (this.#calls === WINDOW_CALLS) this.#drop();
    const at = (this.#first + this.#calls++) % WINDOW_CALLS;
    this.#ends[at] = now;
    this.#failed[at] = failed ? 1 : 0;
    if (!failed) return;
    this.#failures++;
    const { min_calls, failure_rate } = this.#policy;
    if (this.#calls >= min_calls && this.#failures / this.#calls >= failure_rate) {
      this.#become("open", now);
    }
  }

  #expire(now: number): void {
    while (this.#calls > 0 && (this.#ends[this.#first] as number) <= now - WINDOW_MS) this.#drop();
  }

  #drop(): void {
    this.#failures -= this.#failed[this.#first] as number;
    this.#first = (this.#first + 1) % WINDOW_CALLS;
    this.#calls--;
  }

  #become(state: BreakerState, now: number): void {
    this.#state = state;
    this.#permit = { period: this.#permit.period + 1, isTrial: state === "half_open" };
    this.#trials = this.#passed = this.#lost = 0;
    if (state === "open") {
      const growth = Math.min(MAX_GROWTH, 2 ** this.#openings++);
      this.#openUntil = now + this.#policy.open_s * 1000 * growth;
    }
    this.#told(this.facts(now));
    if (state !== "closed") return;
    this.#openings = 0;
    this.#calls = this.#failures = 0;
  }
}

/** Ends that say that the provider is not well; what it answers, errors included, is none, nor what the caller did. */
const FAILURES: ReadonlySet<ErrorCode> = new Set([
  "start_failed",
  "not_startable",
  "start_timeout",
  "provider_exited",
  "remote_unreachable",
  "remote_failed",
  "unreadable_answer",
]);

/** What the end of a call says that was with the provider for `tookMs`. */
export function verdictOn(outcome: Outcome, tookMs: number): Verdict {
  if (outcome.kind === "reply") return "success";
  const { code, details } = outcome;
  if (code === "timeout") return isOverdue(outcome, tookMs) ? "failure" : "neutral";
  const status = Number(details["status"]);
  // The server is there, and does not like the request, or the number of them.
  if (status >= 400 && status < 500) return "neutral";
  return FAILURES.has(code) ? "failure" : "neutral";
}
