import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import type { Readable, Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import type { Exit } from "./driver.ts";
import type { Guardian } from "./guardian.ts";

/** How long the rest of a group may live after its leader has gone, before it is killed. */
const ORPHAN_GRACE_MS = 500;
/** How long to wait for the last output of a leader that has gone; a grandchild may hold the pipe for ever. */
const LAST_OUTPUT_MS = 100;
const POLL_MS = 20;

/** A program and everything it starts, as one group that is signalled together. */
export interface ProcessGroup {
  readonly pid: number;
  readonly stdin: Writable;
  readonly stdout: Readable;
  readonly stderr: Readable;
  /** Settles when the program itself is gone and its last output was read; never rejects. */
  readonly exited: Promise<Exit>;
  /** Closes stdin, then TERM, then KILL, waiting `graceMs` after each; settles when the whole group is gone. */
  stop(graceMs: number): Promise<void>;
}

const alive = new Set<number>();

/** Whatever makes Hangar's own process end, its groups end with it. What gets past this is the guardian's. */
process.on("exit", () => {
  for (const pid of alive) signalGroup(pid, "SIGKILL");
});

/** Starts `file` as the leader of a process group of its own. Rejects with the system's error (`code` ENOENT, EACCES, ...). */
export async function spawnGroup(
  file: string,
  args: readonly string[],
  {
    guardian,
    ...options
  }: {
    readonly cwd: string;
    readonly env: Record<string, string>;
    readonly guardian: Guardian;
  },
): Promise<ProcessGroup> {
  guardian.standBy();
  const child = spawn(file, args, { ...options, detached: true, stdio: "pipe", windowsHide: true });
  const exit = once(child, "exit") as Promise<[number | null, NodeJS.Signals | null]>;
  exit.catch(() => {}); // a failed spawn is reported below
  await once(child, "spawn");
  const pid = child.pid as number;
  alive.add(pid);
  guardian.watch(pid);
  // A write to a program that has gone must not end Hangar; its exit tells the story.
  child.stdin.on("error", () => {});
  child.on("error", () => {});

  const left = exit.then(([code, signal]): Exit => ({ code, signal }));
  const gone = left
    .then(() => endOrphans(pid))
    .then(() => {
      alive.delete(pid);
      guardian.release(pid);
    });
  const exited = left.then(async (ended) => {
    await lastOutput(child);
    return ended;
  });
  let stopping: Promise<void> | undefined;

  async function endGroup(graceMs: number): Promise<void> {
    child.stdin.end();
    if (!(await within(left, graceMs))) {
      signalGroup(pid, "SIGTERM");
      if (!(await within(left, graceMs))) signalGroup(pid, "SIGKILL");
    }
    await gone;
    await exited;
  }

  return {
    pid,
    stdin: child.stdin,
    stdout: child.stdout,
    stderr: child.stderr,
    exited,
    stop: (graceMs) => (stopping ??= endGroup(graceMs)),
  };
}

/** Ends what a leader left behind in its group. */
async function endOrphans(pid: number): Promise<void> {
  if (!signalGroup(pid, "SIGTERM")) return;
  for (let waited = 0; waited < ORPHAN_GRACE_MS; waited += POLL_MS) {
    await sleep(POLL_MS);
    if (!signalGroup(pid, 0)) return;
  }
  signalGroup(pid, "SIGKILL");
}

async function lastOutput(child: ChildProcessByStdio<Writable, Readable, Readable>): Promise<void> {
  const open = [child.stdout, child.stderr].filter(({ closed }) => !closed);
  await within(Promise.all(open.map((stream) => once(stream, "close"))), LAST_OUTPUT_MS);
  child.stdin.destroy();
  child.stdout.destroy();
  child.stderr.destroy();
}

/** True when `happening` settles within `ms`. */
async function within(happening: Promise<unknown>, ms: number): Promise<boolean> {
  const timeout = new AbortController();
  const late = sleep(ms, false, { signal: timeout.signal }).catch(() => false);
  try {
    return await Promise.race([happening.then(() => true), late]);
  } finally {
    timeout.abort();
  }
}

/** Sends `signal` to the group; false when nobody of it is left. */
function signalGroup(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    process.kill(-pid, signal);
    return true;
  } catch {
    return false;
  }
}
