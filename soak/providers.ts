/** The providers of the soak: chaos servers, each with another fault. */
import { appendFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { HANGAR, startNode } from "../bench/children.ts";
import type { Execution } from "./judge.ts";

/** What an answer may be late by on a busy machine, in milliseconds. */
const LATE_MS = 5_000;

export interface Fault {
  readonly name: string;
  readonly era: "legacy" | "modern";
  readonly flags: readonly string[];
  /** Runs elsewhere, as a remote provider. */
  readonly remote?: boolean;
  readonly timeoutS: number;
  /** How many of the calls are its, beside the others' weights. */
  readonly weight: number;
  /** Its answers take more than one write. */
  readonly tearable?: boolean;
  /** Whether any call can have an answer. */
  readonly answers: boolean;
}

/** In the order in which they are taken; further providers begin at the front again. */
export const FAULTS: readonly Fault[] = [
  fault("clean", "legacy", "", { weight: 10 }),
  fault("crash", "legacy", "--crash-rate 0.02", { weight: 6 }),
  fault("double", "legacy", "--double-reply --stray-replies", { weight: 6 }),
  fault("slow", "modern", "--delay-ms 100", { weight: 3 }),
  fault("noisy", "legacy", "--noise-before --noise-between --blank-lines --crlf", { weight: 6 }),
  fault("wrong-id", "legacy", "--wrong-id", { timeoutS: 1, weight: 1, answers: false }),
  fault("stubborn", "modern", "--ignore-term --ignore-eof --grandchild --setsid-grandchild"),
  fault("storm", "modern", "--list-changed-per-s 300 --list-changed-real"),
  fault("stderr", "legacy", "--stderr-bytes 200000 --stderr-bytes-per-call 20000"),
  fault("stuck", "legacy", "--stop-reading-after 100", { timeoutS: 1, weight: 2 }),
  fault("torn", "modern", "--split", { tearable: true }),
  // Every start takes seconds, as the list of tools drips, too.
  fault("drip", "legacy", "--drip-ms 1", { timeoutS: 12, weight: 1, tearable: true }),
  fault("huge", "modern", "--huge-bytes 50000", { weight: 2, tearable: true }),
  fault("forgets", "legacy", "--http-forget-sessions-after 20", { remote: true }),
  fault("unavailable", "modern", "--http-status 503", {
    remote: true,
    weight: 1,
    answers: false,
  }),
];

function fault(name: string, era: Fault["era"], options: string, more: Partial<Fault> = {}): Fault {
  const flags = ["--era", era, ...options.split(" ").filter(Boolean)];
  return { name, era, flags, timeoutS: 8, weight: 4, answers: true, ...more };
}

/** The longest that a call with this deadline may take, in milliseconds. */
export function boundMs(timeoutS: number): number {
  return timeoutS * 1_000 + LATE_MS;
}

export interface Provider {
  readonly name: string;
  readonly fault: Fault;
  /** The file in which its process writes down what ran. */
  readonly ledger: string;
}

/** `count` providers whose names begin with `prefix`, with their ledgers in `folder`. */
export function newProviders(count: number, prefix: string, folder: string): Provider[] {
  return Array.from({ length: count }, (_, index) => {
    const kind = FAULTS[index % FAULTS.length] as Fault;
    const round = Math.floor(index / FAULTS.length);
    const name = `${prefix}${kind.name}${round === 0 ? "" : `-${round + 1}`}`;
    return { name, fault: kind, ledger: join(folder, `${name}.jsonl`) };
  });
}

/** Writes the configuration of a Hangar over `providers` into `folder`, and starts the remote ones. `inherit` is handed on to all. */
export async function writeConfig(
  providers: readonly Provider[],
  folder: string,
  inherit: string,
): Promise<string> {
  const entries = providers.map(async ({ name, fault: { flags, remote, timeoutS }, ledger }) => {
    const args = [HANGAR, "chaos-server", ...flags, "--ledger", ledger];
    appendFileSync(ledger, "");
    const how =
      remote === true
        ? { mode: "remote", endpoint: await startRemote(args) }
        : {
            command: [process.execPath, ...args],
            inherit_env: [inherit],
            restart: { limit: 100, window_s: 60, healthy_s: 1 },
          };
    return [name, { ...how, timeout_s: timeoutS, ...COMMON }] as const;
  });
  const file = join(folder, "config.yaml");
  const config = {
    logging: { file: join(folder, "hangar.log") },
    providers: Object.fromEntries(await Promise.all(entries)),
  };
  writeFileSync(file, JSON.stringify(config));
  return file;
}

/** Everything that can refuse, retry or restart does so often, so that the soak sees it. */
const COMMON = {
  startup_timeout_s: 20,
  health_check_interval_s: 2,
  max_concurrency: 4,
  max_queue: 4,
  trust_annotations: true,
  circuit_breaker: { min_calls: 20, open_s: 0.5 },
};

async function startRemote(args: readonly string[]): Promise<string> {
  return `http://127.0.0.1:${await startNode(...args, "--http", "0").port()}/mcp`;
}

/** Everything that ran, as the ledgers have it. */
export function readLedgers(providers: readonly Provider[]): Execution[] {
  return providers.flatMap(({ name, ledger }) =>
    (existsSync(ledger) ? readFileSync(ledger, "utf8") : "")
      .split("\n")
      // The last line of a process that was killed may be half a line.
      .filter((line) => line.endsWith("}"))
      .map((line) => ({ ...(JSON.parse(line) as Omit<Execution, "provider">), provider: name })),
  );
}
