/** From measurements to the tables. Numbers are only ever compared within a round, because the machine is not the same in the next. */
import type { ArmName } from "./arms.ts";
import type { Workload } from "./workloads.ts";

/** One arm in one round; NaN is what the system or the arm does not tell. */
export interface Figures {
  readonly p50Us: number;
  readonly p99Us: number;
  readonly callsPerS: number;
  readonly cpuUs: number;
  readonly rssMb: number;
}

/** One arm under one workload: the figures of every round, or why there are none. */
export interface Cell {
  readonly workload: string;
  readonly arm: ArmName;
  readonly rounds: readonly Figures[];
  /** Set when a single answer was wrong or missing; figures count for nothing then. */
  readonly void?: string | undefined;
  /** True for what does not exist in the program under test. */
  readonly absent?: boolean | undefined;
}

interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

interface Comparison {
  readonly title: string;
  readonly base: ArmName;
  readonly digits: number;
  readonly of: (own: Figures, base: Figures) => number;
}

const ADDED: Comparison = {
  title: "added p50, µs",
  base: "direct-stdio",
  digits: 0,
  of: (own, base) => own.p50Us - base.p50Us,
};

function p50Ratio(base: ArmName): Comparison {
  return { title: `p50 ÷ ${base}`, base, digits: 2, of: (own, of) => own.p50Us / of.p50Us };
}

function rateRatio(base: ArmName): Comparison {
  const of = (own: Figures, other: Figures): number => own.callsPerS / other.callsPerS;
  return { title: `calls/s ÷ ${base}`, base, digits: 2, of };
}

function cpuRatio(base: ArmName): Comparison {
  return { title: `CPU ÷ ${base}`, base, digits: 2, of: (own, of) => own.cpuUs / of.cpuUs };
}

/** What is worth comparing: with one call under way how long it takes, with many how many there are, with large ones how the time grows. */
function comparisonsOf({ inFlight, weight }: Workload): readonly Comparison[] {
  if (inFlight > 1) {
    return [rateRatio("raw-http"), rateRatio("sdk-http"), cpuRatio("raw-http")];
  }
  if (weight === "small") return [ADDED, p50Ratio("raw-http"), p50Ratio("sdk-http")];
  return [ADDED, p50Ratio("direct-stdio"), p50Ratio("raw-http")];
}

/** One workload's table, in Markdown. */
export function tableOf(workload: Workload, cells: readonly Cell[]): string {
  const comparisons = comparisonsOf(workload);
  const titles = ["arm", "p50 µs", "p99 µs", "calls/s", "CPU µs/call", "RSS MB"];
  const header = [...titles, ...comparisons.map(({ title }) => title)];
  const rows = cells.map((cell) => {
    if (!hasFigures(cell)) {
      return [cell.arm, cell.absent ? "not there" : `void: ${oneLine(cell.void ?? "")}`];
    }
    const { rounds } = cell;
    return [
      cell.arm,
      number(median(rounds.map(({ p50Us }) => p50Us))),
      number(median(rounds.map(({ p99Us }) => p99Us))),
      number(median(rounds.map(({ callsPerS }) => callsPerS)), 0),
      number(median(rounds.map(({ cpuUs }) => cpuUs))),
      number(median(rounds.map(({ rssMb }) => rssMb)), 0),
      ...comparisons.map((comparison) => spreadText(compare(comparison, cell, cells), comparison)),
    ];
  });
  const lines = [header, header.map((_, column) => (column === 0 ? "---" : "---:")), ...rows];
  const body = lines.map((line) => {
    const padded = header.map((_, column) => line[column] ?? "");
    return `| ${padded.join(" | ")} |`;
  });
  return `### ${workload.id}: ${workload.title}\n\n${body.join("\n")}\n`;
}

/** The same in data: what every comparison of the table says, by its title. */
export function ratiosOf(
  workload: Workload,
  cell: Cell,
  cells: readonly Cell[],
): Record<string, Spread> {
  if (!hasFigures(cell)) return {};
  const entries = comparisonsOf(workload).flatMap((comparison): [string, Spread][] => {
    const spread = compare(comparison, cell, cells);
    return spread === undefined ? [] : [[comparison.title, spread]];
  });
  return Object.fromEntries(entries);
}

function hasFigures(cell: Cell): boolean {
  return cell.void === undefined && !cell.absent;
}

function compare({ base, of }: Comparison, cell: Cell, cells: readonly Cell[]): Spread | undefined {
  const other = cells.find(({ arm }) => arm === base);
  if (other === undefined || !hasFigures(other) || cell.arm === base) return undefined;
  const values = cell.rounds.map((own, round) => of(own, other.rounds[round] as Figures));
  if (values.some(Number.isNaN)) return undefined;
  return { median: median(values), min: Math.min(...values), max: Math.max(...values) };
}

function spreadText(spread: Spread | undefined, { digits }: Comparison): string {
  if (spread === undefined) return "";
  const { median: middle, min, max } = spread;
  return `${number(middle, digits)} (${number(min, digits)}–${number(max, digits)})`;
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  const upper = sorted[half] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[half - 1] ?? Number.NaN) + upper) / 2;
}

/** The value below which the share `p` of the sorted values lies. */
export function percentile(sorted: Float64Array, p: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))] ?? Number.NaN;
}

function number(value: number, digits = value < 100 ? 1 : 0): string {
  return Number.isNaN(value) ? "" : value.toFixed(digits);
}

function oneLine(text: string): string {
  return text.replaceAll(/\s+/g, " ").replaceAll("|", "\\|").slice(0, 200);
}
