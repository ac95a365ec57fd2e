import { HangarError } from "../errors.ts";
import type { Tell } from "../observe/events.ts";
import { holdCall } from "../providers/held-call.ts";
import type { Asked, CallHandler, Outcome, Question, Target } from "../target.ts";
import { type CircuitBreaker, type Permit, verdictOn } from "./circuit-breaker.ts";
import { isEndless } from "./deadline.ts";
import { intercept } from "./intercept.ts";

/**
 * Refuses calls while `breaker` is open, and tells it how the others end. One that takes longer than `slowMs`
 * counts as failed, unless people were asked meanwhile; 0 means never.
 */
export function breaking(
  target: Target,
  breaker: CircuitBreaker,
  slowMs: number,
  tell: Tell,
): Target {
  return intercept(target, (call, handler) => {
    if (isEndless(call.message)) return target.dispatch(call, handler);
    const now = performance.now();
    const permit = breaker.admit(now);
    if (permit !== undefined) {
      const judged = new Judged({ breaker, permit, since: now, slowMs, handler });
      return judged.dispatched(() => target.dispatch(call, judged));
    }
    const { state, calls, failures, retryAfterMs, forced } = breaker.facts(now);
    const why = forced
      ? "circuit_breaker.force is `open`"
      : state === "half_open"
        ? "it is being tried out"
        : `${failures} of its last ${calls} calls failed`;
    const message = `no calls go to provider ${target.name} now: its circuit breaker is open, ${why}`;
    const refusal = new HangarError("circuit_open", message, { retryAfterMs });
    return holdCall(refusal, call, handler, tell);
  });
}

interface Judgement {
  readonly breaker: CircuitBreaker;
  readonly permit: Permit;
  /** When it was let through. */
  readonly since: number;
  readonly slowMs: number;
  readonly handler: CallHandler;
}

/** A call that was let through, until its end is known. */
class Judged implements CallHandler {
  readonly #breaker: CircuitBreaker;
  readonly #permit: Permit;
  readonly #handler: CallHandler;
  readonly #since: number;
  #slowMs: number;

  constructor({ breaker, permit, since, slowMs, handler }: Judgement) {
    this.#breaker = breaker;
    this.#permit = permit;
    this.#handler = handler;
    this.#since = since;
    this.#slowMs = slowMs;
  }

  /** A call that was not even dispatched has no end. */
  dispatched<T>(dispatch: () => T): T {
    try {
      return dispatch();
    } catch (error) {
      this.#breaker.settle(this.#permit, "neutral", performance.now());
      throw error;
    }
  }

  note(text: string): void {
    this.#handler.note(text);
  }

  ask(question: Question): Asked {
    this.#slowMs = 0;
    return this.#handler.ask(question);
  }

  pause(): void {
    this.#handler.pause();
  }

  end(outcome: Outcome): void {
    const now = performance.now();
    const tookMs = now - this.#since;
    const verdict = verdictOn(outcome, tookMs);
    const slow = verdict === "success" && this.#slowMs > 0 && tookMs > this.#slowMs;
    this.#breaker.settle(this.#permit, slow ? "failure" : verdict, now, outcome);
    this.#handler.end(outcome);
  }
}
