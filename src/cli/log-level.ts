import { HangarError } from "../errors.ts";
import type { LogLevel } from "../observe/log.ts";

export const LOG_LEVELS: readonly LogLevel[] = ["debug", "info", "warn", "error"];

/** What MCP_LOG_LEVEL asks for; undefined when it is not set. */
export function envLevel(): LogLevel | undefined {
  const named = process.env["MCP_LOG_LEVEL"];
  if (named === undefined || named === "") return undefined;
  // Python's name for it, as in the environment of the original.
  const lower = named.toLowerCase().replace("warning", "warn");
  const level = LOG_LEVELS.find((one) => one === lower);
  if (level !== undefined) return level;
  const levels = LOG_LEVELS.join(", ");
  throw new HangarError("config_invalid", `MCP_LOG_LEVEL must be one of ${levels}, found ${named}`);
}
