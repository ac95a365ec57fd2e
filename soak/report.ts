/** From what was seen to tables, and to the verdict. */
import { percentile } from "../bench/report.ts";
import type { Holding } from "./census.ts";
import type { End } from "./judge.ts";
import type { Calls, FaultCounts } from "./load.ts";
import { boundMs, type Provider } from "./providers.ts";

/** What Hangar may have grown by since the warm-up, in MB. */
const HEAP_GROWTH_MB = 8;
const RSS_GROWTH_MB = 64;
/** How late Hangar's event loop may be in 99 of 100 turns, in milliseconds, on a machine that is too small for all this. */
const LOOP_P99_MS = 250;

/** The figures of one provider. */
export interface Row {
  readonly provider: string;
  /** Whether it can answer at all. */
  readonly answering: boolean;
  readonly calls: number;
  readonly answers: number;
  readonly cancelled: number;
  readonly errors: Readonly<Record<string, number>>;
  readonly p50Ms: number;
  readonly slowestMs: number;
  readonly boundMs: number;
  readonly starts: number;
}

/** What `calls` say of one provider. */
export function rowOf({ name, fault }: Provider, calls: Calls, starts: number): Row {
  const own = [...calls.values()].filter(({ order }) => order.provider === name);
  const errors: Record<string, number> = {};
  for (const { end } of own) {
    const code = end.kind === "error" ? end.code : end.kind;
    if (code !== "answer" && code !== "cancelled") errors[code] = (errors[code] ?? 0) + 1;
  }
  const answered = own.filter(({ end }) => end.kind === "answer").map(({ ms }) => ms);
  return {
    provider: name,
    answering: fault.answers,
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

/** All rows, in Markdown. */
export function tableOf(rows: readonly Row[]): string {
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

/** The figures of the Hangar on HTTP, and of the whole run. */
export interface Figures extends FaultCounts {
  readonly seed: number;
  readonly minutes: number;
  readonly calls: number;
  readonly executions: number;
  /** Of providers, for whatever reason. */
  readonly starts: number;
  /** After the warm-up and in the end, each time with nothing running. */
  readonly before: Holding;
  readonly after: Holding;
  readonly peakRssMb: number;
  readonly heapBeforeMb: number;
  readonly heapAfterMb: number;
  readonly loopP99Ms: number;
  readonly loopMaxMs: number;
  /** From SIGTERM. */
  readonly exitMs: number;
}

/** One line a figure. */
export function listOf(figures: Figures): string {
  return Object.entries(figures)
    .map(
      ([name, value]) => `${name}: ${typeof value === "object" ? JSON.stringify(value) : value}\n`,
    )
    .join("");
}

/** Whether nothing is held that was not held before. */
export function isBack(before: Holding, { zombies, descriptors }: Holding): boolean {
  return zombies === 0 && descriptors <= before.descriptors;
}

/** Says what holds and what does not, and counts. */
class Checks {
  passed = 0;
  failed = 0;

  expect(what: string, holds: boolean, found: string): void {
    if (holds) this.passed += 1;
    else this.failed += 1;
    process.stdout.write(`${holds ? "ok    " : "FAILED"} ${what}: ${found}\n`);
  }

  expectAtMost(what: string, value: number, limit: number, unit: string): void {
    this.expect(what, value <= limit, `${value.toFixed(1)} of ${limit} ${unit}`);
  }

  /** Holds when there are no problems; shows the first of them. */
  expectNone(what: string, problems: readonly string[]): void {
    this.expect(what, problems.length === 0, `${problems.length}`);
    for (const problem of problems.slice(0, 10)) process.stdout.write(`         ${problem}\n`);
  }
}

/** What was seen beside the figures. */
export interface Findings {
  readonly ends: readonly End[];
  /** Answers that came twice, or to nobody. */
  readonly strays: readonly string[];
  /** What the ledgers have against the ends. */
  readonly untrue: readonly string[];
  readonly cameToRest: boolean;
  /** Exit codes or signals; undefined of what did not end in time. */
  readonly exits: Readonly<Record<"stdio" | "http", number | NodeJS.Signals | undefined>>;
  /** Processes that outlived everything. */
  readonly left: readonly string[];
  /** Lines of Hangar's log that tell of a defect. */
  readonly defects: readonly string[];
}

/** Prints every check and the last line; gives the exit code. */
export function verdict(figures: Figures, rows: readonly Row[], findings: Findings): number {
  const checks = new Checks();
  const why = (kind: "lost" | "wrong"): string[] =>
    findings.ends.flatMap((end) => (end.kind === kind ? [end.why] : []));
  checks.expectNone("no call is without its end", why("lost"));
  checks.expectNone("no answer is wrong, and no error unknown", why("wrong"));
  checks.expectNone("no answer comes twice, or to nobody", findings.strays);
  checks.expectNone("nothing ran twice, elsewhere or against what was said", findings.untrue);
  for (const { provider, answering, calls, answers, slowestMs, boundMs: bound } of rows) {
    const what = answering ? "is answered" : "is called, and never answered";
    const isSo = calls > 0 && answers > 0 === answering;
    checks.expect(`${provider} ${what}`, isSo, `${answers} of ${calls}`);
    checks.expectAtMost(`${provider} is in time`, slowestMs, bound, "ms");
  }
  const { kills, stops, manualStarts, before, after } = figures;
  const disturbed = kills > 0 && stops > 0 && manualStarts > 0;
  const times = `${kills}, ${stops}, ${manualStarts} times`;
  checks.expect("providers were killed, stopped and started", disturbed, times);
  const rests = findings.cameToRest && after.processes === 0;
  checks.expect("nothing runs after the stops", rests, `${after.processes}`);
  const held = `${before.descriptors}, then ${after.descriptors}; ${after.zombies} zombies`;
  checks.expect("no descriptor more is open, and no zombie there", isBack(before, after), held);
  const heapMb = figures.heapAfterMb - figures.heapBeforeMb;
  checks.expectAtMost("the heap has not grown", heapMb, HEAP_GROWTH_MB, "MB");
  const rssMb = after.rssMb - before.rssMb;
  checks.expectAtMost("the memory has not grown", rssMb, RSS_GROWTH_MB, "MB");
  checks.expectAtMost("the event loop is in time, p99", figures.loopP99Ms, LOOP_P99_MS, "ms");
  const { stdio, http } = findings.exits;
  checks.expect("Hangar on stdio ends with its client", stdio === 0, `${stdio}`);
  checks.expect("Hangar on HTTP ends at SIGTERM", http === 0, `${http}`);
  checks.expectNone("nothing is left", findings.left);
  checks.expectNone("Hangar's log tells of no defect", findings.defects);
  process.stdout.write(`\nsoak: ${checks.passed} checks passed, ${checks.failed} failed\n`);
  return checks.failed === 0 ? 0 : 1;
}
