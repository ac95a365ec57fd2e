/** Starts the programs of a comparison and ends them again: the fixture, Hangar, and the suite. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** A running server. */
export interface Program {
  readonly url: string;
  readonly stop: () => Promise<void>;
}

interface Finished {
  readonly code: number | null;
  readonly output: string;
}

const START_MS = 60_000;
const STOP_MS = 5000;
const HANGAR =
  process.env["HANGAR_BIN"] ?? fileURLToPath(new URL("../../dist/cli/bin.js", import.meta.url));

/** The path of a file beside this one. */
export function beside(name: string): string {
  return fileURLToPath(new URL(name, import.meta.url));
}

/** A new empty folder, and what removes it. */
export function scratchFolder(): { path: string; remove: () => void } {
  const path = mkdtempSync(join(tmpdir(), "hangar-conformance-"));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

/** Hangar with one provider; `url` is that provider's own address. */
export async function startHangar(id: string, provider: object): Promise<Program> {
  const folder = scratchFolder();
  const config = join(folder.path, "config.yaml");
  // The marker by which the tests find processes that were left behind.
  const marker = process.env["HANGAR_TEST"] === undefined ? [] : ["HANGAR_TEST"];
  const providers = { [id]: { ...provider, ...inherit(provider, marker) } };
  writeFileSync(config, JSON.stringify({ providers }));
  const listen = ["--http", "--host", "127.0.0.1", "--port", "0"];
  const files = ["--config", config, "--state-dir", join(folder.path, "state")];
  try {
    const { port, stop } = await startServer([HANGAR, "serve", ...listen, ...files]);
    return {
      // The suite tests the check of the Host header only at an address called localhost.
      url: `http://localhost:${port}/mcp/${id}`,
      stop: () => stop().finally(folder.remove),
    };
  } catch (error) {
    folder.remove();
    throw error;
  }
}

/** Only a provider that is a process has an environment. */
function inherit(provider: object, names: readonly string[]): object {
  return "command" in provider && names.length > 0 ? { inherit_env: names } : {};
}

/** The fixture over HTTP. */
export async function startFixture(era: string): Promise<Program> {
  const { port, stop } = await startServer([beside("fixture.ts"), "http", "--era", era]);
  return { url: `http://localhost:${port}/mcp`, stop };
}

/** Runs a program of Node until it says at which port its /mcp is. */
async function startServer(
  args: readonly string[],
): Promise<{ port: string; stop: () => Promise<void> }> {
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"] });
  const closed = new Promise<void>((resolve) => {
    child.once("close", () => resolve());
  });
  const stop = () => end(child, closed);
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output += text;
      const port = /http:\/\/(?:127\.0\.0\.1|localhost):(\d+)\/mcp/.exec(output)?.[1];
      if (port !== undefined) resolve(port);
    });
  }
  const name = args.join(" ");
  child.once("error", reject);
  child.once("close", () => reject(new Error(`${name} ended:\n${output}`)));
  const timer = setTimeout(() => {
    reject(new Error(`${name} gave no address within ${START_MS} ms:\n${output}`));
  }, START_MS);
  try {
    return { port: await promise, stop };
  } catch (error) {
    await stop();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

async function end(child: ChildProcess, closed: Promise<void>): Promise<void> {
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), STOP_MS);
  await closed;
  clearTimeout(timer);
}

/** Runs a program of Node to its end; one that takes longer than `limitMs` is ended. */
export async function run(args: readonly string[], limitMs: number): Promise<Finished> {
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"] });
  const timer = setTimeout(() => child.kill("SIGKILL"), limitMs);
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output += text;
    });
  }
  try {
    return await new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code) => resolve({ code, output }));
    });
  } finally {
    clearTimeout(timer);
  }
}
