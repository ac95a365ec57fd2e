/** What providers do wrong on stdio, and that nothing but protocol messages leaves Hangar's own stdout. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  chaos,
  configOf,
  fixture,
  type Json,
  startHttp,
  startStdio,
  StdioHangar,
  tempDir,
  waitFor,
} from "../harness.ts";
import { memoryOf } from "../processes.ts";

const MB = 1_000_000;

/** What the process has read so far, from pipes and files. */
function bytesRead(pid: number): number {
  return Number(/rchar: (\d+)/.exec(readFileSync(`/proc/${pid}/io`, "utf8"))?.[1]);
}

interface Invokes {
  invoke(provider: string, tool: string, args?: Json): Promise<Json>;
  readonly pid: number;
}

/** Calls `other` for as long as `work` takes, and at least fifty times: the median time of a call, and the most memory. */
async function alongside(hangar: Invokes, work: Promise<unknown>) {
  const state = { working: true };
  const done = work.finally(() => (state.working = false));
  done.catch(() => undefined); // it is awaited in the end
  const times: number[] = [];
  let memory = 0;
  while (state.working || times.length < 50) {
    const began = performance.now();
    expect((await hangar.invoke("other", "echo")).isError).toBeUndefined();
    times.push(performance.now() - began);
    memory = Math.max(memory, memoryOf(hangar.pid));
  }
  await done;
  return { medianMs: times.toSorted((a, b) => a - b)[times.length >> 1] ?? 0, memory };
}

/** Does `work` beside calls to another provider, which must not notice, and returns by how many bytes the memory grew at most. */
async function growthOf(hangar: Invokes, work: () => Promise<unknown>): Promise<number> {
  const before = await alongside(hangar, Promise.resolve());
  const during = await alongside(hangar, work());
  expect(during.medianMs).toBeLessThan(10 * before.medianMs + 20);
  return during.memory - before.memory;
}

/** What the runtime sets aside for short-lived objects would hide what is kept. */
const env = { NODE_OPTIONS: "--max-semi-space-size=4" };

function configWith(...flags: string[]): string {
  return configOf({ p: { command: chaos(...flags) }, other: { command: fixture("add") } });
}

describe("a provider's output", () => {
  test.each([
    ["byte by byte, with torn characters", ["--split"]],
    ["with CRLF, a byte order mark and blank lines", ["--crlf", "--bom", "--blank-lines"]],
    [
      "with noise before, between and after messages, some of it JSON",
      ["--noise-before", "--noise-between", "--noise-after"],
    ],
    ["with every answer twice", ["--double-reply", "--on", "all"]],
    ["with answers that nobody asked for", ["--stray-replies", "--on", "all"]],
    ["one byte in a millisecond", ["--drip-ms", "1"]],
  ])(
    "R11: %s gives the right answers, and only those",
    async (_, flags) => {
      const hangar = await startStdio({ config: configWith(...flags) });
      for (let n = 0; n < 3; n++) {
        const args = { n, text: "caf\u00e9 \u{1f600} \u2028" };
        expect((await hangar.invoke("p", "echo", args)).structuredContent).toEqual(args);
      }
      expect(hangar.notifications).toEqual([]);
      expect((await hangar.close()).code).toBe(0);
    },
    30_000,
  );

  test.each([
    ["with the wrong id", ["--wrong-id"], "timeout"],
    ["that is not UTF-8", ["--bad-utf8"], "unreadable_answer"],
    ["that says its result twice", ["--duplicate-keys"], "unreadable_answer"],
    ["a hundred thousand levels deep", ["--depth", "100000"], "unreadable_answer"],
    ["larger than max_message_bytes", ["--huge-bytes", `${17 * MB}`], "unreadable_answer"],
  ])("R11: an answer %s is that call's error, and no more", async (_, flags, code) => {
    const hangar = await startStdio({ config: configWith(...flags) });
    const { structuredContent } = await hangar.invoke("p", "echo", {}, code === "timeout" ? 2 : 12);
    expect(structuredContent).toMatchObject({ code, sent: true });
    expect(await hangar.details("p")).toMatchObject({ state: "ready", in_flight: 0 });
    expect((await hangar.invoke("other", "echo", { n: 1 })).structuredContent).toEqual({ n: 1 });
  });

  test("R11: an answer after a cancel goes to nobody", async () => {
    const hangar = await startStdio({ config: configWith("--reply-after-cancel") });
    await hangar.callTool("registry_start", { provider: "p" });
    const params = { provider: "p", tool: "sleep", arguments: { ms: 800 } };
    void hangar
      .request("tools/call", { name: "registry_invoke", arguments: params }, "gone")
      .catch(() => undefined);
    await waitFor("the call", async () => (await hangar.details("p")).in_flight === 1);
    hangar.notify("notifications/cancelled", { requestId: "gone" });
    // It answers in the order of its timers, so this one comes after the late one.
    const after = await hangar.invoke("p", "sleep", { ms: 900 });
    expect(after.structuredContent).toEqual({ slept_ms: 900 });
    expect(hangar.lines.filter((line) => line.includes('"gone"'))).toEqual([]);
  });

  test("R11: of lines of 10 MB arrives whole, and leaves nothing in memory", async () => {
    const hangar = await startHttp({ config: configWith(), env });
    await hangar.callTool("registry_start", { provider: "p" });
    const grown = await growthOf(hangar, async () => {
      for (let n = 0; n < 8; n++) {
        const { content } = await hangar.invoke("p", "big", { bytes: 10 * MB });
        expect(content[0].text).toHaveLength(10 * MB);
      }
    });
    expect(grown).toBeLessThan(200 * MB);
  }, 60_000);

  test("R11: of a line of 300 MB without an end ends that call by its deadline, and takes no memory", async () => {
    const hangar = await startStdio({ config: configWith("--endless-line", `${300 * MB}`), env });
    await hangar.callTool("registry_start", { provider: "p" });
    const grown = await growthOf(hangar, async () => {
      const { structuredContent } = await hangar.invoke("p", "echo", {}, 5);
      expect(structuredContent).toMatchObject({ code: "timeout", sent: true });
      await waitFor("all of it to be read", () => bytesRead(hangar.pid) > 300 * MB, 40_000);
    });
    expect(grown).toBeLessThan(80 * MB);
  }, 60_000);
});

