import { setTimeout as sleep } from "node:timers/promises";

/**
 * Runs `task` again and again, `intervalMs` after the run before has ended, until `signal` aborts.
 * Never overlaps itself and keeps no process alive. `task` handles its own errors.
 */
export async function every(
  intervalMs: () => number,
  task: () => Promise<void> | void,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    await sleep(intervalMs(), undefined, { signal, ref: false }).catch(() => {});
    if (!signal.aborted) await task();
  }
}
