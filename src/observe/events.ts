import type { Era } from "../target.ts";

/** Where a provider's words that are no messages came from; `http` is what a remote one answered instead. */
export type OutputStream = "stderr" | "stdout" | "http";

/** Lines a run has printed on stdout that are no messages, from which on the provider counts as noisy. */
export const NOISY_LINES = 1_000;

/** Everything worth telling, once; log lines and later metrics are views of it. */
export type HangarEvent =
  | {
      readonly type: "provider_state";
      readonly provider: string;
      readonly from: string;
      readonly state: string;
      readonly reason?: string;
    }
  | {
      readonly type: "provider_started";
      readonly provider: string;
      readonly run: number;
      /** What runs, for people: `pid 4711`. */
      readonly what: string;
      readonly era: Era;
      readonly version: string;
      readonly tools: number;
      /** From spawn to the last page of its tools. */
      readonly durationMs: number;
    }
  | { readonly type: "provider_stopped"; readonly provider: string; readonly reason: string }
  /** A process runs, or an endpoint is to be spoken to; the handshake is still to come. */
  | {
      readonly type: "run_began";
      readonly provider: string;
      readonly run: number;
      readonly what: string;
    }
  | {
      readonly type: "run_ended";
      readonly provider: string;
      readonly run: number;
      readonly what: string;
      /** `exit code 3`, `signal SIGKILL`. */
      readonly how: string;
    }
  /** A line that is no message, secrets taken out. */
  | {
      readonly type: "provider_output";
      readonly provider: string;
      readonly run: number;
      readonly stream: OutputStream;
      readonly line: string;
    }
  /** The provider's log cannot be written; told once until it can be again. Its lines wait, the oldest are dropped. */
  | {
      readonly type: "provider_log_unwritable";
      readonly provider: string;
      readonly file: string;
      readonly error: string;
    }
  | {
      readonly type: "provider_noise";
      readonly provider: string;
      readonly why: string;
      readonly head: string;
      /** How many such lines this run has produced, this one included. */
      readonly count: number;
    }
  | { readonly type: "provider_log"; readonly provider: string; readonly params: string }
  | {
      readonly type: "breaker_state";
      readonly provider: string;
      readonly state: "closed" | "open" | "half_open";
      /** Calls it judged by, and how many of them failed. */
      readonly calls: number;
      readonly failures: number;
      readonly retryAfterMs: number;
    }
  | {
      readonly type: "call_retried";
      readonly provider: string;
      readonly method: string;
      /** Number of the attempt that follows; the first call was 1. */
      readonly attempt: number;
      /** Code of the failure before. */
      readonly why: string;
      readonly waitMs: number;
    }
  | { readonly type: "config_problem"; readonly problem: string }
  | { readonly type: "state_dir_unusable"; readonly folder: string; readonly error: string }
  /** No guardian stands by any more: should Hangar be killed, providers that ignore the end of stdin would stay. */
  | { readonly type: "guardian_lost"; readonly error: string }
  /** A process that an earlier Hangar left was told to end. */
  | { readonly type: "orphan_swept"; readonly pid: number }
  | { readonly type: "shutting_down"; readonly reason: string }
  | { readonly type: "defect"; readonly error: unknown };

/** Receives events; must not throw. */
export type Tell = (event: HangarEvent) => void;
