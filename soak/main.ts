/**
 * `npm run soak`: many clients call many providers, each with faults of its own, while processes are killed and
 * providers stopped and started at random. At the end every call must have had exactly one end of its own, nothing
 * may have run twice, and Hangar must be as it was before.
 */
import { randomUUID } from "node:crypto";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { type Child, cleanUp, newFolder, rssMb, startNode } from "../bench/children.ts";
import { ERRORS } from "../src/errors.ts";
import { findProcesses } from "../test/processes.ts";
import { Client, messagesIn } from "./client.ts";
import { BIN, planProviders, type ProviderPlan, REMOTE_FAULTS } from "./providers.ts";

const USAGE = `npm run soak -- [options]
  --minutes <n>    how long (1)
  --providers <n>  providers on stdio (12); the remote ones come on top
  --clients <n>    clients at once (8)
  --seed <n>       for the same sequence of calls and faults
  --json <file>    write the figures, too
`;

/** No call may take longer than its deadline and this, in milliseconds: Hangar, the network and a busy machine. */
const SLACK_MS = 5_000;
const DEADLINE_MS = 10_000;
/** Shortest and longest time between two faults, in milliseconds. */
const FAULT_MS = [150, 900] as const;
/** What Hangar may hold more than before the load, in MB: a heap that grew, and stays so for a while. */
const MEMORY_SLACK_MB = 60;
/** How long everything may take to come to rest, and Hangar to end, in milliseconds. */
const REST_MS = 20_000;
const EXIT_MS = 15_000;
const STEP_MS = 100;

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "1" },
    providers: { type: "string", default: "12" },
    clients: { type: "string", default: "8" },
    seed: { type: "string", default: String(Date.now() % 1_000_000) },
    json: { type: "string" },
    help: { type: "boolean", default: false },
  },
});

/** A generator of numbers in [0, 1) that gives the same ones for the same seed (mulberry32). */
function chanceOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

interface Tally {
  calls: number;
  /** Ends, by what they were: `answered`, `left`, or the code of an error. */
  readonly ends: Map<string, number>;
  slowestMs: number;
}

/** Everything that is counted. */
class Figures {
  readonly byFault = new Map<string, Tally>();
  readonly faults = { killed: 0, stopped: 0, started: 0 };
  /** Keys of `count` calls that were answered, and of all. */
  readonly answered = new Set<string>();
  readonly counted = new Set<string>();
  /** What must not happen, in words. */
  readonly wrong: string[] = [];

  end(fault: string, what: string, ms: number): void {
    let tally = this.byFault.get(fault);
    if (tally === undefined) {
      tally = { calls: 0, ends: new Map(), slowestMs: 0 };
      this.byFault.set(fault, tally);
    }
    tally.calls++;
    tally.ends.set(what, (tally.ends.get(what) ?? 0) + 1);
    tally.slowestMs = Math.max(tally.slowestMs, ms);
  }

  get calls(): number {
    return [...this.byFault.values()].reduce((sum, { calls }) => sum + calls, 0);
  }

  ended(what: string): number {
    return [...this.byFault.values()].reduce((sum, { ends }) => sum + (ends.get(what) ?? 0), 0);
  }
}

interface Place {
  readonly era: "legacy" | "modern";
  /** Through Hangar's own tools, or at the provider's own address. */
  readonly relayed: boolean;
}

/** One client that calls one provider after the other until it is told to stop. */
async function work(
  client: Client,
  { era, relayed }: Place,
  plans: readonly ProviderPlan[],
  chance: () => number,
  figures: Figures,
  stop: AbortSignal,
): Promise<void> {
  while (!stop.aborted) {
    const plan = plans[Math.floor(chance() * plans.length)] as ProviderPlan;
    const payload = randomUUID();
    const roll = chance();
    const [tool, args] =
      roll < 0.6
        ? (["echo", { payload }] as const)
        : roll < 0.8
          ? (["count", { key: payload }] as const)
          : (["sleep", { ms: Math.floor(chance() * 200) }] as const);
    if (tool === "count") figures.counted.add(payload);
    const leaveMs = chance() < 0.05 ? Math.floor(chance() * 60) : undefined;
    const own = { name: tool, arguments: args };
    const params = relayed
      ? own
      : { name: "registry_invoke", arguments: { provider: plan.name, tool, arguments: args } };
    const path = relayed ? `/mcp/${plan.name}` : "/mcp";
    const began = performance.now();
    try {
      const ended = await client.call(path, params, DEADLINE_MS + SLACK_MS, leaveMs);
      const what =
        ended.kind === "left" ? "left" : verdictOn(ended.text, ended.id, tool, payload, era);
      figures.end(plan.fault, what, performance.now() - began);
      if (what === "answered" && tool === "count") figures.answered.add(payload);
      if (what.startsWith("wrong")) figures.wrong.push(`${plan.name} ${tool}: ${what}`);
    } catch (error) {
      figures.end(plan.fault, "lost", performance.now() - began);
      figures.wrong.push(`${plan.name} ${tool} (${era}, ${path}): ${(error as Error).message}`);
    }
  }
}

