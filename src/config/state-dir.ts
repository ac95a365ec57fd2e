import { accessSync, constants, mkdirSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";

/** Where Hangar keeps what outlives it: the token, era verdicts. */
export interface StateDir {
  readonly folder: string;
  /** Why it cannot be written; everything is then kept in memory. */
  readonly unusable: string | undefined;
}

/** `--state-dir`, else MCP_HANGAR_STATE_DIR, else `mcp-hangar` under XDG_STATE_HOME or ~/.local/state; made with mode 0700. */
export function openStateDir(
  flag: string | undefined,
  env: Readonly<Record<string, string | undefined>>,
): StateDir {
  const named = flag ?? (env["MCP_HANGAR_STATE_DIR"] || undefined);
  const parent = env["XDG_STATE_HOME"] || join(env["HOME"] || homedir(), ".local", "state");
  const folder = resolve(named ?? join(parent, "mcp-hangar"));
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    accessSync(folder, constants.R_OK | constants.W_OK | constants.X_OK);
    return { folder, unusable: undefined };
  } catch (error) {
    return { folder, unusable: (error as Error).message };
  }
}
