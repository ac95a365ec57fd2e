import { HangarError, toHangarError } from "../errors.ts";
import type { Tell } from "../observe/events.ts";
import { holdCall } from "../providers/held-call.ts";
import type { Asked, Call, CallHandler, Outcome, Question, Running, Target } from "../target.ts";
import { isEndless } from "./deadline.ts";
import { intercept } from "./intercept.ts";

/** When to come again after a refusal, in milliseconds. */
const RETRY_MS = 1_000;
/** A call with less time left is not sent any more, in milliseconds. */
const LEAST_MS = 25;
/** Text of the calls that one provider works on and has waiting, in characters; more is refused. One call may always come. */
const MAX_HELD_CHARS = 64 * 1024 * 1024;

/** Room for the calls of all providers together. */
export class Room {
  readonly max: number;
  taken = 0;

  /** `max` is in calls. */
  constructor(max: number) {
    this.max = max;
  }
}

export interface LimitOptions {
  readonly max_concurrency: number;
  readonly max_queue: number;
  readonly room: Room;
  readonly tell: Tell;
}

/** The room of one provider: how many calls it works on, how many wait, first come first served. */
export class Limit {
  readonly #options: LimitOptions;
  readonly #waiting = new Set<Held>();
  #working = 0;
  #chars = 0;
  #draining = false;

  constructor(options: LimitOptions) {
    this.#options = options;
  }

  get queued(): number {
    return this.#waiting.size;
  }

  /** Lets `max_concurrency` calls at once through to `target`, and `max_queue` wait; refuses others as `overloaded`. */
  before(target: Target): Target {
    const { max_concurrency, tell } = this.#options;
    return intercept(target, (call, handler) => {
      if (isEndless(call.message)) return target.dispatch(call, handler);
      const full = this.#refusal(call, target.name);
      if (full !== undefined) return holdCall(full, call, handler, tell);
      const held = new Held(this, target, call, handler, tell);
      const waits = this.#working >= max_concurrency || this.#waiting.size > 0;
      this.#options.room.taken++;
      this.#chars += call.message.text.length;
      if (waits) this.#waiting.add(held);
      else {
        this.#working++;
        held.dispatch();
      }
      return held;
    });
  }

  /** Ends the calls that wait, for the provider is to be left alone. */
  cancelWaiting(reason: HangarError): void {
    for (const held of this.#waiting) held.cancel(reason);
  }

  /** A call that worked has ended, or one that waited has given up. */
  left(held: Held): void {
    this.#options.room.taken--;
    this.#chars -= held.call.message.text.length;
    if (this.#waiting.delete(held)) return;
    this.#working--;
    if (this.#draining || this.#waiting.size === 0) return;
    this.#draining = true;
    // Not here: an end may bring the next call, and its end the one after that.
    queueMicrotask(() => this.#drain());
  }

  #drain(): void {
    this.#draining = false;
    const soon = performance.now() + LEAST_MS;
    for (const held of this.#waiting) {
      if (this.#working >= this.#options.max_concurrency) return;
      // It would be cancelled as soon as it is sent.
      if ((held.call.expiresAt ?? Infinity) < soon) continue;
      this.#waiting.delete(held);
      this.#working++;
      held.dispatchLate();
    }
  }

  #refusal({ message }: Call, name: string): HangarError | undefined {
    const { max_concurrency, max_queue, room } = this.#options;
    const held = this.#working + this.#waiting.size;
    const why =
      room.taken >= room.max
        ? `${room.max} calls are under way in all (max_calls)`
        : held >= max_concurrency + max_queue
          ? `provider ${name} works on ${this.#working} calls and ${this.#waiting.size} wait (max_concurrency, max_queue)`
          : held > 0 && this.#chars + message.text.length > MAX_HELD_CHARS
            ? `the calls that provider ${name} works on are larger than ${MAX_HELD_CHARS} characters together`
            : undefined;
    if (why === undefined) return undefined;
    return new HangarError("overloaded", `overloaded: ${why}`, { retryAfterMs: RETRY_MS });
  }
}

/** A call that counts towards a limit, until its end. */
class Held implements CallHandler, Running {
  readonly call: Call;
  readonly #limit: Limit;
  readonly #target: Target;
  readonly #handler: CallHandler;
  readonly #tell: Tell;
  #running: Running | undefined;
  #left = false;

  constructor(limit: Limit, target: Target, call: Call, handler: CallHandler, tell: Tell) {
    this.call = call;
    this.#limit = limit;
    this.#target = target;
    this.#handler = handler;
    this.#tell = tell;
  }

  /** Throws what the target throws; the call has no end then. */
  dispatch(): void {
    try {
      this.#running = this.#target.dispatch(this.call, this);
    } catch (error) {
      this.#leave();
      throw error;
    }
  }

  /** The same for a call whose own dispatch is over: its end is the only way to tell. */
  dispatchLate(): void {
    try {
      this.dispatch();
    } catch (error) {
      this.#deliver(toHangarError(error));
    }
  }

  note(text: string): void {
    this.#handler.note(text);
  }

  ask(question: Question): Asked {
    return this.#handler.ask(question);
  }

  pause(): void {
    this.#handler.pause();
  }

  end(outcome: Outcome): void {
    this.#leave();
    this.#handler.end(outcome);
  }

  cancel(reason: HangarError): void {
    if (this.#running !== undefined) this.#running.cancel(reason);
    else if (!this.#left) {
      this.#leave();
      this.#deliver(reason);
    }
  }

  #leave(): void {
    if (this.#left) return;
    this.#left = true;
    this.#limit.left(this);
  }

  #deliver(outcome: Outcome): void {
    try {
      this.#handler.end(outcome);
    } catch (error) {
      this.#tell({ type: "defect", error });
    }
  }
}
