import { EXIT } from "./exit-code.ts";

const first = Promise.withResolvers<string>();
let listening = false;
let asked = false;
let secondExitCode: number = EXIT.interrupted;

/**
 * From now on the first signal that asks the program to end is remembered for its command, also when it comes before
 * there is one. A second one ends the program at once, and its providers with it: without a handler, a signal would
 * leave those that do not heed the end of stdin.
 */
export function heedSignals(): void {
  if (listening) return;
  listening = true;
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => {
      if (asked) process.exit(secondExitCode);
      asked = true;
      first.resolve(signal);
    });
  }
}

/** Settles with the first signal; the exit code at a second one is `exitCode`. */
export function firstSignal(exitCode: number): Promise<string> {
  heedSignals();
  secondExitCode = exitCode;
  return first.promise;
}
