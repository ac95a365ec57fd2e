/** What is sent, and for how long. */
import type { Bounds } from "./load.ts";

const MIB = 1024 * 1024;

export interface Workload {
  readonly id: string;
  readonly title: string;
  readonly textBytes: number;
  /** Calls under way at the same time. */
  readonly inFlight: number;
  readonly weight: "small" | "medium" | "large";
}

export const WORKLOADS: readonly Workload[] = [
  { id: "W1", title: "200 B, 1 in flight", textBytes: 200, inFlight: 1, weight: "small" },
  { id: "W2-16", title: "200 B, 16 in flight", textBytes: 200, inFlight: 16, weight: "small" },
  { id: "W2-64", title: "200 B, 64 in flight", textBytes: 200, inFlight: 64, weight: "small" },
  { id: "W3-10k", title: "10 kB, 1 in flight", textBytes: 10_000, inFlight: 1, weight: "medium" },
  { id: "W3-1M", title: "1 MiB, 1 in flight", textBytes: MIB, inFlight: 1, weight: "large" },
];

/** How long each arm is measured. */
export interface Effort {
  readonly rounds: number;
  /** Not counted, before the first round: a compiler that works while the program runs needs many calls before it is done. */
  readonly warmUp: Record<Workload["weight"], Bounds>;
  /** Not counted either, before each later one. */
  readonly warmAgain: Record<Workload["weight"], Bounds>;
  readonly measured: Record<Workload["weight"], Bounds>;
}

function bounds(small: number, medium: number, large: number, timeMs: number): Effort["measured"] {
  return {
    small: { calls: small, timeMs },
    medium: { calls: medium, timeMs },
    large: { calls: large, timeMs },
  };
}

export const EFFORTS = {
  full: {
    rounds: 7,
    warmUp: bounds(3_000, 300, 30, 10_000),
    warmAgain: bounds(1_000, 100, 10, 1_000),
    measured: bounds(30_000, 6_000, 200, 5_000),
  },
  quick: {
    rounds: 3,
    warmUp: bounds(3_000, 300, 30, 3_000),
    warmAgain: bounds(300, 30, 5, 300),
    measured: bounds(10_000, 2_000, 60, 1_000),
  },
  /** Only to see that everything works. */
  smoke: {
    rounds: 1,
    warmUp: bounds(64, 10, 2, 1_000),
    warmAgain: bounds(1, 1, 1, 1_000),
    measured: bounds(128, 20, 3, 1_000),
  },
} satisfies Record<string, Effort>;
