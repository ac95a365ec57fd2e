/**
 * Settles with the first signal that asks the program to end; a second one ends it at once with `exitCode`,
 * and its providers with it. Without a handler, a signal would leave those that do not heed the end of stdin.
 */
export function firstSignal(exitCode: number): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  let asked = false;
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => {
      if (asked) process.exit(exitCode);
      asked = true;
      resolve(signal);
    });
  }
  return promise;
}
