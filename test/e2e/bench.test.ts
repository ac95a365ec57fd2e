/** The benchmark, as `npm run bench` runs it, with a handful of calls: it must measure everything and leave nothing. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { Checker, textOf } from "../../bench/load.ts";
import { type Json, tempDir, waitFor } from "../harness.ts";
import { findProcesses } from "../processes.ts";

const BENCH = fileURLToPath(new URL("../../bench/main.ts", import.meta.url));
/** A busy machine is slow to start five servers. */
const LIMIT_MS = 60_000;
/** The arms that are there in any case. */
const ARMS = ["direct-stdio", "raw-http", "sdk-http", "hangar /mcp"];
const WORKLOADS = ["W1", "W2-16", "W2-64", "W3-10k", "W3-1M"];

/** Runs the benchmark with temp files in `dir`, a folder that all processes it starts carry in their environment, too. */
function startBench(dir: string, ...args: string[]) {
  const bench = spawn(process.execPath, [BENCH, ...args], {
    env: { ...process.env, TMPDIR: dir },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const started = { bench, exit: once(bench, "close"), output: "" };
  for (const stream of [bench.stdout, bench.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      started.output += text;
    });
  }
  return started;
}

function startedWith(dir: string): string[] {
  return findProcesses(`TMPDIR=${dir}`).map(({ command }) => command);
}

/** The benchmark's own; Node keeps its compile cache beside them. */
function foldersIn(dir: string): string[] {
  return readdirSync(dir).filter((name) => name.startsWith("hangar-bench-"));
}

test(
  "every arm gives figures under every workload, and nothing is left",
  async () => {
    const dir = tempDir();
    const json = join(tempDir(), "bench.json");
    const run = startBench(dir, "--smoke", "--json", json);
    const [code] = await run.exit;
    expect(code, run.output).toBe(0);
    expect(startedWith(dir)).toEqual([]);
    expect(foldersIn(dir)).toEqual([]);

    const { cells } = JSON.parse(readFileSync(json, "utf8"));
    const present = cells.filter((cell: Json) => !cell.absent);
    const seen = present.map(({ workload, arm }: Json) => `${workload} ${arm}`);
    const wanted = WORKLOADS.flatMap((workload) => ARMS.map((arm) => `${workload} ${arm}`));
    expect(seen).toEqual(expect.arrayContaining(wanted));
    for (const cell of present) {
      const { rssMb, cpuUs, ...times } = cell.rounds[0];
      expect(cell).not.toHaveProperty("void");
      expect(cell.rounds).toHaveLength(1);
      const figures = cell.arm === "direct-stdio" ? times : { ...times, rssMb, cpuUs };
      for (const [name, figure] of Object.entries(figures)) {
        expect(figure, `${name} of ${cell.arm}, ${cell.workload}`).toBeGreaterThan(0);
      }
      expect(run.output).toContain(`| ${cell.arm} |`);
    }
  },
  LIMIT_MS,
);

test("an answer that is not exactly what it should be is refused, first or later", () => {
  const first = 123_456_789;
  const later = 123_456_790;
  const answer = (id: number, result: Json) =>
    Buffer.from(JSON.stringify({ jsonrpc: "2.0", id, result }));
  const echo = (text: string) => ({ content: [{ type: "text", text }] });
  for (const warm of [false, true]) {
    const checker = new Checker(200);
    if (warm) checker.check(answer(first, echo(textOf(200, first))), first);
    const check = (body: Buffer) => () => checker.check(body, later);
    const right = echo(textOf(200, later));
    expect(check(answer(first, right))).toThrow("not the id");
    expect(check(answer(later, echo(textOf(200, first))))).toThrow("not the text");
    expect(check(answer(later, echo(textOf(199, later))))).toThrow("not the text");
    expect(check(answer(later, { ...right, isError: true }))).toThrow("an error");
    expect(check(Buffer.from(`{"id":${later},"error":{"code":-32603}}`))).toThrow("an error");
    expect(check(answer(later, right).subarray(1))).toThrow();
    expect(check(answer(later, right))).not.toThrow();
  }
});

test(
  "an interrupt ends everything that was started",
  async () => {
    const dir = tempDir();
    const run = startBench(dir);
    const provider = () => startedWith(dir).filter((command) => command.includes("echo-provider"));
    // The second one is Hangar's, which starts it on the first call.
    await waitFor("the measurements to begin", () => provider().length > 1, LIMIT_MS);
    run.bench.kill("SIGINT");
    const [code] = await run.exit;
    expect(code, run.output).toBe(130);
    expect(startedWith(dir)).toEqual([]);
    expect(foldersIn(dir)).toEqual([]);
  },
  LIMIT_MS,
);
