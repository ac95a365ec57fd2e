import type { Provider } from "../providers/provider.ts";
import type { Running, Target } from "../target.ts";
import { holdCall } from "../providers/held-call.ts";
import type { Tell } from "../observe/events.ts";
import { atEnd, intercept } from "./intercept.ts";

/**
 * Sends a call once more, in a new session, when a remote provider says that it has forgotten the one it came in:
 * it never processed the call then. A second loss in a row is the call's end.
 */
export function renewed(provider: Provider, tell: Tell): Target {
  return intercept(provider, (call, handler) => {
    let cancelled = false;
    let running: Running = provider.dispatch(
      call,
      atEnd(handler, (outcome) => {
        const lost = outcome.kind === "failure" && outcome.code === "session_lost";
        if (!lost || cancelled) return handler.end(outcome);
        const ready = provider.renew().then(() => provider);
        running = holdCall(ready, call, handler, tell);
      }),
    );
    return {
      cancel(reason) {
        cancelled = true;
        running.cancel(reason);
      },
    };
  });
}
