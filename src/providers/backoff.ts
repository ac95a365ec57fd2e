const FIRST_MS = 500;
const LONGEST_MS = 60_000;

/**
 * How long to wait before the next start, in milliseconds: anything up to 0.5 s, doubling to 60 s with the failures
 * since it was last healthy ("full jitter": providers that failed together must not return together).
 * `random` is in [0, 1).
 */
export function backoffMs(failures: number, random: number): number {
  return Math.round(Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(failures - 1, 30)) * random);
}
