import type { CallHandler, Outcome, Target } from "../target.ts";

/** `target` with another way to take calls; everything else of it stays. */
export function intercept(target: Target, dispatch: Target["dispatch"]): Target {
  return {
    name: target.name,
    get available() {
      return target.available;
    },
    dispatch,
    watch: (watcher) => target.watch(watcher),
  };
}

/** `handler` with another end. */
export function atEnd(handler: CallHandler, end: (outcome: Outcome) => void): CallHandler {
  return {
    note: (text) => handler.note(text),
    ask: (question) => handler.ask(question),
    pause: () => handler.pause(),
    end,
  };
}
