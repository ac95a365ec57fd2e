import { accessSync, constants } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { makeFolder } from "../lib/folder.ts";

type Environment = Readonly<Record<string, string | undefined>>;

/** Where Hangar keeps what outlives it: the token, era verdicts, the providers' logs. */
export interface StateDir {
  readonly folder: string;
  /** Why it cannot be written; everything is then kept in memory. */
  readonly unusable: string | undefined;
}

/** `--state-dir`, else MCP_HANGAR_STATE_DIR, else `mcp-hangar` under XDG_STATE_HOME or ~/.local/state. */
export function stateFolder(flag: string | undefined, env: Environment): string {
  const named = flag ?? (env["MCP_HANGAR_STATE_DIR"] || undefined);
  const parent = env["XDG_STATE_HOME"] || join(env["HOME"] || homedir(), ".local", "state");
  return resolve(named ?? join(parent, "mcp-hangar"));
}

/** The state directory, made with mode 0700 where it is missing. */
export function openStateDir(flag: string | undefined, env: Environment): StateDir {
  const folder = stateFolder(flag, env);
  try {
    makeFolder(folder, 0o700);
    accessSync(folder, constants.R_OK | constants.W_OK | constants.X_OK);
    return { folder, unusable: undefined };
  } catch (error) {
    return { folder, unusable: (error as Error).message };
  }
}
