import { dirname, join } from "node:path";
import { pino } from "pino";
import { HangarError } from "../errors.ts";
import { makeFolder } from "../lib/folder.ts";
import { type HangarEvent, NOISY_LINES, type Tell } from "./events.ts";

export type LogLevel = "debug" | "info" | "warn" | "error";

/** Noise is worth a warning once a run, and another when it goes on; a noisy provider must not flood the log. */
const FIRST_NOISE = 1;

const LEVELS: {
  readonly [T in HangarEvent["type"]]: (event: EventOf<T>) => LogLevel | undefined;
} = {
  provider_state: (event) =>
    event.state === "dead" ? "error" : event.state === "degraded" ? "warn" : "debug",
  provider_started: () => "info",
  provider_stopped: () => "info",
  run_began: () => "debug",
  run_ended: () => "debug",
  // What is on stdout is told as noise, with the reason.
  provider_output: (event) => (event.stream === "stdout" ? undefined : "debug"),
  provider_noise: (event) =>
    event.count === FIRST_NOISE || event.count === NOISY_LINES ? "warn" : "debug",
  provider_log_unwritable: () => "warn",
  provider_log: () => "debug",
  breaker_state: (event) => (event.state === "open" ? "warn" : "info"),
  call_retried: () => "info",
  config_problem: () => "warn",
  state_dir_unusable: () => "warn",
  guardian_lost: () => "warn",
  orphan_swept: () => "warn",
  shutting_down: () => "info",
  defect: () => "error",
};

type EventOf<T extends HangarEvent["type"]> = Extract<HangarEvent, { type: T }>;

/** Writes each event as one JSON line to stderr, or to `file`; stdout belongs to MCP. */
export function createLog(options: { level: LogLevel; file?: string | undefined }): Tell {
  const log = pino(
    {
      level: options.level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { error: pino.stdSerializers.err },
    },
    options.file === undefined ? stderr() : appendTo(options.file),
  );
  return (event) => {
    const level = (LEVELS[event.type] as (event: HangarEvent) => LogLevel | undefined)(event);
    if (level === undefined) return;
    const { type, ...facts } = event;
    log[level](facts, type);
  };
}

/** Throws `config_invalid` where nothing can be appended. */
function appendTo(file: string): { write(line: string): void } {
  try {
    makeFolder(dirname(file), 0o777);
    const log = pino.destination({ dest: file, sync: true, maxLength: MAX_UNREAD_BYTES });
    // A disk that is full costs the log, not the program.
    log.on("error", () => {});
    return log;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const why =
      code === "EISDIR"
        ? `a folder; name a file in it, such as ${join(file, "mcp-hangar.log")}`
        : `no file that can be written (${message}); name another, or leave the key out to log to stderr`;
    throw new HangarError("config_invalid", `logging.file: ${file} is ${why}`, { cause: error });
  }
}

/** Lines for a stderr that is not read go, beyond this many bytes; a write that waits for its reader would stop everything. */
const MAX_UNREAD_BYTES = 1024 * 1024;

function stderr(): { write(line: string): void } {
  // Who has closed it does not want to know.
  process.stderr.on("error", () => {});
  return {
    write(line) {
      if (process.stderr.writableLength < MAX_UNREAD_BYTES) process.stderr.write(line);
    },
  };
}
