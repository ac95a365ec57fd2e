import { HangarError, toHangarError } from "../errors.ts";
import type { Tell } from "../observe/events.ts";
import type { Tool } from "../providers/connection.ts";
import type { Asked, Call, CallHandler, Outcome, Question, Running, Target } from "../target.ts";
import { membersOf, stringAt, textOf, wholeOf } from "../wire/envelope.ts";
import { isEndless } from "./deadline.ts";
import { intercept } from "./intercept.ts";

/** Wait before a call is sent again, doubling with each time, of which chance takes a part; in milliseconds. */
const FIRST_WAIT_MS = 200;
/** A longer wait, if the provider asks for it, is for the caller to decide; in milliseconds. */
const LONGEST_WAIT_MS = 5_000;
/** How often a call that was sent before waits for its provider to be back. */
const MAX_UNSENT = 5;
/** Repetitions that are allowed at once however few calls there are, unless the budget is 0. */
const MIN_BUDGET = 3;

/** How often a request may be sent, its first time included, when its answer is lost. */
const HARMLESS_SENDS = 3;
const READ_SENDS = 2;

/** Asking twice changes nothing. */
const HARMLESS: ReadonlySet<string> = new Set([
  "initialize",
  "server/discover",
  "ping",
  "tools/list",
  "prompts/list",
  "resources/list",
  "resources/templates/list",
  "completion/complete",
  "logging/setLevel",
  "resources/subscribe",
  "resources/unsubscribe",
  "tasks/list",
  "tasks/get",
]);
const READS: ReadonlySet<string> = new Set(["resources/read", "prompts/get"]);
/** Parameters of a call that only its client may repeat: one that makes a task, and one that goes on with another. */
const ONCE = ["task", "requestState"];

/** Whether the provider says of the tool that calling it again does no harm (2025-11-25, "ToolAnnotations"). */
export function isRepeatable({ text }: Tool): boolean {
  const annotations = membersOf(text, membersOf(text, wholeOf(text))?.get("annotations"));
  return ["readOnlyHint", "idempotentHint"].some((hint) => {
    const span = annotations?.get(hint);
    return span !== undefined && textOf(text, span) === "true";
  });
}

export interface RetryOptions {
  /** Whether the operator vouches for calls of this tool being sent twice. */
  readonly mayRepeat: (tool: string) => boolean;
  /** Share of the calls under way that may be repetitions, 0 to 1. */
  readonly budget: number;
  readonly tell: Tell;
}

/** Sends calls again where that can do no harm, and says of the others when they may have taken effect. */
export class Retry {
  readonly options: RetryOptions;
  /** Calls under way, and those of them that were sent again. */
  underWay = 0;
  repeating = 0;
  /** Those that wait for another attempt. */
  readonly waiting = new Set<Repeated>();
  /** How often calls were sent again so far. */
  total = 0;

  constructor(options: RetryOptions) {
    this.options = options;
  }

  /** Ends the calls that wait for another attempt, for the provider is to be left alone. */
  cancelWaiting(reason: HangarError): void {
    for (const call of this.waiting) call.cancel(reason);
  }

  before(target: Target): Target {
    return intercept(target, (call, handler) => {
      if (isEndless(call.message)) return target.dispatch(call, handler);
      const repeated = new Repeated(this, target, call, handler);
      repeated.dispatch();
      return repeated;
    });
  }

  get hasBudget(): boolean {
    const { budget } = this.options;
    return budget > 0 && this.repeating < Math.max(MIN_BUDGET, budget * this.underWay);
  }

  /** How often the request may be sent. */
  sendsOf({ message }: Call): number {
    const { method = "", body, text } = message;
    if (HARMLESS.has(method)) return HARMLESS_SENDS;
    if (READS.has(method)) return READ_SENDS;
    if (method !== "tools/call") return 1;
    const tool = stringAt(text, body.get("name"));
    return tool !== undefined && this.options.mayRepeat(tool) ? HARMLESS_SENDS : 1;
  }
}

/** A call, over all its attempts, until its one end. */
class Repeated implements CallHandler, Running {
  readonly #retry: Retry;
  readonly #target: Target;
  readonly #call: Call;
  readonly #handler: CallHandler;
  #running: Running | undefined;
  #timer: NodeJS.Timeout | undefined;
  #sends = 0;
  #unsent = 0;
  /** How it ended when it was sent last. */
  #lost: HangarError | undefined;
  /** It counts among the repetitions. */
  #repeats = false;
  /** The client has heard of it, or decided: what happened cannot be undone by another attempt. */
  #settled = false;

