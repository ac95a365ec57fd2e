/**
 * `npm run check`: everything a change must pass, for developers and CI alike.
 * A step that found nothing to look at has failed. The last line is "N passed, N failed",
 * where every test counts as one, and so does every other step.
 */
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";

const root = join(import.meta.dirname, "..");
const scratch = mkdtempSync(join(tmpdir(), "hangar-check-"));
const STEP_LIMIT_MS = 20 * 60_000;

interface Verdict {
  readonly passed: number;
  readonly failed: number;
  readonly note: string;
}

interface Step {
  readonly name: string;
  /** Steps without which this one cannot run. */
  readonly needs?: readonly Step[];
  run(): Promise<Verdict>;
}

interface Finished {
  readonly code: number;
  readonly output: string;
}

interface RunOptions {
  /** Show the output while it comes, instead of only when the step has failed. */
  readonly live?: boolean;
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
}

/** Runs one program to its end without a terminal on stdin, and with the project's own tools and Node first on PATH. */
function run(
  command: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<Finished> {
  const { promise, resolve } = Promise.withResolvers<Finished>();
  const path = [
    join(root, "node_modules", ".bin"),
    dirname(process.execPath),
    process.env["PATH"] ?? "",
  ];
  const child = spawn(command, args, {
    cwd: options.cwd ?? root,
    env: {
      ...process.env,
      ...(options.live ? {} : { NO_COLOR: "1" }),
      ...options.env,
      PATH: path.join(delimiter),
    },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: STEP_LIMIT_MS,
  });
  const chunks: Buffer[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk: Buffer) => {
      chunks.push(chunk);
      if (options.live) process.stdout.write(chunk);
    });
  }
  child.on("error", (error) => resolve({ code: 1, output: `${command}: ${error.message}\n` }));
  child.on("close", (code, signal) => {
    if (signal !== null) chunks.push(Buffer.from(`${command} was ended by ${signal}\n`));
    resolve({ code: code ?? 1, output: Buffer.concat(chunks).toString("utf8") });
  });
  return promise;
}

function pass(note: string): Verdict {
  return { passed: 1, failed: 0, note };
}

function fail(note: string, output = ""): Verdict {
  if (output !== "") process.stdout.write(`${output.trimEnd()}\n`);
  return { passed: 0, failed: 1, note };
}

/** Passes when the program exited with 0 and says it looked at something: `count` finds that number in its output. */
function judge(finished: Finished, what: string, count: (output: string) => number): Verdict {
  if (finished.code !== 0) return fail(`exit code ${finished.code}`, finished.output);
  const seen = count(finished.output);
  return seen > 0 ? pass(`${seen} ${what}`) : fail(`saw no ${what}`, finished.output);
}

function numberIn(pattern: RegExp): (output: string) => number {
  return (output) => Number(pattern.exec(output)?.[1] ?? 0);
}

/** Our own files in a compiler's file listing. */
function ownFiles(output: string): number {
  return output
    .split("\n")
    .filter((line) => line.startsWith(root) && !line.includes("node_modules")).length;
}

async function findDeadCode(...args: string[]): Promise<Verdict> {
  const reporters = ["--reporter", "symbols", "--reporter", "./scripts/knip-count.ts"];
  const finished = await run("knip", ["--no-progress", ...reporters, ...args]);
  return judge(finished, "files", numberIn(/^Read (\d+) files$/m));
}

/** The part of vitest's JSON report that is counted. */
interface TestReport {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numPendingTests: number;
  readonly numTodoTests: number;
}