describe("a provider that does not read its stdin", () => {
  test("R11: is sent 8 MiB and what goes over it once; of 64 MB the rest is refused as overloaded", async () => {
    const hangar = await startHttp({
      // The handshake and the list of tools are what it reads.
      config: configOf({
        p: { command: chaos("--stop-reading-after", "2"), protocol: "modern" },
        other: { command: fixture("add") },
      }),
      env,
    });
    await hangar.callTool("registry_start", { provider: "p" });
    const text = "x".repeat(4 * MB);
    const grown = await growthOf(hangar, async () => {
      const calls = Array.from({ length: 16 }, () => hangar.invoke("p", "echo", { text }, 8));
      const ends = await Promise.all(calls);
      const codes = ends.map(({ structuredContent }) => structuredContent.code);
      expect(new Set(codes)).toEqual(new Set(["timeout", "overloaded"]));
      const waited = codes.filter((code) => code === "timeout").length;
      expect(waited).toBeGreaterThanOrEqual(2);
      expect(waited).toBeLessThanOrEqual(3);
    });
    expect(grown).toBeLessThan(200 * MB);
    await hangar.callTool("registry_stop", { provider: "p" });
    expect((await hangar.details("p")).state).toBe("cold");
  }, 60_000);
});

describe("Hangar's own stdout", () => {
  /** What a library may say at any time. */
  const LOUD = `
    process.emitWarning("a library is worried");
    new Buffer(1);
    setInterval(() => {
      console.log("still here");
      process.emitWarning("this will go", "DeprecationWarning");
    }, 50).unref();
    setTimeout(() => Promise.reject(new Error("nobody takes this")), 1500).unref();
  `;

  test.each(["debug", "info", "warn", "error"])(
    "R20: is nothing but JSON-RPC at log level %s, with warnings, unhandled rejections, noisy and crashing providers",
    async (level) => {
      const loud = join(tempDir(), "loud.cjs");
      writeFileSync(loud, LOUD);
      const config = configOf({
        noisy: { command: chaos("--noise-before", "--noise-between", "--noise-after") },
        crashes: { command: chaos("--crash-after", "1") },
        never: { command: chaos("--crash-on-start", "7") },
        missing: { command: ["no-such-program-here"] },
      });
      const hangar = await startStdio({
        config,
        args: ["--log-level", level],
        env: { NODE_OPTIONS: `--trace-warnings --require=${loud}` },
      });
      for (const name of ["noisy", "crashes", "never", "missing"]) {
        await hangar.invoke(name, "echo", { n: 1 });
      }
      await waitFor("the rejection", () => hangar.stderr.includes("nobody takes this"));
      expect((await hangar.invoke("noisy", "echo", { n: 2 })).structuredContent).toEqual({ n: 2 });
      expect(await hangar.close()).toEqual({ code: 0, signal: null });
      expect(hangar.stderr).toContain("a library is worried");
      expectMessages(hangar.lines, 6);
    },
    30_000,
  );

  test("R20: is nothing but JSON-RPC when stderr is closed", async () => {
    const config = configOf({
      noisy: { command: chaos("--noise-before", "--noise-between") },
      never: { command: chaos("--crash-on-start", "7") },
    });
    const hangar = new StdioHangar({ config, args: ["--log-level", "debug"] });
    hangar.child.stderr?.destroy();
    await hangar.initialize();
    for (const name of ["noisy", "never", "noisy"]) await hangar.invoke(name, "echo");
    expect(await hangar.close()).toEqual({ code: 0, signal: null });
    expectMessages(hangar.lines, 4);
  });

  /** At least so many lines, each a message. */
  function expectMessages(lines: readonly string[], atLeast: number): void {
    expect(lines.length).toBeGreaterThanOrEqual(atLeast);
    for (const line of lines) {
      const message = JSON.parse(line);
      expect(message.jsonrpc).toBe("2.0");
      expect(["result", "error", "method"].filter((key) => key in message)).toHaveLength(1);
    }
  }
});
