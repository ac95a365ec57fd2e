import { HangarError } from "../errors.ts";
import type { Tell } from "../observe/events.ts";
import { holdCall } from "../providers/held-call.ts";
import type { Asked, CallHandler, Outcome, Question, Target } from "../target.ts";
import { type CircuitBreaker, type Permit, type Verdict, verdictOn } from "./circuit-breaker.ts";
import { isEndless } from "./deadline.ts";
import { intercept } from "./intercept.ts";

/**
 * Refuses calls while `breaker` is open, and tells it how the others end. A start that fails or a run that ends is one
 * failure, however many calls it takes with it. A call that takes longer than `slowMs` counts as failed, unless people
 * were asked meanwhile; 0 means never.
 */
export function breaking(
  target: Target,
  breaker: CircuitBreaker,
  slowMs: number,
  tell: Tell,
): Target {
  const seen: Seen = { last: undefined };
  return intercept(target, (call, handler) => {
    if (isEndless(call.message)) return target.dispatch(call, handler);
    const now = performance.now();
    const permit = breaker.admit(now);
    if (permit !== undefined) {
      const slowAt = slowMs === 0 ? Infinity : now + slowMs;
      const judged = new Judged({ breaker, permit, slowAt, handler, seen });
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
    return holdCall(Promise.resolve(refusal), call, handler, tell);
  });
}

/** The failure that was counted last; calls that it took with it end with the very same. */
interface Seen {
  last: Outcome | undefined;
}

interface Judgement {
  readonly breaker: CircuitBreaker;
  readonly permit: Permit;
  readonly slowAt: number;
  readonly handler: CallHandler;
  readonly seen: Seen;
}

/** A call that was let through, until its end is known. */
class Judged implements CallHandler {
  readonly #breaker: CircuitBreaker;
  readonly #permit: Permit;
  readonly #handler: CallHandler;
  readonly #seen: Seen;
  #slowAt: number;

  constructor({ breaker, permit, slowAt, handler, seen }: Judgement) {
    this.#breaker = breaker;
    this.#permit = permit;
    this.#handler = handler;
    this.#seen = seen;
    this.#slowAt = slowAt;
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
    this.#slowAt = Infinity;
    return this.#handler.ask(question);
  }

  pause(): void {
    this.#handler.pause();
  }

  end(outcome: Outcome): void {
    this.#breaker.settle(this.#permit, this.#verdictOn(outcome), performance.now());
    this.#handler.end(outcome);
  }

  #verdictOn(outcome: Outcome): Verdict {
    const verdict = verdictOn(outcome);
    if (verdict === "success") return performance.now() > this.#slowAt ? "failure" : "success";
    if (verdict === "neutral" || this.#seen.last === outcome) return "neutral";
    this.#seen.last = outcome;
    return "failure";
  }
}
