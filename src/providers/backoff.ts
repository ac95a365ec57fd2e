const SHORTEST_MS = 100;
const FIRST_MS = 500;
const LONGEST_MS = 60_000;

/**
 * How long to wait before the next start, in milliseconds: anything from 0.1 s up to 0.5 s, which doubles to 60 s with
 * the failures since it was last healthy ("full jitter": providers that failed together must not return together).
 * `random` is in [0, 1).
 */
export function backoffMs(failures: number, random: number): number {
  const longest = Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(failures - 1, 30));
  return Math.round(SHORTEST_MS + (longest - SHORTEST_MS) * random);
}
