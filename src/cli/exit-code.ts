import type { ErrorCode } from "../errors.ts";

/** Exit codes of every command. 130 (interrupted) belongs to one-shot commands only; `serve` then exits with 0. */
export const EXIT = {
  ok: 0,
  failure: 1,
  usage: 2,
  notFound: 3,
  toolError: 4,
  unreachable: 5,
  timeout: 6,
  denied: 7,
  configInvalid: 78,
  interrupted: 130,
} as const;

const BY_ERROR: Partial<Record<ErrorCode, number>> = {
  provider_not_found: EXIT.notFound,
  tool_not_found: EXIT.notFound,
  config_not_found: EXIT.notFound,
  invalid_arguments: EXIT.usage,
  start_failed: EXIT.unreachable,
  not_startable: EXIT.unreachable,
  start_timeout: EXIT.timeout,
  timeout: EXIT.timeout,
  provider_dead: EXIT.unreachable,
  provider_degraded: EXIT.unreachable,
  provider_exited: EXIT.unreachable,
  tool_failed: EXIT.toolError,
  unauthorized: EXIT.denied,
  forbidden: EXIT.denied,
  config_invalid: EXIT.configInvalid,
};

/** The exit code for a command that ended with the error `code`. */
export function exitCodeOf(code: ErrorCode): number {
  return BY_ERROR[code] ?? EXIT.failure;
}
