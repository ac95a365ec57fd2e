/**
 * `npm run soak`: a real Hangar over providers that misbehave, under mixed load, while providers are killed, stopped and
 * started. Every answer is looked at, and at the end nothing may be left. The last line is "soak: N checks passed, N failed".
 */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import {
  type Child,
  cleanUp,
  cleanUpOnSignals,
  HANGAR,
  isEnding,
  newFolder,
  rssMb,
  startNode,
} from "../bench/children.ts";
import { isAlive } from "../test/processes.ts";
import {
  guardiansOf,
  holdingOf,
  killLeftovers,
  MARK,
  ours,
  runProcesses,
  settles,
} from "./census.ts";
import { type Client, httpClient, stdioClient } from "./clients.ts";
import type { Gauge } from "./gauge.ts";
import { audit, type Json } from "./judge.ts";
import { seeded } from "../test/seeded.ts";
import { callOn, type Calls, disturb, type FaultCounts } from "./load.ts";
import { FAULTS, newProviders, type Provider, readLedgers, writeConfig } from "./providers.ts";
import { type Figures, isBack, listOf, rowOf, tableOf, verdict } from "./report.ts";

const USAGE = `npm run soak -- [options]
  --minutes <n>    how long calls are made, after a warm-up; 1 unless told
  --seed <n>       what the random choices begin with
  --providers <n>  how many; ${FAULTS.length} unless told, one of each fault
  --json <file>    write the figures, too
`;
/** In less, not every provider is called often enough. */
const MIN_MINUTES = 0.5;
const MAX_MINUTES = 24 * 60;
const MAX_PROVIDERS = 100;
/** Calls before anything is measured, so that what is loaded once is loaded, in milliseconds. */
const WARM_UP_MS = 10_000;
/** Calls each client has under way. */
const LANES = 3;
/** The providers of the second Hangar, on stdio: the first of the faults. */
const STDIO_PROVIDERS = 3;
const SAMPLE_MS = 500;
/** How soon after the last call everything that runs must have gone, in milliseconds. */
const QUIET_MS = 20_000;
/** How soon after SIGTERM Hangar, and then what it started, must have gone, in milliseconds. */
const EXIT_MS = 10_000;
const GAUGE_MS = 5_000;
const GAUGE = fileURLToPath(new URL("gauge.ts", import.meta.url));

/** Starts a Hangar that tells how it does. */
function startHangar(folder: string, config: string, ...front: readonly string[]): Child {
  process.env["SOAK_GAUGE"] = join(folder, "gauge.json");
  const state = join(folder, "state");
  const node = ["--expose-gc", "--import", GAUGE];
  return startNode(...node, HANGAR, "serve", ...front, "--config", config, "--state-dir", state);
}

async function gaugeOf(hangar: Child, folder: string): Promise<Gauge> {
  const file = join(folder, "gauge.json");
  rmSync(file, { force: true });
  process.kill(hangar.pid, "SIGUSR2");
  let gauge: Gauge | undefined;
  const isThere = (): boolean => {
    try {
      gauge = JSON.parse(readFileSync(file, "utf8")) as Gauge;
    } catch {
      return false;
    }
    return true;
  };
  if (!(await settles(isThere, GAUGE_MS))) throw new Error("Hangar does not react to SIGUSR2");
  return gauge as Gauge;
}

/** A Hangar with its providers and its clients. */
interface Side {
  readonly hangar: Child;
  readonly folder: string;
  readonly providers: readonly Provider[];
  readonly clients: readonly Client[];
}

async function startHttpSide(count: number): Promise<Side> {
  const folder = newFolder();
  const providers = newProviders(count, "", folder);
  const config = await writeConfig(providers, folder, MARK);
  const hangar = startHangar(folder, config, "--http", "--host", "127.0.0.1", "--port", "0");
  const port = await hangar.port();
  const clients = (["legacy", "modern", "legacy", "modern"] as const).map((era, index) =>
    httpClient(port, era, `${era} client ${index + 1}`),
  );
  return { hangar, folder, providers, clients };
}

async function startStdioSide(problems: string[]): Promise<Side> {
  const folder = newFolder();
  const providers = newProviders(STDIO_PROVIDERS, "piped-", folder);
  const hangar = startHangar(folder, await writeConfig(providers, folder, MARK));
  const client = stdioClient(hangar, "stdio client", (problem) => problems.push(problem));
  await client.greet();
  return { hangar, folder, providers, clients: [client] };
}

/** All clients of all sides call for that long, while `during` happens. */
async function load(
  sides: readonly Side[],
  calls: Calls,
  random: () => number,
  ms: number,
  during: (over: () => boolean) => readonly Promise<void>[],
): Promise<void> {
  const end = performance.now() + ms;
  const over = (): boolean => performance.now() >= end || isEnding();
  const lanes = sides.flatMap(({ clients, providers }) =>
    clients.flatMap((client) =>
      Array.from({ length: LANES }, () => callOn(client, providers, random, calls, over)),
    ),
  );
  await Promise.all([...lanes, ...during(over)]);
}

/** Stops every provider and every idle connection, and waits until that has come to rest. */
async function quieten(sides: readonly Side[]): Promise<boolean> {
  for (const { clients, providers } of sides) {
    const [operator] = clients as [Client];
    await Promise.all(
      providers.map(({ name }) => operator.ask("registry_stop", { provider: name })),
    );
    for (const client of clients) client.rest();
  }
  return await settles(() => runProcesses().length === 0, QUIET_MS);
}

/** The highest memory of a process until `over`, in MB. */
async function watchMemory(pid: number, peak: { mb: number }, over: () => boolean): Promise<void> {
  while (!over()) {
    peak.mb = Math.max(peak.mb, rssMb(pid));
    await sleep(SAMPLE_MS);
  }
}

