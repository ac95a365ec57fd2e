import { setImmediate as turn } from "node:timers/promises";
import { EXIT } from "./exit-code.ts";

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

const first = Promise.withResolvers<string>();
let listening = false;
let asked: NodeJS.Signals | undefined;
let secondExitCode: number = EXIT.interrupted;

/**
 * From now on the first signal that asks the program to end is remembered for its command, also when it comes before
 * there is one. A second one ends the program at once, and its providers with it: without a handler, a signal would
 * leave those that do not heed the end of stdin.
 */
export function heedSignals(): void {
  if (listening) return;
  listening = true;
  for (const signal of SIGNALS) process.on(signal, heed);
}

function heed(signal: NodeJS.Signals): void {
  if (asked !== undefined) process.exit(secondExitCode);
  asked = signal;
  first.resolve(signal);
}

/** For a command that ends as a signal ends any program; by the one, too, that has come already. */
export async function leaveSignals(): Promise<void> {
  // One that came while modules were loaded is told of in the next turn only.
  await turn();
  for (const signal of SIGNALS) process.off(signal, heed);
  if (asked !== undefined) process.kill(process.pid, asked);
}

/** Settles with the first signal; the exit code at a second one is `exitCode`. */
export function firstSignal(exitCode: number): Promise<string> {
  heedSignals();
  secondExitCode = exitCode;
  return first.promise;
}
