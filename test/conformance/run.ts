/**
 * The official conformance suite, straight and through Hangar, compared check by check:
 *
 *   node test/conformance/run.ts [--only stdio-legacy,http-modern,…] [--markdown file]
 *
 * Hangar's front and the provider are of the same era. The suite speaks only HTTP, so what a provider on stdio
 * is compared with is the same server over HTTP.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { parse } from "yaml";
import { beside, run, scratchFolder, startFixture, startHangar } from "./programs.ts";

interface Kind {
  readonly name: string;
  readonly title: string;
  readonly era: "legacy" | "modern";
  readonly requirements: "2025-11-25" | "2026-07-28";
  readonly side: "server" | "client";
  readonly transport: "stdio" | "http";
}

const legacy = { era: "legacy", requirements: "2025-11-25" } as const;
const modern = { era: "modern", requirements: "2026-07-28" } as const;
const stdio = { side: "server", transport: "stdio" } as const;
const http = { side: "server", transport: "http" } as const;
const client = { side: "client", transport: "http" } as const;

export const kinds: readonly Kind[] = [
  { name: "stdio-legacy", title: "provider on stdio, legacy", ...legacy, ...stdio },
  { name: "stdio-modern", title: "provider on stdio, modern", ...modern, ...stdio },
  { name: "http-legacy", title: "provider on HTTP, legacy", ...legacy, ...http },
  { name: "http-modern", title: "provider on HTTP, modern", ...modern, ...http },
  { name: "client-legacy", title: "client, legacy", ...legacy, ...client },
  { name: "client-modern", title: "client, modern", ...modern, ...client },
];

/** A check that the suite has recorded. */
interface Check {
  readonly id: string;
  readonly status: "SUCCESS" | "FAILURE" | "WARNING" | "SKIPPED" | "INFO";
  readonly errorMessage?: string;
}

/** The checks of each scenario, in the order they were made. */
type Results = ReadonlyMap<string, readonly Check[]>;

/** An entry of expected.json: a check that may be lost, and why. */
interface Expected {
  readonly kind: string;
  readonly scenario: string;
  readonly check: string;
  readonly reason: string;
}

interface Lost {
  readonly scenario: string;
  readonly check: string;
  readonly message: string;
  /** Why that is so; a lost check without a reason is a problem. */
  readonly reason?: string;
}

interface Figures {
  /** Scored scenarios that pass. */
  readonly scenarios: number;
  /** Checks that succeed, of all scenarios. */
  readonly checks: number;
}

export interface Comparison {
  readonly kind: Kind;
  /** How many scenarios count for conformance. */
  readonly scored: number;
  readonly direct: Figures;
  readonly through: Figures;
  readonly lost: readonly Lost[];
  /** What is not as it must be; empty when all is well. */
  readonly problems: readonly string[];
}

const require = createRequire(import.meta.url);
const PACKAGE = require.resolve("@modelcontextprotocol/conformance/package.json");
const SUITE = join(dirname(PACKAGE), "dist", "index.js");
const SUITE_MS = 150_000;
/** For one scenario. On a busy machine all clients together need long to start; waiting changes no check. */
const SCENARIO_MS = 120_000;
/** The suite waits more than it computes; two at a time suit the smallest machine. */
const AT_ONCE = 2;

/** Runs the kinds of these names, or all. */
export async function compare(names?: readonly string[]): Promise<Comparison[]> {
  const chosen = kinds.filter(({ name }) => names?.includes(name) ?? true);
  const expected = JSON.parse(readFileSync(beside("expected.json"), "utf8")) as Expected[];
  const direct = new Map<string, Promise<Results>>();
  const baselineOf = (kind: Kind) => {
    const key = `${kind.side} ${kind.era}`;
    const known = direct.get(key) ?? runDirect(kind);
    direct.set(key, known);
    return known;
  };
  return await inTurns(AT_ONCE, chosen, async (kind) => {
    const own = expected.filter((entry) => entry.kind === kind.name);
    try {
      return judge(kind, await baselineOf(kind), await runThrough(kind), own);
    } catch (error) {
      // The other kinds still have something to say.
      return {
        ...judge(kind, new Map(), new Map(), []),
        problems: [`${kind.name}: ${String(error)}`],
      };
    }
  });
}

async function runDirect(kind: Kind): Promise<Results> {
  if (kind.side === "client") return await runClientScenarios(kind, "direct");
  const fixture = await startFixture(kind.era);
  try {
    return await runServerScenarios(kind, fixture.url);
  } finally {
    await fixture.stop();
  }
}

