import { type ChildProcess, spawn } from "node:child_process";
import type { Socket } from "node:net";
import type { Tell } from "../observe/events.ts";

/**
 * Reads `+PID` and `-PID` for process groups that begin and end. When its stdin ends, however Hangar ended, it stops
 * the groups that are left and whatever carries the instance's id in its environment (what called setsid does, too):
 * TERM first, KILL a second later, again for what was started meanwhile. A group whose leader's pid belongs to a
 * later process by then is not touched: `since` is a process's start time, field 22 of /proc/PID/stat.
 */
const SCRIPT = `
trap '' INT TERM HUP
set -f
since() {
  stat=
  { read -r stat < "/proc/$1/stat"; } 2>/dev/null || return
  set -- \${stat##*) }
  echo "\${20}"
}
groups=" "
while IFS= read -r line; do
  pid=\${line#?}
  case $line in
    +*) groups="$groups$pid/$(since "$pid") " ;;
    -*) case $groups in *" $pid/"*) rest=\${groups#*" $pid/"}; groups="\${groups%%" $pid/"*} \${rest#* }" ;; esac ;;
  esac
done
signal() {
  found=
  for group in $groups; do
    pid=\${group%/*}
    now=$(since "$pid")
    if [ -z "$now" ] || [ "$now" = "\${group#*/}" ]; then
      kill -s "$1" -- "-$pid" 2>/dev/null && found=1
    fi
  done
  set +f
  for file in $(grep -lsF "HANGAR_INSTANCE=$instance" /proc/[0-9]*/environ 2>/dev/null); do
    pid=\${file#/proc/}
    kill -s "$1" "\${pid%/environ}" 2>/dev/null && found=1
  done
  set -f
  [ -n "$found" ]
}
instance=$1
signal TERM || exit 0
for round in 1 2 3 4 5; do
  sleep 1
  signal KILL || exit 0
done
`;

/** A guardian that ends sooner than this after its start cannot work here, and is not started again. */
const MIN_LIFE_MS = 1_000;

/** A tiny process beside Hangar that ends Hangar's process groups when Hangar itself can no longer do it. */
export interface Guardian {
  /** Random id of this Hangar; each of its processes carries it in HANGAR_INSTANCE. */
  readonly instance: string;
  /** To be called before a group is started: Hangar may be killed before it can call `watch`. */
  standBy(): void;
  /** From now on the group led by `pid` ends with Hangar. */
  watch(pid: number): void;
  /** The group is gone. */
  release(pid: number): void;
  /** Lets it go; it looks once more for processes of this instance, and ends. */
  close(): void;
}

/** The guardian of one Hangar; its process is started before the first group, and again when somebody kills it. */
export function createGuardian(instance: string, tell: Tell): Guardian {
  const groups = new Set<number>();
  let child: ChildProcess | undefined;
  let usable = process.platform !== "win32";

  function start(): void {
    if (!usable || child !== undefined) return;
    const began = performance.now();
    const started = spawn("/bin/sh", ["-c", SCRIPT, "mcp-hangar-guardian", instance], {
      // A group of its own, and nothing in its environment by which it would find itself.
      detached: true,
      env: { PATH: process.env["PATH"] ?? "/usr/bin:/bin" },
      cwd: "/",
      stdio: ["pipe", "ignore", "ignore"],
    });
    child = started;
    const gone = (error?: Error): void => {
      if (child !== started) return;
      child = undefined;
      usable = error === undefined && performance.now() - began >= MIN_LIFE_MS;
      if (!usable) tell({ type: "guardian_lost", error: error?.message ?? "it ended at once" });
      else if (groups.size > 0) start();
    };
    started.once("error", gone);
    started.once("exit", () => gone());
    started.stdin?.on("error", () => {});
    // It must not keep Hangar alive: its purpose is to outlive it.
    started.unref();
    (started.stdin as Socket | null)?.unref();
    for (const pid of groups) write(`+${pid}`);
  }

  function write(line: string): void {
    child?.stdin?.write(`${line}\n`);
  }

  return {
    instance,
    standBy: start,
    watch(pid) {
      groups.add(pid);
      if (child === undefined) start();
      else write(`+${pid}`);
    },
    release(pid) {
      groups.delete(pid);
      write(`-${pid}`);
    },
    close() {
      usable = false;
      const last = child;
      child = undefined;
      last?.stdin?.end();
    },
  };
}