  constructor(retry: Retry, target: Target, call: Call, handler: CallHandler) {
    this.#retry = retry;
    this.#target = target;
    this.#call = call;
    this.#handler = handler;
  }

  dispatch(): void {
    this.#running = this.#target.dispatch(this.#call, this);
    this.#retry.underWay++;
  }

  note(text: string): void {
    this.#settled = true;
    this.#handler.note(text);
  }

  ask(question: Question): Asked {
    this.#settled = true;
    return this.#handler.ask(question);
  }

  pause(): void {
    this.#settled = true;
    this.#handler.pause();
  }

  end(outcome: Outcome): void {
    this.#running = undefined;
    if (outcome.kind === "reply") return this.#finish(outcome);
    if (outcome.sent) {
      this.#sends++;
      this.#lost = outcome;
    } else this.#unsent++;
    const isOnce = this.#settled || ONCE.some((key) => this.#call.message.body.has(key));
    const waitMs = isOnce ? undefined : this.#waitFor(outcome);
    // What became of it when it was sent is what matters.
    if (waitMs === undefined) return this.#finish(this.#told(this.#lost ?? outcome));
    if (outcome.sent && !this.#repeats) {
      this.#repeats = true;
      this.#retry.repeating++;
    }
    this.#retry.total++;
    this.#retry.options.tell({
      type: "call_retried",
      provider: this.#target.name,
      method: this.#call.message.method as string,
      attempt: this.#sends + this.#unsent + 1,
      why: outcome.code,
      waitMs,
    });
    this.#retry.waiting.add(this);
    this.#timer = setTimeout(() => this.#again(), waitMs);
  }

  cancel(reason: HangarError): void {
    this.#settled = true;
    if (this.#running !== undefined) return this.#running.cancel(reason);
    if (this.#timer === undefined) return;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#retry.waiting.delete(this);
    this.#finish(this.#told(this.#sends > 0 ? reason.whenSent() : reason));
  }

  #again(): void {
    this.#timer = undefined;
    this.#retry.waiting.delete(this);
    try {
      this.#running = this.#target.dispatch(this.#call, this);
    } catch (error) {
      this.#finish(this.#told(toHangarError(error)));
    }
  }

  /** How long to wait before it is sent again, in milliseconds; undefined when it is not. */
  #waitFor(failure: HangarError): number | undefined {
    const asked = failure.retryAfterMs ?? 0;
    const waitMs = Math.max(asked, this.#pauseMs());
    const leftMs = (this.#call.expiresAt ?? Infinity) - performance.now();
    // What came of it says more than that its time was over.
    if (asked > LONGEST_WAIT_MS || waitMs >= leftMs) return undefined;
    if (failure.sent) {
      const may = failure.unanswered && this.#sends < this.#retry.sendsOf(this.#call);
      return may && (this.#repeats || this.#retry.hasBudget) ? waitMs : undefined;
    }
    switch (failure.code) {
      case "session_lost":
        // In a new session, which is there at once or not at all.
        return this.#unsent > 1 ? undefined : 0;
      case "remote_unreachable":
        return this.#unsent > 1 ? undefined : waitMs;
      case "remote_failed":
        // Too many requests, or not available: it said so instead of taking it.
        return this.#unsent > 1 || failure.details["status"] === undefined ? undefined : waitMs;
      case "provider_degraded":
      case "start_failed":
      case "start_timeout":
        // It was sent before, and the provider is on its way back.
        return this.#sends > 0 && this.#unsent < MAX_UNSENT ? waitMs : undefined;
      default:
        return undefined;
    }
  }

  #pauseMs(): number {
    const longest = FIRST_WAIT_MS * 2 ** (this.#sends + this.#unsent - 1);
    return Math.round(longest * Math.random());
  }

  /** The failure with what the caller must know before it repeats the call itself. */
  #told(failure: HangarError): HangarError {
    const { method = "" } = this.#call.message;
    const maybeDone = this.#sends > 0 && !HARMLESS.has(method) && !READS.has(method);
    const details = {
      ...(maybeDone && failure.code !== "cancelled" ? { ambiguous: true } : {}),
      ...(this.#sends > 1 ? { attempts: this.#sends } : {}),
    };
    return this.#sends === 0 ? failure : failure.with({ details, sent: true });
  }

  #finish(outcome: Outcome): void {
    this.#retry.underWay--;
    if (this.#repeats) this.#retry.repeating--;
    this.#handler.end(outcome);
  }
}
