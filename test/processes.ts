/** Looks at running processes through /proc; only what carries a variable we set is ever ours. */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";

export interface ProcessInfo {
  readonly pid: number;
  readonly command: string;
  readonly environment: readonly string[];
}

/** Every process that was started with a variable whose `NAME=value` begins with `marker`; no zombies. */
export function findProcesses(marker: string): ProcessInfo[] {
  const found: ProcessInfo[] = [];
  for (const name of readdirSync("/proc")) {
    const pid = Number(name);
    if (!Number.isInteger(pid)) continue;
    const environment = readProc(pid, "environ").split("\0");
    if (!environment.some((entry) => entry.startsWith(marker)) || !isAlive(pid)) continue;
    const command = readProc(pid, "cmdline").replaceAll("\0", " ").trim();
    found.push({ pid, command, environment });
  }
  return found;
}

/** The children of a process whose command line has `word` in it; that of a zombie is empty. */
export function childrenOf(parent: number, word: string): number[] {
  return readdirSync("/proc")
    .map(Number)
    .filter((pid) => Number.isInteger(pid) && readProc(pid, "cmdline").includes(word))
    .filter((pid) => readProc(pid, "status").includes(`\nPPid:\t${parent}\n`));
}

/** What the descriptors of a process point at; numbers are left out because they are reused. */
export function descriptorsOf(pid: number | "self"): string[] {
  const folder = `/proc/${pid}/fd`;
  return readdirSync(folder).flatMap((number) => {
    try {
      return [readlinkSync(join(folder, number))];
    } catch {
      return []; // the one that readdir itself had here
    }
  });
}

/** Whether the process runs; a zombie does not. */
export function isAlive(pid: number): boolean {
  const stat = readProc(pid, "stat");
  const state = stat.slice(stat.lastIndexOf(")") + 2, stat.lastIndexOf(")") + 3);
  return state !== "" && state !== "Z" && state !== "X";
}

/** Resident memory of a process, in bytes; 0 when it has gone. */
export function memoryOf(pid: number): number {
  return Number(/VmRSS:\s+(\d+) kB/.exec(readProc(pid, "status"))?.[1] ?? 0) * 1024;
}

function readProc(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, "utf8");
  } catch {
    return ""; // gone meanwhile, or not ours to read
  }
}
