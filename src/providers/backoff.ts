const FIRST_MS = 500;
const LONGEST_MS = 60_000;

/**
 * How long to wait before the next start, in milliseconds: 0.5 s doubling to 60 s with the failures
 * in a row, of which a random half is taken off so that providers that failed together do not
 * return together. `random` is in [0, 1).
 */
export function backoffMs(failures: number, random: number): number {
  const ceiling = Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(failures - 1, 30));
  return Math.round(ceiling / 2 + (ceiling / 2) * random);
}
