/** The processes and folders of a run; whatever is started here is ended by `cleanUp`. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable, Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

/** HANGAR_BIN names another Hangar than this tree's, as it does for the tests. */
export const HANGAR =
  process.env["HANGAR_BIN"] ?? fileURLToPath(new URL("../dist/cli/bin.js", import.meta.url));

/** How long a process may take to end by itself, in milliseconds. */
const STOP_MS = 5_000;
/** How long a server may take until it says where it listens, in milliseconds. */
const READY_MS = 20_000;
/** How much of what a process wrote to stderr is shown when it fails, in characters. */
const STDERR_CHARS = 2_000;
/** How often to look whether npm is still there, in milliseconds. */
const WATCH_MS = 500;

export interface Child {
  readonly pid: number;
  readonly stdin: Writable;
  readonly stdout: Readable;
  /** Exit code, or else the signal that ended the process. */
  readonly exit: Promise<number | NodeJS.Signals>;
  /** Rejects when the process ends before it is stopped. */
  readonly lost: Promise<never>;
  /** The port in the URL that the process writes to stdout or stderr. */
  port(): Promise<number>;
  stop(): Promise<void>;
}

const running = new Set<Child>();
const folders = new Set<string>();
let closed = false;

/** Starts Node with `args`. */
export function startNode(...args: readonly string[]): Child {
  if (closed) throw new Error("the run is ending");
  const spawned = spawn(process.execPath, args, {
    // A group of its own: a Ctrl-C in the terminal is for us, who end the others one by one.
    detached: true,
    env: environment(),
    stdio: "pipe",
  });
  const { stdin, stdout, stderr } = spawned;
  let said = "";
  let stopping: Promise<void> | undefined;
  const exit = once(spawned, "exit").then(
    ([code, signal]) => (code ?? signal) as number | NodeJS.Signals,
  );
  const lost = exit.then((how) => {
    const why = `${args[0]} ended (${how})\n${said}`;
    return stopping === undefined
      ? Promise.reject(new Error(why))
      : new Promise<never>(() => undefined);
  });
  lost.catch(() => undefined); // told to whoever waits for it
  stdin.on("error", () => undefined); // its end tells the story
  stderr.setEncoding("utf8").on("data", (text: string) => {
    said = (said + text).slice(-STDERR_CHARS);
  });

  const child: Child = {
    pid: spawned.pid as number,
    stdin,
    stdout,
    exit,
    lost,
    port: () => Promise.race([portIn(stdout, stderr), lost, late(args[0])]),
    stop: () => (stopping ??= end(spawned, exit).then(() => void running.delete(child))),
  };
  running.add(child);
  return child;
}

/** A new empty folder. */
export function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "hangar-bench-"));
  folders.add(folder);
  return folder;
}

/** Ends every process, removes every folder, and lets nothing new start. */
export async function cleanUp(): Promise<void> {
  closed = true;
  await Promise.all([...running].map((child) => child.stop()));
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
}

/** Ends everything, and this process, when a signal comes or npm is told to end. */
export function cleanUpOnSignals(): void {
  const endWith = (code: number): void => void cleanUp().finally(() => process.exit(code));
  for (const [signal, code] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
    ["SIGHUP", 129],
  ] as const) {
    process.once(signal, () => endWith(code));
  }
  // When npm is told to end, it ends the shell between and forgets us; so the shell's end is our signal.
  const shell = process.ppid;
  if (process.env["npm_lifecycle_event"] === undefined) return;
  setInterval(() => {
    if (process.ppid !== shell) endWith(143);
  }, WATCH_MS).unref();
}

/** Whether everything is being ended, so that what is measured meanwhile says nothing. */
export function isEnding(): boolean {
  return closed;
}

/** CPU time the process has used so far, in microseconds; NaN where the system does not say. */
export function cpuUs(pid: number): number {
  try {
    const threads = readdirSync(`/proc/${pid}/task`);
    const times = threads.map((thread) =>
      Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "utf8").split(" ", 1)[0]),
    );
    return times.reduce((sum, ns) => sum + ns, 0) / 1_000;
  } catch {
    return Number.NaN;
  }
}

/** Resident memory of the process in MB; NaN where the system does not say. */
export function rssMb(pid: number): number {
  try {
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    return (Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024) / 1e6;
  } catch {
    return Number.NaN;
  }
}

/** Ours, without what would change how a server runs: start-up options of Node, settings of Hangar. */
function environment(): NodeJS.ProcessEnv {
  const foreign = /^(NODE_|MCP_|npm_)/;
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !foreign.test(name)));
}

function portIn(...streams: readonly Readable[]): Promise<number> {
  return new Promise((resolve) => {
    let said = "";
    for (const stream of streams) {
      stream.on("data", function look(chunk: Buffer | string) {
        said += String(chunk);
        const port = /http:\/\/[^:/]+:(\d+)\/mcp\s/.exec(said)?.[1];
        if (port === undefined) return;
        stream.off("data", look).resume();
        resolve(Number(port));
      });
    }
  });
}

async function late(what: string | undefined): Promise<never> {
  await sleep(READY_MS, undefined, { ref: false });
  throw new Error(`${what} did not say within ${READY_MS} ms where it listens`);
}

async function end(child: ChildProcess, exit: Promise<unknown>): Promise<void> {
  child.stdin?.end();
  if (child.exitCode === null && child.signalCode === null) {
    child.kill("SIGTERM");
    const ended = exit.then(() => true);
    if (!(await Promise.race([ended, sleep(STOP_MS, false, { ref: false })]))) {
      child.kill("SIGKILL");
      await exit;
    }
  }
  child.stdout?.destroy();
  child.stderr?.destroy();
}
