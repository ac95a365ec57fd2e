import {
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Tell } from "../observe/events.ts";

/** Time between TERM and KILL for what an earlier instance left. */
const GRACE_MS = 1_000;

/**
 * Writes down that this instance lives, in `folder`, one small file an instance; returns what takes it back. A later
 * Hangar finds by it what this one left, should it and its guardian be killed. Where files or /proc are not to be had,
 * nothing is written down.
 */
export function registerInstance(folder: string, instance: string): () => void {
  const file = join(folder, instance);
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    // Whole from its first moment: half of it would look like a dead one's.
    const draft = `${file}.new`;
    writeFileSync(draft, `${process.pid} ${startOf(process.pid)} ${here()}\n`, { mode: 0o600 });
    renameSync(draft, file);
  } catch {
    // Not Linux, or a disk that is full or read-only: then there is no sweep.
  }
  return () => rmSync(file, { force: true });
}

/** Ends what dead instances written down in `folder` left running; never a process of a live one, or of a stranger. */
export async function sweep(folder: string, tell: Tell): Promise<void> {
  const dead = deadInstances(folder);
  if (dead.length === 0) return;
  for (const [signal, graceMs] of [
    ["SIGTERM", GRACE_MS],
    ["SIGKILL", 0],
  ] as const) {
    const left = processesOf(dead);
    for (const pid of left) {
      if (signal === "SIGTERM") tell({ type: "orphan_swept", pid });
      try {
        process.kill(pid, signal);
      } catch {
        // It has gone meanwhile.
      }
    }
    if (left.length > 0 && graceMs > 0) await sleep(graceMs);
  }
  for (const instance of dead) rmSync(join(folder, instance), { force: true });
}

function deadInstances(folder: string): string[] {
  try {
    return readdirSync(folder).filter((name) => {
      if (!/^[0-9a-f-]{36}$/.test(name)) return false;
      const [pid = "", start, boot, space] = readFileSync(join(folder, name), "utf8")
        .trim()
        .split(" ");
      const [ownBoot, ownSpace] = here().split(" ");
      // In another container the same numbers mean other processes.
      if (boot === ownBoot && space !== ownSpace) return false;
      // A number is given to another process in time, but not with the same start in the same boot.
      return boot !== ownBoot || start !== startOf(Number(pid));
    });
  } catch {
    return [];
  }
}

/** The processes that carry one of these instances in their environment. */
function processesOf(instances: readonly string[]): number[] {
  const marks = instances.map((instance) => `HANGAR_INSTANCE=${instance}`);
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const environment = readFileSync(`/proc/${pid}/environ`, "utf8").split("\0");
        return marks.some((mark) => environment.includes(mark));
      } catch {
        return false; // gone, or another user's
      }
    })
    .map(Number);
}

/** When a process started, in clock ticks since boot (proc(5), field 22 of stat); "" when there is none. */
function startOf(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? "";
  } catch {
    return "";
  }
}

/** Which boot of which machine this is, and which space of process ids. */
function here(): string {
  const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  return `${boot} ${readlinkSync("/proc/self/ns/pid")}`;
}
