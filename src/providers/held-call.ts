import { toHangarError } from "../errors.ts";
import type { Tell } from "../observe/events.ts";
import type { Call, CallHandler, Outcome, Running, Target } from "../target.ts";

/**
 * Holds a call, unsent, until `ready` says who takes it, or how it ends without anybody, which may be known already;
 * a cancel meanwhile ends it, and so does a target that does not take it. A handler that throws is told as a defect.
 */
export function holdCall(
  ready: Outcome | Promise<Pick<Target, "dispatch"> | Outcome>,
  call: Call,
  handler: CallHandler,
  tell: Tell,
): Running {
  let running: Running | undefined;
  let ended = false;
  function end(outcome: Outcome): void {
    ended = true;
    try {
      handler.end(outcome);
    } catch (error) {
      tell({ type: "defect", error });
    }
  }
  Promise.resolve(ready)
    .catch(toHangarError)
    .then((next) => {
      if (ended) return;
      if ("dispatch" in next) running = next.dispatch(call, handler);
      else end(next);
    })
    .catch((error: unknown) => {
      const failure = toHangarError(error);
      if (failure.code === "internal") tell({ type: "defect", error });
      end(failure);
    });
  return {
    cancel(reason) {
      if (running !== undefined) running.cancel(reason);
      else if (!ended) end(reason);
    },
  };
}
