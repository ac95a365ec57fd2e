import { HangarError } from "../errors.ts";
import type { Target } from "../target.ts";

/**
 * Cancels a call that has not ended within its deadline: the caller's own, or `defaultMs`.
 * The failure says whose deadline it was, as a caller's own shorter one is no news about the provider.
 */
export function deadline(target: Target, defaultMs: number): Target {
  return {
    name: target.name,
    get available() {
      return target.available;
    },
    dispatch(call, handler) {
      const ms = call.timeoutMs ?? defaultMs;
      const timer = setTimeout(() => {
        running.cancel(
          new HangarError("timeout", `timeout: ${call.message.method} after ${ms / 1000}s`, {
            details: { timeout_s: ms / 1000, deadline: ms < defaultMs ? "caller" : "provider" },
          }),
        );
      }, ms);
      const running = target.dispatch(call, {
        note: (text) => handler.note(text),
        end: (outcome) => {
          clearTimeout(timer);
          handler.end(outcome);
        },
      });
      return running;
    },
  };
}
