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
  config_problem: () => "warn",
  state_dir_unusable: () => "warn",
  guardian_lost: () => "warn",
  orphan_swept: () => "warn",
  listening: () => "info",
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
    pino.destination({ dest: options.file ?? 2, sync: true }),
  );
  return (event) => {
    const level = (LEVELS[event.type] as (event: HangarEvent) => LogLevel)(event);
    const { type, ...facts } = event;
    log[level](facts, type);
  };
}
