import { setTimeout as sleep } from "node:timers/promises";
import type { HangarEvent, Tell } from "./events.ts";
import { LogFile, type LogFileOptions } from "./log-file.ts";
import type { LogLine } from "./log-line.ts";

/** Longest wait for the last lines to be written, when Hangar ends. */
const CLOSE_MS = 2_000;

/** Each provider's output, with the starts and ends of its runs, in files of its own. */
export interface ProviderLogs {
  /** Takes an event; what belongs to a provider's log is written to it later. */
  readonly take: Tell;
  close(): Promise<void>;
}

/** Logs in `folder`, which is made when there is something to write; without one, or with 0 files, nothing is written. */
export function createProviderLogs({
  folder,
  ...options
}: Pick<LogFileOptions, "maxBytes" | "files" | "tell"> & {
  readonly folder: string | undefined;
}): ProviderLogs {
  if (folder === undefined || options.files === 0) return { take: () => {}, close: async () => {} };
  const logs = new Map<string, LogFile>();
  let last: Promise<void> = Promise.resolve();
  // One at a time, so that a disk that hangs holds one thread of the pool and no more.
  const inTurn = (work: () => Promise<void>): Promise<void> => (last = last.then(work));
  return {
    take(event) {
      const line = lineOf(event);
      if (line === undefined) return;
      const { provider, ...rest } = line;
      let log = logs.get(provider);
      if (log === undefined) {
        log = new LogFile({ ...options, folder, provider, inTurn });
        logs.set(provider, log);
      }
      log.add(rest);
    },
    async close() {
      const written = Promise.all([...logs.values()].map((log) => log.close()));
      await Promise.race([written, sleep(CLOSE_MS, undefined, { ref: false })]);
    },
  };
}

/** What an event adds to the log of a provider, if anything. */
function lineOf(
  event: HangarEvent,
): (Pick<LogLine, "run" | "stream" | "text"> & { readonly provider: string }) | undefined {
  switch (event.type) {
    case "provider_output": {
      const { provider, run, stream, line: text } = event;
      return { provider, run, stream, text };
    }
    case "run_began": {
      const { provider, run, what } = event;
      return { provider, run, stream: "hangar", text: `-- run ${run} started, ${what}` };
    }
    case "run_ended": {
      const { provider, run, what, how } = event;
      return { provider, run, stream: "hangar", text: `-- run ${run} ended with ${how}, ${what}` };
    }
    case "provider_stopped": {
      const { provider, reason } = event;
      return { provider, stream: "hangar", text: `-- stopped: ${reason}` };
    }
    case "provider_state": {
      const { provider, state, reason = "" } = event;
      const [first] = reason.split("\n", 1);
      return state === "dead"
        ? { provider, stream: "hangar", text: `-- dead: ${first}` }
        : undefined;
    }
    default:
      return undefined;
  }
}
