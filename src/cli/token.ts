import { randomBytes, randomUUID } from "node:crypto";
import { linkSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { StateDir } from "../config/state-dir.ts";

export interface Token {
  readonly token: string;
  /** What to tell the person who starts Hangar; only when the token is new, or lives only in memory. */
  readonly news: string | undefined;
}

/** The bearer token: MCP_HANGAR_TOKEN, else the one kept in the state directory (mode 0600), made on first use. */
export function bearerToken(stateDir: StateDir, fromEnv: string | undefined): Token {
  if (fromEnv !== undefined && fromEnv !== "") return { token: fromEnv, news: undefined };
  const file = join(stateDir.folder, "token");
  const token = randomBytes(32).toString("base64url");
  const forNow = `Token for clients on other machines, until Hangar ends: ${token}`;
  if (stateDir.unusable !== undefined) return { token, news: forNow };
  const draft = `${file}.${randomUUID()}`;
  try {
    // Put in its place when it is complete, so that a Hangar that starts meanwhile never reads half of it.
    writeFileSync(draft, `${token}\n`, { mode: 0o600 });
    linkSync(draft, file);
    return {
      token,
      news: `Token for clients on other machines: ${token}\n  (kept in ${file}; not shown again)`,
    };
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    // On a full disk, say.
    if (code !== "EEXIST")
      return { token, news: `${forNow}\n  (it cannot be kept in ${file}: ${message})` };
    return { token: readFileSync(file, "utf8").trim(), news: undefined };
  } finally {
    rmSync(draft, { force: true });
  }
}
