/** What there is of Hangar in the system, by /proc. */
import { randomUUID } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { rssMb } from "../bench/children.ts";
import { childrenOf, findProcesses, isAlive, type ProcessInfo } from "../test/processes.ts";

const POLL_MS = 100;

/** The variable that everything the soak starts carries. */
export const MARK = "HANGAR_SOAK";
const run = randomUUID();
process.env[MARK] = run;

/** Everything of this soak that lives, this process not included. */
export function ours(): ProcessInfo[] {
  return findProcesses(`${MARK}=${run}`);
}

/** The processes of Hangar's runs; not those that left their group, which outlive a stop and end with Hangar (docs/SECURITY.md). */
export function runProcesses(): ProcessInfo[] {
  return ours().filter(({ pid, command, environment }) => {
    const ofRun = environment.some((entry) => entry.startsWith("HANGAR_INSTANCE="));
    return ofRun && (isServer(command) || statOf(pid).group !== pid);
  });
}

function isServer(command: string): boolean {
  return command.includes(" chaos-server ");
}

/** The process that writes this ledger. */
export function processOf(ledger: string): number | undefined {
  return runProcesses().find(({ command }) => command.includes(` ${ledger}`))?.pid;
}

export function guardiansOf(hangar: number): number[] {
  return childrenOf(hangar, "mcp-hangar-guardian");
}

export interface Holding {
  readonly processes: number;
  readonly zombies: number;
  readonly descriptors: number;
  readonly rssMb: number;
}

/** What the Hangar of that process id holds now. */
export function holdingOf(hangar: number): Holding {
  return {
    processes: runProcesses().length,
    zombies: numbers("/proc").filter((pid) => {
      const { parent, state } = statOf(pid);
      return parent === hangar && state === "Z";
    }).length,
    descriptors: numbers(`/proc/${hangar}/fd`).length,
    rssMb: rssMb(hangar),
  };
}

function numbers(folder: string): number[] {
  return readdirSync(folder).map(Number).filter(Number.isInteger);
}

/** Fields 3 to 5 of /proc/PID/stat; empty when the process has gone. */
function statOf(pid: number): { state: string; parent: number; group: number } {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const [state = "", parent, group] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return { state, parent: Number(parent), group: Number(group) };
  } catch {
    return { state: "", parent: 0, group: 0 };
  }
}

/** Waits until `check` holds; gives whether it does. */
export async function settles(check: () => boolean, limitMs: number): Promise<boolean> {
  const end = performance.now() + limitMs;
  while (!check()) {
    if (performance.now() > end) return false;
    await sleep(POLL_MS);
  }
  return true;
}

/** Kills what is left of this soak, and of the guardians named; gives what that was. */
export function killLeftovers(guardians: readonly number[]): string[] {
  const left = ours().map(({ pid, command }) => ({ pid, command }));
  for (const pid of guardians) if (isAlive(pid)) left.push({ pid, command: "guardian" });
  for (const { pid } of left) {
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // It has gone meanwhile.
    }
  }
  return left.map(({ pid, command }) => `${pid} ${command}`);
}
