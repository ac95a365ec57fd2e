/**
 * Once per run of the e2e project: builds dist, so that the tests start what is shipped, and gives the run a
 * temporary folder of its own. At the end nothing may be left in it, and no process whose HOME is there.
 * HANGAR_BIN names another CLI to test (an installed package, say); then nothing is built.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { findProcesses } from "./processes.ts";

const SETTLE_MS = 5000;
const ROOT = fileURLToPath(new URL("..", import.meta.url));

export default function setup(): () => Promise<void> {
  if (process.env["HANGAR_BIN"] === undefined) build();
  const folder = mkdtempSync(join(tmpdir(), "hangar-tests-"));
  process.env["TMPDIR"] = folder;
  return () => expectNothingLeft(folder);
}

function build(): void {
  const compiler = fileURLToPath(new URL("../node_modules/typescript/bin/tsc", import.meta.url));
  const { status, stdout } = spawnSync(process.execPath, [compiler, "-p", "tsconfig.build.json"], {
    cwd: ROOT,
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(`the build failed, so there is nothing to test:\n${stdout}`);
}

async function expectNothingLeft(folder: string): Promise<void> {
  const look = () => findProcesses(`HOME=${folder}`);
  const end = Date.now() + SETTLE_MS;
  let left = look();
  while (left.length > 0 && Date.now() < end) {
    await sleep(100);
    left = look();
  }
  // Node's own cache of compiled code is there to stay.
  const files = readdirSync(folder).filter((name) => name !== "node-compile-cache");
  rmSync(folder, { recursive: true, force: true });
  const lines = [...left.map(({ pid, command }) => `process ${pid} ${command}`), ...files];
  if (lines.length > 0) throw new Error(`left after the tests:\n${lines.join("\n")}`);
}
