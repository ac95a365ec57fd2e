import type { Era } from "../target.ts";

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
  | { readonly type: "provider_stderr"; readonly provider: string; readonly line: string }
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