async function runThrough(kind: Kind): Promise<Results> {
  if (kind.side === "client") return await runClientScenarios(kind, "hangar");
  const fixture = kind.transport === "http" ? await startFixture(kind.era) : undefined;
  try {
    const command = [process.execPath, beside("fixture.ts"), "stdio", "--era", kind.era];
    const provider = fixture
      ? { mode: "remote", endpoint: fixture.url }
      : { mode: "subprocess", command };
    const hangar = await startHangar("conformance", provider);
    try {
      return await runServerScenarios(kind, hangar.url);
    } finally {
      await hangar.stop();
    }
  } finally {
    await fixture?.stop();
  }
}

function runServerScenarios(kind: Kind, url: string): Promise<Results> {
  return runSuite(kind, ["--url", url]);
}

/** The suite starts one client for each scenario, and all of them at once. */
function runClientScenarios(kind: Kind, via: "direct" | "hangar"): Promise<Results> {
  // It passes this to a shell, with the address after it. What a client does for OAuth ends at Hangar, which
  // has its own tests for that; and `exec` lets the suite's time limit reach the client.
  const unlessOauth = "case $MCP_CONFORMANCE_SCENARIO in auth/*) exit;; esac;";
  const start = `exec "${process.execPath}" "${beside("client.ts")}" ${via}`;
  return runSuite(kind, ["--command", `${unlessOauth} ${start}`]);
}

async function runSuite({ side, requirements }: Kind, how: readonly string[]): Promise<Results> {
  const folder = scratchFolder();
  try {
    const limit = ["--timeout", String(SCENARIO_MS)];
    const what = [side, "--requirements", requirements, "-o", folder.path, ...limit];
    const { output } = await run([SUITE, ...what, ...how], SUITE_MS);
    const results = readResults(folder.path, side === "server" ? "server-" : "");
    if (results.size === 0) throw new Error(`the suite recorded nothing:\n${output}`);
    return results;
  } finally {
    folder.remove();
  }
}

/** The scenarios that count for conformance. */
function scoredScenarios({ requirements, side }: Kind): string[] {
  const file = join(dirname(PACKAGE), "requirements", `${requirements}.yaml`);
  const set = parse(readFileSync(file, "utf8")) as Record<Kind["side"], string[]>;
  return set[side].filter((scenario) => !scenario.startsWith("auth/"));
}

/** Reads `<prefix><scenario>-<time>/checks.json`. */
function readResults(folder: string, prefix: string): Results {
  const results = new Map<string, Check[]>();
  for (const name of readdirSync(folder)) {
    const scenario = /^(.+)-\d{4}-\d\d-\d\dT[\d-]+Z$/.exec(name)?.[1]?.slice(prefix.length);
    const file = join(folder, name, "checks.json");
    if (scenario === undefined || !existsSync(file)) continue;
    results.set(scenario, JSON.parse(readFileSync(file, "utf8")) as Check[]);
  }
  return results;
}

function judge(
  kind: Kind,
  before: Results,
  after: Results,
  expected: readonly Expected[],
): Comparison {
  const scored = scoredScenarios(kind);
  const reasonFor = (scenario: string, check: string) =>
    expected.find((entry) => entry.scenario === scenario && entry.check === check)?.reason;
  const lost = findLost(before, after).map((entry) => {
    const reason = reasonFor(entry.scenario, entry.check);
    return reason === undefined ? entry : { ...entry, reason };
  });
  const direct = count(before, scored);
  const problems = [
    ...lost
      .filter(({ reason }) => reason === undefined)
      .map(({ scenario, check, message }) => `lost: ${scenario} ${check}: ${message}`),
    ...expected
      .filter(
        ({ scenario, check }) => !lost.some((l) => l.scenario === scenario && l.check === check),
      )
      .map(({ scenario, check }) => `expected to be lost, but is not: ${scenario} ${check}`),
    // Without these two, a comparison of nothing with nothing would be perfect.
    ...(direct.checks === 0 ? ["no check at all"] : []),
    ...scored
      .filter((scenario) => !passes(before.get(scenario)))
      .map((scenario) => `does not pass even directly: ${scenario}`),
  ];
  return {
    kind,
    scored: scored.length,
    direct,
    through: count(after, scored),
    lost,
    problems: problems.map((problem) => `${kind.name}: ${problem}`),
  };
}

