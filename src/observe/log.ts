import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { pino } from "pino";
import type { HangarEvent, Tell } from "./events.ts";

export type LogLevel = "debug" | "info" | "warn" | "error";

/** Noise is worth a warning once a run; a noisy provider must not flood the log. */
const FIRST_NOISE = 1;

const LEVELS: { readonly [T in HangarEvent["type"]]: (event: EventOf<T>) => LogLevel } = {
  provider_state: (event) =>
    event.state === "dead" ? "error" : event.state === "degraded" ? "warn" : "debug",
  provider_started: () => "info",
  provider_stopped: () => "info",
  provider_stderr: () => "debug",
  provider_noise: (event) => (event.count === FIRST_NOISE ? "warn" : "debug"),
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
  if (options.file !== undefined) mkdirSync(dirname(options.file), { recursive: true });
  const log = pino(
    {
      level: options.level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { error: pino.stdSerializers.err },
    },
    options.file === undefined ? stderr() : pino.destination({ dest: options.file, sync: true }),
  );
  return (event) => {
    const level = (LEVELS[event.type] as (event: HangarEvent) => LogLevel)(event);
    const { type, ...facts } = event;
    log[level](facts, type);
  };
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
