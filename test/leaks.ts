/**
 * After every test file: no process with the file's marker, no port that still answers, no open descriptor
 * that was not there before. What is left over is printed and ended, so that the next file starts clean.
 */
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll } from "vitest";
import { descriptorsOf, findProcesses, type ProcessInfo } from "./processes.ts";

const SETTLE_MS = 3000;
/** The runtime itself closes some connections only after a while. */
const DESCRIPTORS_SETTLE_MS = 10_000;
const POLL_MS = 50;

const marker = `HANGAR_TEST=${randomUUID()}`;
process.env["HANGAR_TEST"] = marker.slice("HANGAR_TEST=".length);
const ports = new Set<number>();
let descriptorsBefore: readonly string[] = [];

/** From now on the file fails if this port of the loopback interface accepts connections at its end. */
export function watchPort(port: number): void {
  ports.add(port);
}

/** The `NAME=value` that everything started by this test file carries in its environment. */
export function fileMarker(): string {
  return marker;
}

beforeAll(() => {
  descriptorsBefore = descriptorsOf("self");
});

afterAll(
  async () => {
    const problems: string[] = [];
    for (const left of await settle(() => findProcesses(marker))) {
      problems.push(`process left: ${describe(left)}`);
      process.kill(left.pid, "SIGKILL");
    }
    for (const port of await settle(() => listening(ports))) {
      problems.push(`port still listening: ${port}`);
    }
    for (const descriptor of await settle(newDescriptors, DESCRIPTORS_SETTLE_MS)) {
      problems.push(`descriptor left open: ${descriptor}${endsOf(descriptor)}`);
    }
    if (problems.length > 0) throw new Error(problems.join("\n"));
  },
  3 * SETTLE_MS + 2 * DESCRIPTORS_SETTLE_MS,
);

/** Waits for `look` to find nothing; returns what it still finds at the end. */
async function settle<T>(look: () => T[] | Promise<T[]>, limitMs = SETTLE_MS): Promise<T[]> {
  const end = Date.now() + limitMs;
  let found = await look();
  while (found.length > 0 && Date.now() < end) {
    await sleep(POLL_MS);
    found = await look();
  }
  return found;
}

/** Both ends of a TCP socket, as /proc shows them, in hexadecimal; nothing for anything else. */
function endsOf(descriptor: string): string {
  const inode = /^socket:\[(\d+)\]$/.exec(descriptor)?.[1];
  for (const table of ["/proc/net/tcp", "/proc/net/tcp6"]) {
    for (const line of readFileSync(table, "utf8").split("\n")) {
      const fields = line.trim().split(/\s+/);
      if (fields[9] === inode) return ` (${fields[1]} to ${fields[2]}, state ${fields[3]})`;
    }
  }
  return "";
}

function describe({ pid, command }: ProcessInfo): string {
  return `${pid} ${command}`;
}

async function listening(candidates: ReadonlySet<number>): Promise<number[]> {
  const open: number[] = [];
  for (const port of candidates) if (await accepts(port)) open.push(port);
  return open;
}

function accepts(port: number): Promise<boolean> {
  const socket = connect({ host: "127.0.0.1", port });
  return new Promise((resolve) => {
    socket.once("connect", () => resolve(true));
    socket.once("error", () => resolve(false));
  }).then((open) => {
    socket.destroy();
    return open === true;
  });
}

function newDescriptors(): string[] {
  const left = descriptorsOf("self");
  for (const descriptor of descriptorsBefore) {
    const index = left.indexOf(descriptor);
    if (index >= 0) left.splice(index, 1);
  }
  return left;
}