/** What succeeds directly and not through Hangar, and what fails only through it. */
function findLost(before: Results, after: Results): Lost[] {
  const lost: Lost[] = [];
  for (const scenario of new Set([...before.keys(), ...after.keys()])) {
    const direct = byOccurrence(before.get(scenario) ?? []);
    const through = byOccurrence(after.get(scenario) ?? []);
    for (const key of new Set([...direct.keys(), ...through.keys()])) {
      const [was, is] = [direct.get(key), through.get(key)];
      const isLost = was?.status === "SUCCESS" && is?.status !== "SUCCESS";
      if (!isLost && (fails(was) || !fails(is))) continue;
      const message = is?.errorMessage ?? is?.status ?? "not made";
      lost.push({ scenario, check: (was ?? is)?.id ?? key, message });
    }
  }
  return lost;
}

/** The same check can be made several times in one scenario. */
function byOccurrence(checks: readonly Check[]): Map<string, Check> {
  const seen = new Map<string, number>();
  return new Map(
    checks.map((check) => {
      const nth = (seen.get(check.id) ?? 0) + 1;
      seen.set(check.id, nth);
      return [`${check.id} ${nth}`, check];
    }),
  );
}

function fails(check: Check | undefined): boolean {
  return check?.status === "FAILURE" || check?.status === "WARNING";
}

function passes(checks: readonly Check[] = []): boolean {
  return checks.some(({ status }) => status === "SUCCESS") && !checks.some(fails);
}

function count(results: Results, scored: readonly string[]): Figures {
  return {
    scenarios: scored.filter((scenario) => passes(results.get(scenario))).length,
    checks: [...results.values()].flat().filter(({ status }) => status === "SUCCESS").length,
  };
}

/** Does the work on every item, on `limit` of them at a time; the results are in the order of the items. */
async function inTurns<T, R>(
  limit: number,
  items: readonly T[],
  work: (item: T) => Promise<R>,
): Promise<R[]> {
  const results: R[] = [];
  const waiting = [...items.entries()];
  const worker = async () => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      results[next[0]] = await work(next[1]);
    }
  };
  await Promise.all(Array.from({ length: limit }, worker));
  return results;
}

/** The page for the documentation; the same results give the same text. */
export function renderPage(comparisons: readonly Comparison[]): string {
  const rows = comparisons.map(({ kind, scored, direct, through, lost }) => {
    const scenarios = `${direct.scenarios} / ${through.scenarios} of ${scored}`;
    const checks = `${direct.checks} / ${through.checks}`;
    return `| ${kind.title} | ${kind.requirements} | ${scenarios} | ${checks} | ${lost.length} |`;
  });
  const reasons = comparisons.flatMap(({ kind, lost }) =>
    lost.map(
      ({ scenario, check, reason }) =>
        `| ${kind.title} | \`${scenario}\` | \`${check}\` | ${reason ?? "**unexplained**"} |`,
    ),
  );
  const { version } = JSON.parse(readFileSync(PACKAGE, "utf8")) as { version: string };
  return [
    "<!-- Generated by test/conformance/run.ts --markdown; do not edit. -->",
    "# Conformance",
    "",
    `The official suite, \`@modelcontextprotocol/conformance\` ${version}, is run twice: against a server directly, and against`,
    "the same server as a provider of Hangar, at `/mcp/<name>`. Every check is compared, not only the number that pass: a check",
    "that succeeds directly must succeed through Hangar. Client and provider are of the same era. In the last two rows the suite",
    "tests a client, and Hangar stands between that client and the suite's servers; the `auth/*` scenarios are left out there.",
    "",
    "| Behind Hangar | Requirements | Scored scenarios, direct / through | Checks, direct / through | Lost |",
    "|---|---|---|---|---|",
    ...rows,
    "",
    ...(reasons.length === 0
      ? ["No check is lost."]
      : ["| Behind Hangar | Scenario | Check lost | Why |", "|---|---|---|---|", ...reasons]),
    "",
  ].join("\n");
}

function describe({ kind, scored, direct, through, lost }: Comparison): string {
  const scenarios = `${direct.scenarios} → ${through.scenarios} of ${scored} scored scenarios`;
  const checks = `${direct.checks} → ${through.checks} checks`;
  return `${kind.name}: ${scenarios}, ${checks}, ${lost.length} lost\n`;
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: { only: { type: "string" }, markdown: { type: "string" } },
  });
  const only = values.only?.split(",");
  const unknown = only?.filter((name) => !kinds.some((kind) => kind.name === name)) ?? [];
  if (unknown.length > 0) throw new Error(`no kind ${unknown.join(", ")}`);
  const comparisons = await compare(only);
  const problems = comparisons.flatMap((comparison) => comparison.problems);
  process.stdout.write(comparisons.map(describe).join(""));
  process.stdout.write(problems.map((problem) => `${problem}\n`).join(""));
  if (values.markdown !== undefined) writeFileSync(values.markdown, renderPage(comparisons));
  if (problems.length > 0) process.exitCode = 1;
}
