/** Loaded into Hangar (`--import`): at SIGUSR2 it collects garbage and writes to the file SOAK_GAUGE how Hangar does. */
import { renameSync, writeFileSync } from "node:fs";
import { monitorEventLoopDelay } from "node:perf_hooks";

/** What Hangar says of itself. */
export interface Gauge {
  /** What is in use after a garbage collection. */
  readonly heapMb: number;
  /** How late the event loop was since the last time it was asked. */
  readonly loopP99Ms: number;
  readonly loopMaxMs: number;
}

const RESOLUTION_MS = 10;
const file = process.env["SOAK_GAUGE"] as string;
const delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
delay.enable();

process.on("SIGUSR2", () => {
  const late = (ns: number): number => Math.max(0, ns / 1e6 - RESOLUTION_MS);
  const loop = { loopP99Ms: late(delay.percentile(99)), loopMaxMs: late(delay.max) };
  globalThis.gc?.();
  const gauge: Gauge = { heapMb: process.memoryUsage().heapUsed / 1e6, ...loop };
  writeFileSync(`${file}.new`, JSON.stringify(gauge));
  renameSync(`${file}.new`, file);
  delay.reset();
});
