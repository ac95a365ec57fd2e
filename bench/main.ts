/**
 * `npm run bench`: how long a call takes through Hangar, beside other ways to the same echo, on this machine, in this
 * minute. The machine decides the times, so read the ratios.
 */
import { writeFileSync } from "node:fs";
import { availableParallelism, cpus, loadavg } from "node:os";
import { parseArgs } from "node:util";
import { type Arm, type ArmName, ARMS, type ArmOptions } from "./arms.ts";
import { cleanUp, cleanUpOnSignals, cpuUs, isEnding, rssMb } from "./children.ts";
import { Checker, drive } from "./load.ts";
import { type Cell, type Figures, percentile, ratiosOf, tableOf } from "./report.ts";
import { type Effort, EFFORTS, type Workload, WORKLOADS } from "./workloads.ts";

const USAGE = `npm run bench -- [options]
  --quick           3 short rounds instead of 7
  --only <id>       one workload: ${WORKLOADS.map(({ id }) => id).join(", ")}
  --json <file>     write every figure of every round, too
  --cpu-prof <dir>  write CPU profiles of Hangar there (and measure slower times)
`;

/** Starts all arms, once for the whole run; the largest messages come last, so that memory tells of all before. */
function startArms(options: ArmOptions): Promise<Entrant[]> {
  const starts = Object.entries(ARMS).map(async ([name, start]) => ({
    name: name as ArmName,
    arm: await start(options),
  }));
  return Promise.all(starts);
}

interface Entrant {
  readonly name: ArmName;
  /** Undefined for what does not exist. */
  readonly arm: Arm | undefined;
}

/** Every arm once in each round, each round beginning with another one. */
async function runWorkload(
  workload: Workload,
  effort: Effort,
  entrants: readonly Entrant[],
): Promise<Cell[]> {
  const rounds = new Map(entrants.map(({ name }) => [name, [] as Figures[]]));
  const voids = new Map<ArmName, string>();
  for (let round = 0; round < effort.rounds; round++) {
    const first = round % entrants.length;
    const warmUp = round === 0 ? effort.warmUp : effort.warmAgain;
    for (const { name, arm } of [...entrants.slice(first), ...entrants.slice(0, first)]) {
      if (arm === undefined || voids.has(name)) continue;
      try {
        rounds.get(name)?.push(await measure(arm, workload, warmUp, effort.measured));
      } catch (error) {
        voids.set(name, (error as Error).message);
      }
    }
  }
  return entrants.map(({ name, arm }) => ({
    workload: workload.id,
    arm: name,
    rounds: rounds.get(name) ?? [],
    void: voids.get(name),
    absent: arm === undefined,
  }));
}

async function measure(
  arm: Arm,
  { textBytes, inFlight, weight }: Workload,
  warmUp: Effort["warmUp"],
  measured: Effort["measured"],
): Promise<Figures> {
  const link = await arm.open(inFlight);
  try {
    const newFrame = arm.call(textBytes);
    const checker = new Checker(textBytes);
    await drive(link, newFrame, checker, warmUp[weight]);
    const pid = arm.gateway?.pid;
    const before = pid === undefined ? Number.NaN : cpuUs(pid);
    const { us, elapsedMs } = await drive(link, newFrame, checker, measured[weight]);
    return {
      p50Us: percentile(us, 0.5),
      p99Us: percentile(us, 0.99),
      callsPerS: (us.length / elapsedMs) * 1_000,
      cpuUs: pid === undefined ? Number.NaN : (cpuUs(pid) - before) / us.length,
      rssMb: pid === undefined ? Number.NaN : rssMb(pid),
    };
  } finally {
    link.close();
  }
}

function conditions(rounds: number): Record<string, string | number> {
  return {
    date: new Date().toISOString(),
    node: process.version,
    cores: availableParallelism(),
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    load: loadavg()
      .map((load) => load.toFixed(2))
      .join(" "),
    rounds,
  };
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      quick: { type: "boolean", default: false },
      smoke: { type: "boolean", default: false },
      only: { type: "string" },
      json: { type: "string" },
      "cpu-prof": { type: "string" },
      help: { type: "boolean", default: false },
    },
  });
  const workloads = WORKLOADS.filter(({ id }) => values.only === undefined || id === values.only);
  if (values.help || workloads.length === 0) {
    process.stdout.write(USAGE);
    return values.help ? 0 : 2;
  }
  const effort = EFFORTS[values.smoke ? "smoke" : values.quick ? "quick" : "full"];
  const head = conditions(effort.rounds);
  const facts = Object.entries(head).map(([name, value]) => `${name} ${value}`);
  process.stdout.write(`${facts.join(" · ")}\n`);
  process.stdout.write("Medians of the rounds; comparisons within a round, with least and most.\n");

  const entrants = await startArms({ profiles: values["cpu-prof"] });
  const report = [];
  for (const workload of workloads) {
    const cells = await runWorkload(workload, effort, entrants);
    if (isEnding()) return 1;
    process.stdout.write(`\n${tableOf(workload, cells)}`);
    for (const cell of cells) report.push({ ...cell, ratios: ratiosOf(workload, cell, cells) });
  }
  if (values.json !== undefined) {
    writeFileSync(values.json, `${JSON.stringify({ ...head, cells: report }, null, 2)}\n`);
  }
  // A measurement that went wrong is no success, whatever the other cells say.
  return report.some((cell) => cell.void !== undefined) ? 1 : 0;
}

cleanUpOnSignals();
try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`);
  process.exitCode = 1;
} finally {
  await cleanUp();
}