/** `answered`, the code of an error, or `wrong: ...`. */
function verdictOn(text: string, id: number, tool: string, payload: string, era: string): string {
  const answers = messagesIn(text).filter((message) => "result" in message || "error" in message);
  const [answer] = answers;
  if (answer === undefined || answers.length > 1) {
    return `wrong: ${answers.length} answers in ${text.slice(0, 200)}`;
  }
  const { result, error } = answer;
  const code = error?.data?.code ?? result?.structuredContent?.code;
  if (typeof code === "string") return code in ERRORS ? code : `wrong: error code ${code}`;
  if (answer["id"] !== id) return `wrong: id ${answer["id"]} instead of ${id}`;
  const got = result?.structuredContent;
  const fits =
    tool === "echo"
      ? got?.payload === payload
      : tool === "count"
        ? got?.key === payload
        : got?.slept_ms >= 0;
  return fits ? "answered" : `wrong (${era}): ${text.slice(0, 300)}`;
}

/** Kills, stops and starts at random. */
async function disturb(
  hangar: Child,
  control: Client,
  plans: readonly ProviderPlan[],
  marker: string,
  chance: () => number,
  figures: Figures,
  stop: AbortSignal,
): Promise<void> {
  const tool = async (name: string, provider: string): Promise<void> => {
    await control.call("/mcp", { name, arguments: { provider } }, REST_MS).catch((error: Error) => {
      figures.wrong.push(`${name} ${provider}: ${error.message}`);
    });
  };
  while (!stop.aborted) {
    await sleep(FAULT_MS[0] + chance() * (FAULT_MS[1] - FAULT_MS[0]));
    const plan = plans[Math.floor(chance() * plans.length)] as ProviderPlan;
    const roll = chance();
    if (roll < 0.5) {
      const all = findProcesses(`SOAK=${marker}`).filter(({ pid }) => pid !== hangar.pid);
      const victim = all[Math.floor(chance() * all.length)];
      if (victim === undefined) continue;
      try {
        process.kill(victim.pid, "SIGKILL");
        figures.faults.killed++;
      } catch {
        // it ended by itself meanwhile
      }
    } else if (roll < 0.75) {
      figures.faults.stopped++;
      await tool("registry_stop", plan.name);
    } else {
      figures.faults.started++;
      await tool("registry_start", plan.name);
    }
  }
}

/** What a process holds: descriptors, children that have ended and were not waited for. */
function holdings(pid: number): { fds: number; zombies: number } {
  const children = readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map((name) => statOf(name))
    .filter((stat) => stat !== undefined && stat.parent === pid);
  return {
    fds: readdirSync(`/proc/${pid}/fd`).length,
    zombies: children.filter((stat) => stat?.state === "Z").length,
  };
}

function statOf(pid: string): { state: string; parent: number } | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const [state = "", parent = ""] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return { state, parent: Number(parent) };
  } catch {
    return undefined;
  }
}

/** Stops every provider and waits until nothing of them is left. */
async function rest(
  control: Client,
  plans: readonly ProviderPlan[],
  marker: string,
): Promise<number> {
  await Promise.all(
    plans.map(({ name }) =>
      control.call("/mcp", { name: "registry_stop", arguments: { provider: name } }, REST_MS),
    ),
  );
  for (
    let waited = 0;
    waited < REST_MS && findProcesses(`SOAK=${marker}`).length > 0;
    waited += STEP_MS
  ) {
    await sleep(STEP_MS);
  }
  return findProcesses(`SOAK=${marker}`).length;
}

