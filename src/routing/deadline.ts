import { HangarError } from "../errors.ts";
import { matchesGlob } from "../lib/glob.ts";
import type { Asked, Call, Question, Target } from "../target.ts";
import { isProgress, type Message } from "../wire/envelope.ts";
import { intercept } from "./intercept.ts";
import { toolOf } from "./policy.ts";

/** Stays open for as long as the client likes. */
const ENDLESS = "subscriptions/listen";

/** How long a question may stay open: the client may have lost it, and nothing waits for ever. */
const LONGEST_QUESTION_MS = 3_600_000;

/** True for a request that gets its answer when one side has had enough, so that nobody should wait for it. */
export function isEndless({ method }: Message): boolean {
  return method === ENDLESS;
}

/** Progress sooner than this after the last does not move the deadline, in milliseconds. */
const PROGRESS_STEP_MS = 50;

export interface DeadlineOptions {
  /** Longest silence of a call whose caller chose no deadline, in milliseconds. */
  readonly defaultMs: (call: Call) => number;
  /** A deadline that a caller chose and that is shorter than this is no news about the provider, in milliseconds. */
  readonly patienceMs: (call: Call) => number;
  /** Longest time of any call, whatever it says meanwhile, in milliseconds. */
  readonly maxMs: number;
}

/** The deadline of a call's tool, in milliseconds: of the first glob in `seconds` that matches its name. */
export function toolTimeoutMs(
  call: Call,
  seconds: Readonly<Record<string, number>>,
): number | undefined {
  const globs = Object.entries(seconds);
  const tool = globs.length === 0 ? undefined : toolOf(call);
  if (tool === undefined) return undefined;
  const found = globs.find(([glob]) => matchesGlob(glob, tool));
  return found === undefined ? undefined : found[1] * 1000;
}

/**
 * Cancels a call that has not ended within its deadline: the caller's own, or the default, which starts anew with each
 * progress notification. None goes beyond `maxMs`. The clock stands still while a question to the client is open, for
 * people take their time, an hour at most. The failure says whose deadline it was.
 */
export function deadline(
  target: Target,
  { defaultMs, patienceMs, maxMs }: DeadlineOptions,
): Target {
  return intercept(target, (call, handler) => {
    if (isEndless(call.message)) return target.dispatch(call, handler);
    const ms = Math.min(call.timeoutMs ?? defaultMs(call), maxMs);
    let left = ms;
    /** What the failure will say that it took. */
    let limitMs = ms;
    let since = performance.now();
    /** How long the clock has run before `since`. */
    let spent = 0;
    let open = 0;
    let timer: NodeJS.Timeout | undefined;

    function expire(): void {
      const chosen = call.timeoutMs !== undefined && call.timeoutMs < patienceMs(call);
      running.cancel(
        new HangarError("timeout", `timeout: ${call.message.method} after ${limitMs / 1000}s`, {
          details: { timeout_s: limitMs / 1000, deadline: chosen ? "caller" : "provider" },
        }),
      );
    }

    /** The provider is at work on it. */
    function extend(): void {
      const now = performance.now();
      if (open > 0 || now - since < PROGRESS_STEP_MS) return;
      spent += now - since;
      since = now;
      limitMs = maxMs - spent < ms ? maxMs : ms;
      left = Math.min(ms, Math.max(maxMs - spent, 0));
      clearTimeout(timer);
      timer = setTimeout(expire, left);
    }

    function ask(question: Question): Asked {
      let asked = true;
      if (open++ === 0) {
        clearTimeout(timer);
        const ran = performance.now() - since;
        left -= ran;
        spent += ran;
        timer = setTimeout(expire, LONGEST_QUESTION_MS);
      }
      const settle = (): void => {
        if (!asked) return;
        asked = false;
        if (--open > 0 || ended) return;
        clearTimeout(timer);
        since = performance.now();
        timer = setTimeout(expire, Math.max(left, 0));
      };
      const put = handler.ask({
        message: question.message,
        note: (message) => question.note(message),
        answer: (reply) => {
          settle();
          question.answer(reply);
        },
      });
      return {
        withdraw(message) {
          settle();
          put.withdraw(message);
        },
      };
    }

    let ended = false;
    const running = target.dispatch(
      { ...call, expiresAt: since + ms },
      {
        note: (text) => {
          if (call.timeoutMs === undefined && isProgress(text)) extend();
          handler.note(text);
        },
        ask,
        pause: () => handler.pause(),
        end: (outcome) => {
          ended = true;
          clearTimeout(timer);
          handler.end(outcome);
        },
      },
    );
    // Only now: a call that could not be dispatched has no end, and nothing to cancel.
    timer = setTimeout(expire, ms);
    return running;
  });
}
