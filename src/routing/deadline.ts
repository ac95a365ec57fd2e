import { HangarError } from "../errors.ts";
import type { Asked, Question, Target } from "../target.ts";
import type { Message } from "../wire/envelope.ts";
import { intercept } from "./intercept.ts";

/** Stays open for as long as the client likes. */
const ENDLESS = "subscriptions/listen";

/** How long a question may stay open: the client may have lost it, and nothing waits for ever. */
const LONGEST_QUESTION_MS = 3_600_000;

/** True for a request that gets its answer when one side has had enough, so that nobody should wait for it. */
export function isEndless({ method }: Message): boolean {
  return method === ENDLESS;
}

/**
 * Cancels a call that has not ended within its deadline: the caller's own, or `defaultMs`. The clock stands still
 * while a question to the client is open, for people take their time, an hour at most. The failure says whose deadline it was: one
 * that a caller chose and that is shorter than `patienceMs` is no news about the provider.
 */
export function deadline(target: Target, defaultMs: number, patienceMs = defaultMs): Target {
  return intercept(target, (call, handler) => {
    if (isEndless(call.message)) return target.dispatch(call, handler);
    const ms = call.timeoutMs ?? defaultMs;
    const whose = (call.timeoutMs ?? patienceMs) < patienceMs ? "caller" : "provider";
    let left = ms;
    let since = performance.now();
    let open = 0;
    let timer: NodeJS.Timeout | undefined;

    function expire(): void {
      running.cancel(
        new HangarError("timeout", `timeout: ${call.message.method} after ${ms / 1000}s`, {
          details: { timeout_s: ms / 1000, deadline: whose },
        }),
      );
    }

    function ask(question: Question): Asked {
      let asked = true;
      if (open++ === 0) {
        clearTimeout(timer);
        left -= performance.now() - since;
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
    const running = target.dispatch(call, {
      note: (text) => handler.note(text),
      ask,
      pause: () => handler.pause(),
      end: (outcome) => {
        ended = true;
        clearTimeout(timer);
        handler.end(outcome);
      },
    });
    // Only now: a call that could not be dispatched has no end, and nothing to cancel.
    timer = setTimeout(expire, ms);
    return running;
  });
}