/** Looks at how soon the running Hangar answers what costs it nothing; the times in milliseconds. */
async function watchLatency(port: number, stop: AbortSignal): Promise<number[]> {
  const times: number[] = [];
  while (!stop.aborted) {
    const began = performance.now();
    // A connection of its own each time: one that stays open would be a descriptor of Hangar's.
    const headers = { connection: "close" };
    await fetch(`http://127.0.0.1:${port}/health/live`, { headers }).then((live) => live.text());
    times.push(performance.now() - began);
    await sleep(STEP_MS);
  }
  return times.toSorted((a, b) => a - b);
}

interface Check {
  readonly name: string;
  readonly passed: boolean;
  readonly found: string;
}

async function soak(): Promise<boolean> {
  const seed = Number(values.seed);
  const minutes = Number(values.minutes);
  const chance = chanceOf(seed);
  const folder = newFolder();
  const ledger = join(folder, "ledger");
  const marker = randomUUID();
  const servers = Object.entries(REMOTE_FAULTS).map(async ([fault, flags]) => {
    const server = startNode(BIN, "chaos-server", "--http", "0", "--ledger", ledger, ...flags);
    return [fault, `http://127.0.0.1:${await server.port()}/mcp`] as const;
  });
  const endpoints = Object.fromEntries(await Promise.all(servers));
  const plans = planProviders({ count: Number(values.providers), ledger, marker, endpoints });
  const config = join(folder, "config.yaml");
  const providers = Object.fromEntries(plans.map((plan) => [plan.name, plan.config]));
  writeFileSync(config, JSON.stringify({ providers, logging: { level: "error" } }));
  const flags = ["--http", "--host", "127.0.0.1", "--port", "0"];
  const hangar = startNode(
    BIN,
    "serve",
    ...flags,
    "--config",
    config,
    "--state-dir",
    join(folder, "state"),
  );
  const port = await hangar.port();
  const control = new Client(port, "modern");
  process.stdout.write(`soak: ${plans.length} providers, ${minutes} min, seed ${seed}\n`);

  // The first round is no part of it: everything has been loaded and started once, then.
  const figures = new Figures();
  const warm = new Figures();
  const warming = new AbortController();
  const run = (into: Figures, stop: AbortSignal): Promise<unknown> =>
    Promise.all(
      Array.from({ length: Number(values.clients) }, async (_, n) => {
        const place = { era: n % 2 === 0 ? "legacy" : "modern", relayed: n % 4 > 1 } as const;
        const client = new Client(port, place.era);
        // A provider of the other era cannot be seen directly; the chaos servers speak both, and are asked for the modern one.
        const reached = place.relayed
          ? plans.filter(({ fault }) => (fault === "forgetful") === (place.era === "legacy"))
          : plans;
        await work(client, place, reached, chance, into, stop);
        client.close();
      }),
    );
  setTimeout(() => warming.abort(), 10_000);
  await run(warm, warming.signal);
  await rest(control, plans, marker);
  const before = { ...holdings(hangar.pid), rssMb: rssMb(hangar.pid) };

  const stop = new AbortController();
  setTimeout(() => stop.abort(), minutes * 60_000);
  const latency = watchLatency(port, stop.signal);
  const disturbed = disturb(hangar, control, plans, marker, chance, figures, stop.signal);
  let peakMb = 0;
  const watching = setInterval(() => (peakMb = Math.max(peakMb, rssMb(hangar.pid))), STEP_MS);
  await Promise.all([run(figures, stop.signal), disturbed, latency]);
  clearInterval(watching);
  const left = await rest(control, plans, marker);
  const settled = async (): Promise<boolean> => {
    for (let waited = 0; waited < REST_MS; waited += STEP_MS) {
      const { fds, zombies } = holdings(hangar.pid);
      if (fds <= before.fds && zombies === 0) return true;
      await sleep(STEP_MS);
    }
    return false;
  };
  const isSettled = await settled();
  const after = { ...holdings(hangar.pid), rssMb: rssMb(hangar.pid) };
  control.close();
  const exitBegan = performance.now();
  const ending = hangar.stop();
  const ended = await Promise.race([ending.then(() => true), sleep(EXIT_MS, false)]);
  const exitMs = performance.now() - exitBegan;
  const orphans = findProcesses(`SOAK=${marker}`).length;

  const ran = new Map<string, number>();
  for (const line of existsSync(ledger) ? readFileSync(ledger, "utf8").trim().split("\n") : []) {
    const { tool, key } = JSON.parse(line) as { tool: string; key: string };
    if (tool === "count") ran.set(key, (ran.get(key) ?? 0) + 1);
  }
  const twice = [...ran].filter(([key, times]) => times > 1 && figures.counted.has(key));
  const never = [...figures.answered].filter((key) => !ran.has(key));
  const { killed, stopped, started } = figures.faults;
  const times = await latency;
  const p99 = times[Math.floor(times.length * 0.99)] ?? Number.NaN;
  const slowest = Math.max(...[...figures.byFault.values()].map(({ slowestMs }) => slowestMs));

  const checks: Check[] = [
    {
      name: "calls were made, and most kinds of end were seen",
      passed: figures.ended("answered") > 100 && figures.ended("provider_exited") > 0,
      found: `${figures.calls} calls, ${figures.ended("answered")} answered`,
    },
    {
      name: "faults happened",
      passed: killed > 0 && stopped > 0 && started > 0,
      found: `${killed} kills, ${stopped} stops, ${started} starts`,
    },
    {
      name: "no answer was lost, doubled, or another call's",
      passed: figures.wrong.length === 0,
      found: figures.wrong.slice(0, 5).join("; ") || "none",
    },
    {
      name: "no call took longer than its deadline allows",
      passed: slowest < DEADLINE_MS + SLACK_MS,
      found: `${Math.round(slowest)} ms at most`,
    },
    {
      name: "nothing ran twice",
      passed: twice.length === 0 && ran.size > 0,
      found: `${twice.length} of ${ran.size}`,
    },
    {
      name: "nothing was answered that did not run",
      passed: never.length === 0,
      found: `${never.length} of ${figures.answered.size}`,
    },
    { name: "no process is left of stopped providers", passed: left === 0, found: String(left) },
    {
      name: "descriptors are what they were, and nobody is a zombie",
      passed: isSettled,
      found: `${before.fds} before, ${after.fds} after, ${after.zombies} zombies`,
    },
    {
      name: "memory is what it was",
      passed: after.rssMb < before.rssMb + MEMORY_SLACK_MB,
      found: `${Math.round(before.rssMb)} MB before, ${Math.round(peakMb)} at most, ${Math.round(after.rssMb)} after`,
    },
    {
      name: "Hangar ends in time, and nothing of it is left",
      passed: ended && orphans === 0,
      found: `${Math.round(exitMs)} ms, ${orphans} processes`,
    },
  ];
  report(figures, checks, { p99, worst: times.at(-1) ?? Number.NaN });
  if (values.json !== undefined) {
    const byFault = Object.fromEntries(
      [...figures.byFault].map(([fault, { calls, ends, slowestMs }]) => [
        fault,
        { calls, slowestMs, ends: Object.fromEntries(ends) },
      ]),
    );
    writeFileSync(
      values.json,
      `${JSON.stringify({ seed, minutes, byFault, faults: figures.faults, before, after, peakMb, latencyP99Ms: p99, checks }, null, 2)}\n`,
    );
  }
  const passed = checks.filter((check) => check.passed).length;
  process.stdout.write(`soak: ${passed} checks passed, ${checks.length - passed} failed\n`);
  return passed === checks.length;
}

function report(
  figures: Figures,
  checks: readonly Check[],
  health: { p99: number; worst: number },
): void {
  const rows = [...figures.byFault]
    .toSorted(([a], [b]) => a.localeCompare(b))
    .map(([fault, { calls, ends, slowestMs }]) => {
      const by = [...ends]
        .toSorted(([, a], [, b]) => b - a)
        .map(([what, times]) => `${what} ${times}`);
      return `| ${fault} | ${calls} | ${by.join(", ")} | ${Math.round(slowestMs)} |`;
    });
  const lines = [
    "| what is wrong with the provider | calls | how they ended | slowest, ms |",
    "|---|---|---|---|",
    ...rows,
    "",
    `/health/live meanwhile: p99 ${health.p99.toFixed(1)} ms, at worst ${health.worst.toFixed(1)} ms`,
    "",
    ...checks.map(({ name, passed, found }) => `${passed ? "ok    " : "FAILED"} ${name}: ${found}`),
  ];
  process.stdout.write(`${lines.join("\n")}\n`);
}

if (values.help) process.stdout.write(USAGE);
else {
  try {
    process.exitCode = (await soak()) ? 0 : 1;
  } finally {
    await cleanUp();
  }
}