async function runTests(): Promise<Verdict> {
  const file = join(scratch, "tests.json");
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${file}`];
  const { code } = await run("npm", ["test", "--", ...reporters], { live: true });
  if (!existsSync(file)) return fail("the test run left no report");
  const report = JSON.parse(readFileSync(file, "utf8")) as TestReport;
  const skipped = report.numPendingTests + report.numTodoTests;
  const total = report.numPassedTests + report.numFailedTests;
  if (total === 0) return fail("saw no tests");
  // Skipped tests, and errors outside any test (a leaked process, a file that does not load), are one failure more.
  const besides = skipped > 0 || (code !== 0 && report.numFailedTests === 0) ? 1 : 0;
  const note = [`${report.numPassedTests} of ${total + skipped} tests`];
  if (skipped > 0) note.push(`${skipped} skipped`);
  if (code !== 0) note.push(`exit code ${code}`);
  return {
    passed: report.numPassedTests,
    failed: report.numFailedTests + besides,
    note: note.join(", "),
  };
}

/** The one tarball that all packaging steps look at, and its path once it is there. */
let tarball = "";

async function pack(): Promise<Verdict> {
  const finished = await run("npm", [
    "pack",
    "--json",
    "--ignore-scripts",
    "--pack-destination",
    scratch,
  ]);
  if (finished.code !== 0) return fail(`exit code ${finished.code}`, finished.output);
  const [packed] = JSON.parse(finished.output) as { filename: string; files: { path: string }[] }[];
  if (packed === undefined) return fail("npm pack said nothing", finished.output);
  tarball = join(scratch, packed.filename);
  const paths = packed.files.map((file) => file.path);
  const wanted = ["README.md", "LICENSE", "dist/cli/bin.js", "dist/index.js", "dist/index.d.ts"];
  const missing = wanted.filter((path) => !paths.includes(path));
  return missing.length === 0
    ? pass(`${paths.length} files`)
    : fail(`not in the tarball: ${missing.join(", ")}`);
}

/** What a person does first: install the package where nothing else is, and call a tool with no configuration at all. */
async function callThroughInstalled(): Promise<Verdict> {
  const folder = join(scratch, "installed");
  mkdirSync(folder);
  writeFileSync(join(folder, "package.json"), '{ "private": true }\n');
  const install = [
    "install",
    "--prefix",
    folder,
    "--omit=dev",
    "--no-audit",
    "--no-fund",
    "--prefer-offline",
  ];
  const installed = await run("npm", [...install, tarball], { cwd: folder });
  if (installed.code !== 0) return fail("npm could not install the tarball", installed.output);
  const bin = join(folder, "node_modules", ".bin", "mcp-hangar");
  const call = ["call", "math", "add", '{"a":5,"b":3}'];
  const env = { MCP_HANGAR_STATE_DIR: join(scratch, "state"), MCP_CONFIG: undefined };
  const called = await run(bin, call, { cwd: folder, env });
  if (called.code !== 0)
    return fail(`mcp-hangar ${call.join(" ")}: exit code ${called.code}`, called.output);
  return /\b8\b/.test(called.output) ? pass("5 + 3 is 8") : fail("5 + 3 is not 8", called.output);
}

const format: Step = {
  name: "every file is formatted",
  run: async () => judge(await run("biome", ["format"]), "files", numberIn(/Checked (\d+) files?/)),
};
const lint: Step = {
  name: "the linter has nothing to say",
  run: async () => {
    const finished = await run("oxlint", ["--type-aware", "--deny-warnings"]);
    return judge(finished, "files", numberIn(/ on (\d+) files?/));
  },
};
const types: Step = {
  name: "the types agree",
  run: async () => {
    const listed = await run("tsc", ["-p", "tsconfig.json", "--listFilesOnly"]);
    const finished = await run("tsc", ["-p", "tsconfig.json"]);
    return judge(finished, "files", () => ownFiles(listed.output));
  },
};
const deadCode: Step = {
  name: "no code, export or dependency is unused",
  run: () => findDeadCode(),
};
const deadProduction: Step = {
  name: "no code is there for the tests only",
  run: () => findDeadCode("--production"),
};
const docs: Step = {
  name: "the generated pages are current",
  run: async () => {
    const finished = await run("node", ["scripts/docs.ts", "--check"]);
    return judge(finished, "files", numberIn(/^(\d+) files are current$/m));
  },
};
const build: Step = {
  name: "the program builds",
  run: async () => {
    const finished = await run("npm", ["run", "--silent", "build"]);
    return judge(finished, "program", () => (existsSync(join(root, "dist/cli/bin.js")) ? 1 : 0));
  },
};
const tests: Step = { name: "the tests pass", needs: [build], run: runTests };
const soak: Step = {
  name: "a minute among misbehaving providers goes well",
  needs: [build],
  run: async () => {
    const finished = await run("node", ["soak/main.ts", "--minutes", "1"]);
    process.stdout.write(finished.output);
    return judge(finished, "checks", numberIn(/^soak: (\d+) checks passed, 0 failed$/m));
  },
};
const packing: Step = { name: "the package holds what it must", needs: [build], run: pack };
const manifest: Step = {
  name: "the package's manifest is right",
  needs: [packing],
  run: async () => {
    const finished = await run("publint", ["run", tarball, "--strict"]);
    return judge(finished, "package", (output) => (output.includes("Running publint") ? 1 : 0));
  },
};
const packageTypes: Step = {
  name: "the package's types resolve",
  needs: [packing],
  run: async () => {
    const finished = await run("attw", [tarball, "--profile", "esm-only", "--format", "json"]);
    return judge(finished, "entry points", (output) => {
      const report = JSON.parse(output) as { analysis: { entrypoints?: object } };
      return Object.keys(report.analysis.entrypoints ?? {}).length;
    });
  },
};
const installed: Step = {
  name: "the installed package calls a tool",
  needs: [packing],
  run: callThroughInstalled,
};

const steps = [
  format,
  lint,
  types,
  deadCode,
  deadProduction,
  docs,
  build,
  tests,
  soak,
  packing,
  manifest,
  packageTypes,
  installed,
];

async function attempt(step: Step, verdicts: ReadonlyMap<Step, Verdict>): Promise<Verdict> {
  const broken = step.needs?.find((needed) => verdicts.get(needed)?.failed !== 0);
  if (broken !== undefined) return fail(`not run, because not true: ${broken.name}`);
  try {
    return await step.run();
  } catch (error) {
    return fail("the step itself failed", error instanceof Error ? error.stack : String(error));
  }
}

const verdicts = new Map<Step, Verdict>();
const rows: string[] = [];
for (const step of steps) {
  process.stdout.write(`\n── ${step.name}\n`);
  const started = performance.now();
  const verdict = await attempt(step, verdicts);
  const seconds = ((performance.now() - started) / 1000).toFixed(1).padStart(6);
  verdicts.set(step, verdict);
  process.stdout.write(`${verdict.failed === 0 ? "ok" : "FAILED"}: ${verdict.note}\n`);
  rows.push(
    `${verdict.failed === 0 ? "ok    " : "FAILED"} ${seconds} s  ${step.name.padEnd(42)} ${verdict.note}`,
  );
}
rmSync(scratch, { recursive: true, force: true });

let passed = 0;
let failed = 0;
for (const verdict of verdicts.values()) {
  passed += verdict.passed;
  failed += verdict.failed;
}
process.stdout.write(`\n${rows.join("\n")}\n\n${passed} passed, ${failed} failed\n`);
process.exitCode = failed === 0 ? 0 : 1;
