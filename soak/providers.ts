/** The providers of a soak, each with faults of its own. */
import { fileURLToPath } from "node:url";

export const BIN = fileURLToPath(new URL("../dist/cli/bin.js", import.meta.url));

/** What is wrong with a provider, as flags of the chaos server. */
const FAULTS: Readonly<Record<string, readonly string[]>> = {
  none: [],
  noise: ["--noise-before", "--noise-between", "--blank-lines", "--crlf"],
  slow: ["--delay-ms", "40"],
  crashes: ["--crash-rate", "0.05"],
  strays: ["--stray-replies"],
  doubles: ["--double-reply"],
  torn: ["--split"],
  stubborn: ["--ignore-term", "--ignore-eof"],
  family: ["--grandchild"],
  storm: ["--list-changed-per-s", "300"],
  flood: ["--stderr-bytes-per-call", "100000"],
  wrong: ["--wrong-id"],
};

/** The same for providers behind a URL. */
export const REMOTE_FAULTS: Readonly<Record<string, readonly string[]>> = {
  forgetful: ["--http-forget-sessions-after", "30", "--era", "legacy"],
  unavailable: ["--http-status", "503", "--http-retry-after", "1"],
};

/** Deadline of calls to a provider whose answers never come, and of all others, in seconds. */
const SHORT_S = 0.5;
const LONG_S = 10;

export interface ProviderPlan {
  readonly name: string;
  readonly fault: string;
  readonly config: object;
}

interface PlanOptions {
  readonly count: number;
  readonly ledger: string;
  /** A variable by which every process is found. */
  readonly marker: string;
  /** The URL of each remote provider. */
  readonly endpoints: Readonly<Record<string, string>>;
}

/** So many providers on stdio, one fault after the other, and the remote ones. */
export function planProviders({ count, ledger, marker, endpoints }: PlanOptions): ProviderPlan[] {
  const faults = Object.entries(FAULTS);
  const common = {
    // What fails most of the time is still called, or there would be little to see.
    circuit_breaker: { open_s: 0.5 },
    trust_annotations: true,
    max_concurrency: 8,
    max_queue: 8,
  };
  const local = Array.from({ length: count }, (_, n) => {
    const [fault, flags] = faults[n % faults.length] as [string, readonly string[]];
    const config = {
      ...common,
      command: [process.execPath, BIN, "chaos-server", "--ledger", ledger, ...flags],
      env: { SOAK: marker },
      restart: { limit: 100, healthy_s: 0 },
      timeout_s: fault === "wrong" ? SHORT_S : LONG_S,
    };
    return { name: `${fault}${n}`, fault, config };
  });
  const remote = Object.entries(endpoints).map(([fault, endpoint]) => ({
    name: fault,
    fault,
    config: { ...common, mode: "remote", endpoint, timeout_s: LONG_S },
  }));
  return [...local, ...remote];
}
