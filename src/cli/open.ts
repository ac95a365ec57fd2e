import { fileURLToPath } from "node:url";
import { formatProblem, loadConfig, type LoadedConfig } from "../config/load.ts";
import { openStateDir, type StateDir } from "../config/state-dir.ts";
import { createHangar, type Hangar } from "../hangar.ts";
import type { Tell } from "../observe/events.ts";
import { createLog, type LogLevel } from "../observe/log.ts";
import { EXIT } from "./exit-code.ts";
import { envLevel } from "./log-level.ts";
import { firstSignal } from "./signal.ts";

/** Options that every command takes. */
export interface CommonOptions {
  readonly config?: string;
  readonly stateDir?: string;
  readonly logLevel?: LogLevel;
}

/** What `serve` runs when there is no configuration file: our own example provider. */
const BUILTIN = {
  command: [
    process.execPath,
    fileURLToPath(new URL("../../examples/provider_math/server.js", import.meta.url)),
  ],
  description: "Example provider: add, subtract, multiply, divide, power.",
};

export function load({ config: path }: CommonOptions): LoadedConfig {
  return loadConfig({ path, env: process.env, cwd: process.cwd(), builtin: BUILTIN });
}

export interface Opened {
  readonly hangar: Hangar;
  readonly loaded: LoadedConfig;
  readonly stateDir: StateDir;
  readonly tell: Tell;
}

/** Loads the configuration and builds Hangar from it, telling what is wrong but not fatal. */
export function open(options: CommonOptions, quiet = false): Opened {
  const loaded = load(options);
  const { logging } = loaded.config;
  const asked = options.logLevel ?? envLevel();
  const tell: Tell =
    quiet && asked === undefined
      ? () => {}
      : createLog({ level: asked ?? logging.level, file: logging.file });
  for (const problem of loaded.problems) {
    tell({ type: "config_problem", problem: formatProblem(problem) });
  }
  const stateDir = openStateDir(options.stateDir, process.env);
  if (stateDir.unusable !== undefined) {
    tell({ type: "state_dir_unusable", folder: stateDir.folder, error: stateDir.unusable });
  }
  const folder = stateDir.unusable === undefined ? stateDir.folder : undefined;
  return {
    hangar: createHangar({ config: loaded.config, stateDir: folder, tell }),
    loaded,
    stateDir,
    tell,
  };
}

/**
 * Runs one command on a Hangar of its own, without a log unless one is asked for, and leaves
 * nothing behind, also not when it is interrupted.
 */
export async function oneShot(
  options: CommonOptions,
  command: (hangar: Hangar) => Promise<number>,
): Promise<number> {
  const { hangar } = open(options, true);
  const interrupted = firstSignal(EXIT.interrupted).then(() => EXIT.interrupted);
  try {
    return await Promise.race([command(hangar), interrupted]);
  } finally {
    await hangar.close("the command has ended");
  }
}
