/**
 * Once per run of the e2e project: builds dist, so that the tests start what is shipped, and checks at the
 * end that no process of any Hangar is left that was not there before.
 * HANGAR_BIN names another CLI to test (an installed package, say); then nothing is built.
 */
import { spawnSync } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { findProcesses } from "./processes.ts";

const SETTLE_MS = 5000;
const ROOT = fileURLToPath(new URL("..", import.meta.url));

export default function setup(): () => Promise<void> {
  if (process.env["HANGAR_BIN"] === undefined) build();
  const before = new Set(findProcesses("HANGAR_INSTANCE=").map(({ pid }) => pid));
  return () => expectNoneLeft(before);
}

function build(): void {
  const compiler = fileURLToPath(new URL("../node_modules/typescript/bin/tsc", import.meta.url));
  const { status, stdout } = spawnSync(process.execPath, [compiler, "-p", "tsconfig.build.json"], {
    cwd: ROOT,
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(`the build failed, so there is nothing to test:\n${stdout}`);
}

async function expectNoneLeft(before: ReadonlySet<number>): Promise<void> {
  const look = () => findProcesses("HANGAR_INSTANCE=").filter(({ pid }) => !before.has(pid));
  const end = Date.now() + SETTLE_MS;
  let left = look();
  while (left.length > 0 && Date.now() < end) {
    await sleep(100);
    left = look();
  }
  if (left.length === 0) return;
  const lines = left.map(({ pid, command }) => `${pid} ${command}`);
  throw new Error(`processes of a Hangar are left after the tests:\n${lines.join("\n")}`);
}