/** How often each provider was started, as Hangar says. */
async function startsOf({ clients, providers }: Side): Promise<Map<string, number>> {
  const [operator] = clients as [Client];
  const entries = providers.map(async ({ name }) => {
    const details: Json = await operator.ask("registry_details", { provider: name });
    return [name, Number(details.run)] as const;
  });
  return new Map(await Promise.all(entries));
}

async function soak(minutes: number, seed: number, count: number, json?: string): Promise<number> {
  const random = seeded(seed);
  const calls: Calls = new Map();
  const strays: string[] = [];
  const http = await startHttpSide(count);
  const stdio = await startStdioSide(strays);
  const sides = [http, stdio];
  const { hangar, folder } = http;

  await load(sides, calls, random, WARM_UP_MS, () => []);
  const quietBefore = await quieten(sides);
  const gaugeBefore = await gaugeOf(hangar, folder);
  const before = holdingOf(hangar.pid);

  const counts: FaultCounts = { kills: 0, stops: 0, manualStarts: 0 };
  const fleets = sides.map(({ clients, providers }) => ({
    operator: clients.at(-1) as Client,
    providers,
  }));
  const peak = { mb: before.rssMb };
  await load(sides, calls, random, minutes * 60_000, (over) => [
    watchMemory(hangar.pid, peak, over),
    disturb(fleets, random, counts, over),
  ]);
  const { loopP99Ms, loopMaxMs } = await gaugeOf(hangar, folder);
  const starts = new Map([...(await startsOf(http)), ...(await startsOf(stdio))]);
  const quietAfter = await quieten(sides);
  await settles(() => isBack(before, holdingOf(hangar.pid)), QUIET_MS);
  const after = holdingOf(hangar.pid);
  const gaugeAfter = await gaugeOf(hangar, folder);
  const executions = sides.flatMap(({ providers }) => readLedgers(providers));

  // The ends of both Hangars, each in the way that is its own.
  const guardians = sides.flatMap((side) => guardiansOf(side.hangar.pid));
  stdio.hangar.stdin.end();
  const stdioExit = await Promise.race([
    stdio.hangar.exit,
    sleep(EXIT_MS, undefined, { ref: false }),
  ]);
  const since = performance.now();
  process.kill(hangar.pid, "SIGTERM");
  const httpExit = await Promise.race([hangar.exit, sleep(EXIT_MS, undefined, { ref: false })]);
  const exitMs = performance.now() - since;
  const logs = sides.map((side) => readFileSync(join(side.folder, "hangar.log"), "utf8")).join("");
  await cleanUp();
  await settles(() => ours().length === 0 && !guardians.some(isAlive), EXIT_MS);
  const left = killLeftovers(guardians);

  const rows = sides
    .flatMap(({ providers }) => providers)
    .map((provider) => rowOf(provider, calls, starts.get(provider.name) ?? 0));
  const figures: Figures = {
    ...{ seed, minutes, calls: calls.size, executions: executions.length, ...counts },
    starts: rows.reduce((sum, row) => sum + row.starts, 0),
    ...{ before, after, peakRssMb: peak.mb },
    ...{ heapBeforeMb: gaugeBefore.heapMb, heapAfterMb: gaugeAfter.heapMb },
    ...{ loopP99Ms, loopMaxMs, exitMs },
  };
  process.stdout.write(`${tableOf(rows)}\n${listOf(figures)}\n`);
  if (json !== undefined) writeFileSync(json, `${JSON.stringify({ ...figures, rows }, null, 2)}\n`);
  return verdict(figures, rows, {
    ends: [...calls.values()].map(({ end }) => end),
    strays,
    untrue: audit(executions, calls),
    cameToRest: quietBefore && quietAfter,
    exits: { stdio: stdioExit, http: httpExit },
    left,
    defects: logs.split("\n").filter((line) => line.includes('"defect"')),
  });
}

/** The value of an option; throws, in words for whoever wrote it, when it cannot be that. */
function numberOf(option: string, text: string, least: number, most: number): number {
  const value = Number(text);
  const isWhole = option === "--minutes" || Number.isInteger(value);
  if (text !== "" && isWhole && value >= least && value <= most) return value;
  const kind = option === "--minutes" ? "a number" : "a whole number";
  throw new RangeError(`${option} must be ${kind} from ${least} to ${most}, found ${text}`);
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      minutes: { type: "string", default: "1" },
      seed: { type: "string", default: String(Date.now() % 1_000_000) },
      providers: { type: "string", default: String(FAULTS.length) },
      json: { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    process.stdout.write(USAGE);
    return 0;
  }
  const minutes = numberOf("--minutes", values.minutes, MIN_MINUTES, MAX_MINUTES);
  const seed = numberOf("--seed", values.seed, 0, 2 ** 32 - 1);
  const providers = numberOf("--providers", values.providers, 1, MAX_PROVIDERS);
  process.stdout.write(`${minutes} minutes, seed ${seed}, ${providers} providers\n\n`);
  return await soak(minutes, seed, providers, values.json);
}

cleanUpOnSignals();
process.on("uncaughtException", (error) => {
  // While everything is being ended, calls fail; whoever ends it gives the exit code.
  if (isEnding()) return;
  process.stderr.write(`${error.stack}\n`);
  void cleanUp().finally(() => {
    killLeftovers([]);
    process.exit(1);
  });
});
try {
  process.exitCode = await main();
} catch (error) {
  if (!isEnding()) {
    process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`);
    process.exitCode = 1;
  }
} finally {
  await cleanUp();
  killLeftovers([]);
}
