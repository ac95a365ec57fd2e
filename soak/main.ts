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
import { percentile } from "../bench/report.ts";
import { isAlive } from "../test/processes.ts";
import {
  guardiansOf,
  type Holding,
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
import { callOn, type Calls, disturb, type FaultCounts, randomNumbers } from "./load.ts";
import {
  boundMs,
  FAULTS,
  newProviders,
  type Provider,
  readLedgers,
  writeConfig,
} from "./providers.ts";

const USAGE = `npm run soak -- [options]
  --minutes <n>    how long calls are made, after a warm-up; 1 unless told
  --seed <n>       what the random choices begin with
  --providers <n>  how many; ${FAULTS.length} unless told, one of each fault
  --json <file>    write the figures, too
`;
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
/** What Hangar may have grown by since the warm-up, in MB. */
const HEAP_GROWTH_MB = 8;
const RSS_GROWTH_MB = 64;
/** How late Hangar's event loop may be in 99 of 100 turns, in milliseconds, on a machine that is too small for all this. */
const LOOP_P99_MS = 250;
const GAUGE_MS = 5_000;
const GAUGE = fileURLToPath(new URL("gauge.ts", import.meta.url));

/** What is checked in the end. */
class Checks {
  passed = 0;
  failed = 0;

  expect(what: string, holds: boolean, found: string): void {
    if (holds) this.passed += 1;
    else this.failed += 1;
    process.stdout.write(`${holds ? "ok    " : "FAILED"} ${what}: ${found}\n`);
  }

  /** Holds when there are no problems; shows the first of them. */
  expectNone(what: string, problems: readonly string[]): void {
    this.expect(what, problems.length === 0, `${problems.length}`);
    for (const problem of problems.slice(0, 10)) process.stdout.write(`         ${problem}\n`);
  }
}

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

/** The figures of one provider. */
interface Row {
  readonly provider: string;
  readonly calls: number;
  readonly answers: number;
  readonly cancelled: number;
  readonly errors: Readonly<Record<string, number>>;
  readonly p50Ms: number;
  readonly slowestMs: number;
  readonly boundMs: number;
  readonly starts: number;
}

function rowOf({ name, fault }: Provider, calls: Calls, starts: number): Row {
  const own = [...calls.values()].filter(({ order }) => order.provider === name);
  const errors: Record<string, number> = {};
  for (const { end } of own) {
    const code = end.kind === "error" ? end.code : end.kind;
    if (code !== "answer" && code !== "cancelled") errors[code] = (errors[code] ?? 0) + 1;
  }
  const answered = own.filter(({ end }) => end.kind === "answer").map(({ ms }) => ms);
  return {
    provider: name,
    calls: own.length,
    answers: answered.length,
    cancelled: own.filter(({ end }) => end.kind === "cancelled").length,
    errors,
    p50Ms: percentile(Float64Array.from(answered).toSorted(), 0.5),
    slowestMs: Math.max(0, ...own.map(({ ms }) => ms)),
    boundMs: boundMs(fault.timeoutS),
    starts,
  };
}

function tableOf(rows: readonly Row[]): string {
  const titles = ["provider", "calls", "answers", "cancelled", "p50 ms", "slowest ms", "bound ms"];
  const lines = rows.map((row) => [
    ...[row.provider, row.calls, row.answers, row.cancelled],
    Number.isNaN(row.p50Ms) ? "" : row.p50Ms.toFixed(1),
    ...[row.slowestMs.toFixed(0), row.boundMs, row.starts],
    Object.entries(row.errors)
      .toSorted(([, a], [, b]) => b - a)
      .map(([code, count]) => `${code} ${count}`)
      .join(", "),
  ]);
  const all = [[...titles, "starts", "errors"], Array.from({ length: 9 }, () => "---"), ...lines];
  return all.map((line) => `| ${line.join(" | ")} |\n`).join("");
}

async function soak(minutes: number, seed: number, count: number, json?: string): Promise<number> {
  const random = randomNumbers(seed);
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

  const counts: FaultCounts = { kills: 0, stops: 0, starts: 0 };
  const peak = { mb: before.rssMb };
  await load(sides, calls, random, minutes * 60_000, (over) => [
    watchMemory(hangar.pid, peak, over),
    ...sides.map(({ clients, providers }) =>
      disturb(clients.at(-1) as Client, providers, random, counts, over),
    ),
  ]);
  const { loopP99Ms, loopMaxMs } = await gaugeOf(hangar, folder);
  const starts = new Map([...(await startsOf(http)), ...(await startsOf(stdio))]);
  const quietAfter = await quieten(sides);
  const isBack = ({ zombies, descriptors }: Holding): boolean =>
    zombies === 0 && descriptors <= before.descriptors;
  await settles(() => isBack(holdingOf(hangar.pid)), QUIET_MS);
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

  const all = [...calls.values()];
  const rows = sides
    .flatMap(({ providers }) => providers)
    .map((provider) => rowOf(provider, calls, starts.get(provider.name) ?? 0));
  process.stdout.write(`${tableOf(rows)}\n`);
  const figures = {
    ...{ seed, minutes, calls: all.length, executions: executions.length, ...counts },
    starts: rows.reduce((sum, row) => sum + row.starts, 0),
    ...{ before, after, peakRssMb: peak.mb },
    ...{ heapBeforeMb: gaugeBefore.heapMb, heapAfterMb: gaugeAfter.heapMb },
    ...{ loopP99Ms, loopMaxMs, exitMs },
  };
  for (const [name, value] of Object.entries(figures)) {
    process.stdout.write(`${name}: ${typeof value === "object" ? JSON.stringify(value) : value}\n`);
  }
  process.stdout.write("\n");
  if (json !== undefined) writeFileSync(json, `${JSON.stringify({ ...figures, rows }, null, 2)}\n`);

  const checks = new Checks();
  const why = (kind: "lost" | "wrong"): string[] =>
    all.flatMap(({ end }) => (end.kind === kind ? [end.why] : []));
  checks.expectNone("no call is without its end", why("lost"));
  checks.expectNone("no answer is wrong, and no error unknown", why("wrong"));
  checks.expectNone("no answer comes twice, or to nobody", strays);
  checks.expectNone(
    "nothing ran twice, elsewhere or against what was said",
    audit(executions, calls),
  );
  for (const { provider, fault } of sides
    .flatMap(({ providers }) => providers)
    .map((of) => ({ provider: of.name, fault: of.fault }))) {
    const row = rows.find((candidate) => candidate.provider === provider) as Row;
    const what = fault.answers ? "is answered" : "is called, and never answered";
    checks.expect(
      `${provider} ${what}`,
      row.calls > 0 && row.answers > 0 === fault.answers,
      `${row.answers} of ${row.calls}`,
    );
    checks.expect(
      `${provider} is in time`,
      row.slowestMs <= row.boundMs,
      `${row.slowestMs.toFixed(0)} of ${row.boundMs} ms`,
    );
  }
  const { kills, stops, starts: started } = counts;
  checks.expect(
    "providers were killed, stopped and started",
    kills > 0 && stops > 0 && started > 0,
    `${kills}, ${stops}, ${started}`,
  );
  checks.expect(
    "nothing runs after the stops",
    quietBefore && quietAfter && after.processes === 0,
    `${after.processes}`,
  );
  checks.expect("there are no zombies", after.zombies === 0, `${after.zombies}`);
  checks.expect(
    "there are no more descriptors than before",
    isBack(after),
    `${before.descriptors}, then ${after.descriptors}`,
  );
  const heap = gaugeAfter.heapMb - gaugeBefore.heapMb;
  checks.expect(
    "the heap has not grown",
    heap <= HEAP_GROWTH_MB,
    `${heap.toFixed(1)} of ${HEAP_GROWTH_MB} MB`,
  );
  const rss = after.rssMb - before.rssMb;
  checks.expect(
    "the memory has not grown",
    rss <= RSS_GROWTH_MB,
    `${rss.toFixed(0)} of ${RSS_GROWTH_MB} MB`,
  );
  checks.expect(
    "the event loop is in time",
    loopP99Ms <= LOOP_P99_MS,
    `p99 ${loopP99Ms.toFixed(1)} of ${LOOP_P99_MS} ms`,
  );
  checks.expect("Hangar on stdio ends with its client", stdioExit === 0, `${stdioExit}`);
  checks.expect(
    "Hangar on HTTP ends at SIGTERM",
    httpExit === 0,
    `${httpExit} after ${exitMs.toFixed(0)} ms`,
  );
  checks.expectNone("nothing is left", left);
  checks.expectNone(
    "Hangar's log tells of no defect",
    logs.split("\n").filter((line) => line.includes('"defect"')),
  );
  process.stdout.write(`\nsoak: ${checks.passed} checks passed, ${checks.failed} failed\n`);
  return checks.failed === 0 ? 0 : 1;
}

/** A number of the command line; undefined when it is none of those that may be. */
function numberIn(text: string, least: number, most: number): number | undefined {
  const value = Number(text);
  return text !== "" && value >= least && value <= most ? value : undefined;
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
  const minutes = numberIn(values.minutes, 0.1, MAX_MINUTES);
  const seed = numberIn(values.seed, 0, 2 ** 32 - 1);
  const providers = numberIn(values.providers, 1, MAX_PROVIDERS);
  if (values.help || minutes === undefined || seed === undefined || providers === undefined) {
    process.stdout.write(USAGE);
    return values.help ? 0 : 2;
  }
  process.stdout.write(`${minutes} minutes, seed ${seed}, ${providers} providers\n\n`);
  return await soak(minutes, seed, providers, values.json);
}

cleanUpOnSignals();
process.once("uncaughtException", (error) => {
  process.stderr.write(`${error.stack}\n`);
  void cleanUp().finally(() => {
    killLeftovers([]);
    process.exit(1);
  });
});
try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`);
  process.exitCode = 1;
} finally {
  await cleanUp();
  killLeftovers([]);
}
