/** The circuit breaker of a provider, seen by clients of the real CLI. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import {
  chaos,
  configOf,
  fixture,
  type Json,
  startHttp,
  startStdio,
  tempDir,
  waitFor,
} from "../harness.ts";

/** Opens after four failures, for a short time, and needs one good trial. */
const QUICK = { min_calls: 4, open_s: 0.6, half_open_calls: 1 };

/** A provider whose tool `hang` never answers, and whose deadline is short. */
function hanging(circuit_breaker: Json, rest: Json = {}): Json {
  return { command: fixture("hangs-on-ping"), timeout_s: 0.15, circuit_breaker, ...rest };
}

type Invoke = {
  invoke: (provider: string, tool: string) => Promise<Json>;
  callTool: (name: string, args: Json) => Promise<Json>;
};

async function codes(
  hangar: Invoke,
  provider: string,
  tool: string,
  times: number,
): Promise<unknown[]> {
  const found: unknown[] = [];
  // A call that ends while it waits for a start says nothing about the provider.
  await hangar.callTool("registry_start", { provider });
  for (let n = 0; n < times; n++) {
    found.push((await hangar.invoke(provider, tool)).structuredContent?.code);
  }
  return found;
}

describe("the circuit breaker", () => {
  test("R8: opens when too many calls fail, refuses at once with retryAfterMs, and closes when a trial succeeds", async () => {
    const hangar = await startStdio({ config: configOf({ p: hanging(QUICK) }) });
    expect(await codes(hangar, "p", "hang", 4)).toEqual(Array(4).fill("timeout"));
    const began = performance.now();
    const { structuredContent: refused } = await hangar.invoke("p", "echo");
    expect(performance.now() - began).toBeLessThan(100);
    expect(refused).toMatchObject({
      code: "circuit_open",
      type: "ProviderDegradedError",
      error: expect.stringContaining("4 of its last 4 calls failed"),
    });
    expect(refused.retryAfterMs).toBeGreaterThan(0);
    expect(refused.retryAfterMs).toBeLessThanOrEqual(600);
    expect((await hangar.details("p")).circuit_breaker).toMatchObject({
      state: "open",
      failures: 4,
    });
    await sleep(refused.retryAfterMs + 20);
    expect((await hangar.invoke("p", "echo", { n: 1 })).structuredContent).toEqual({ n: 1 });
    expect((await hangar.details("p")).circuit_breaker).toMatchObject({
      state: "closed",
      calls: 0,
    });
    const told = hangar.stderr
      .split("\n")
      .filter((line) => line.includes("breaker_state"))
      .map((line) => JSON.parse(line).state);
    expect(told).toEqual(["open", "half_open", "closed"]);
  });

  test("stays open twice as long when the trial fails", async () => {
    const hangar = await startStdio({ config: configOf({ p: hanging(QUICK) }) });
    await codes(hangar, "p", "hang", 4);
    await sleep(650);
    expect((await hangar.invoke("p", "hang")).structuredContent.code).toBe("timeout");
    const { structuredContent } = await hangar.invoke("p", "echo");
    expect(structuredContent).toMatchObject({ code: "circuit_open" });
    expect(structuredContent.retryAfterMs).toBeGreaterThan(700);
  });

  test("R8: of a thousand calls at once tries out exactly half_open_calls, and refuses the others at once", async () => {
    const ledger = join(tempDir(), "ledger");
    const hangar = await startStdio({
      config: configOf({
        p: {
          command: chaos("--ledger", ledger, "--delay-ms", "4000"),
          tool_timeouts_s: { sleep: 0.15 },
          timeout_s: 30,
          circuit_breaker: { ...QUICK, half_open_calls: 3 },
        },
      }),
    });
    await hangar.callTool("registry_start", { provider: "p" });
    const slept = Array.from({ length: 4 }, () => hangar.invoke("p", "sleep", { ms: 9_000 }));
    for (const { structuredContent } of await Promise.all(slept)) {
      expect(structuredContent).toMatchObject({ code: "timeout" });
    }
    await sleep(650);
    const began = performance.now();
    const slowest = { ms: 0 };
    const all = await Promise.all(
      Array.from({ length: 1_000 }, async () => {
        const { structuredContent } = await hangar.invoke("p", "count", {}, 30);
        if (structuredContent.code === "circuit_open") slowest.ms = performance.now() - began;
        return structuredContent;
      }),
    );
    expect(all.filter(({ code }) => code === "circuit_open")).toHaveLength(997);
    expect(all.filter(({ value }) => value !== undefined)).toHaveLength(3);
    expect(readFileSync(ledger, "utf8").trim().split("\n")).toHaveLength(3);
    // All thousand exchanges on this machine, well before the trials had their answers.
    expect(slowest.ms).toBeLessThan(4_000);
  }, 30_000);

  test("takes no notice of what the provider answers, nor of what callers do", async () => {
    const hangar = await startStdio({
      config: configOf({
        p: { command: chaos(), circuit_breaker: { min_calls: 1, failure_rate: 0.01 } },
      }),
    });
    await hangar.invoke("p", "fail");
    await hangar.invoke("p", "error", { code: -32_602 });
    await hangar.invoke("p", "error", { code: -32_603 });
    await hangar.invoke("p", "sleep", {});
    await hangar.invoke("p", "no-such-tool");
    const hasty = await hangar.invoke("p", "sleep", { ms: 5_000 }, 0.2);
    expect(hasty.structuredContent).toMatchObject({ code: "timeout" });
    const params = {
      name: "registry_invoke",
      arguments: { provider: "p", tool: "sleep", arguments: { ms: 5_000 } },
    };
    hangar.send({ jsonrpc: "2.0", id: "gone", method: "tools/call", params });
    await waitFor("the call", async () => (await hangar.details("p")).in_flight === 1);
    hangar.notify("notifications/cancelled", { requestId: "gone" });
    await waitFor("its end", async () => (await hangar.details("p")).in_flight === 0);
    await hangar.callTool("registry_stop", { provider: "p" });
    expect((await hangar.invoke("p", "echo", { n: 1 })).structuredContent).toEqual({ n: 1 });
    expect((await hangar.details("p")).circuit_breaker).toMatchObject({
      state: "closed",
      failures: 0,
    });
  });

  test("counts exits and failed starts", async () => {
    const hangar = await startStdio({
      config: configOf({
        p: {
          command: chaos("--crash-rate", "1"),
          circuit_breaker: { ...QUICK, open_s: 30 },
          restart: { limit: 100 },
        },
      }),
    });
    const ends = new Set<unknown>();
    await waitFor(
      "an open breaker",
      async () => {
        const { code } = (await hangar.invoke("p", "echo")).structuredContent;
        ends.add(code);
        return code === "circuit_open";
      },
      15_000,
    );
    expect(ends).toContain("provider_exited");
    expect((await hangar.details("p")).circuit_breaker.failures).toBe(4);
  }, 20_000);

  test("counts a crash or a failed start once, however many calls it takes with it", async () => {
    const circuit_breaker = { min_calls: 3, failure_rate: 1 };
    const hangar = await startStdio({
      config: configOf({
        crashes: { command: fixture("crash-mid-call"), circuit_breaker },
        fails: { command: fixture("crash-on-start"), circuit_breaker, protocol: "legacy" },
      }),
    });
    await hangar.callTool("registry_start", { provider: "crashes" });
    const dying = Array.from({ length: 20 }, () => hangar.invoke("crashes", "crash"));
    const waiting = Array.from({ length: 20 }, () => hangar.invoke("fails", "echo"));
    const ends = await Promise.all([...dying, ...waiting]);
    const codes = ends.map(({ structuredContent }) => structuredContent.code);
    expect(codes.filter((code) => code === "provider_exited")).toHaveLength(20);
    expect(codes.filter((code) => code === "start_failed")).toHaveLength(20);
    for (const provider of ["crashes", "fails"]) {
      const { circuit_breaker: breaker } = await hangar.details(provider);
      expect(breaker).toMatchObject({ state: "closed", failures: 1 });
    }
  });

  test("closes by a manual start", async () => {
    const hangar = await startStdio({ config: configOf({ p: hanging({ ...QUICK, open_s: 60 }) }) });
    await codes(hangar, "p", "hang", 4);
    expect((await hangar.invoke("p", "echo")).structuredContent.code).toBe("circuit_open");
    await hangar.callTool("registry_start", { provider: "p" });
    expect((await hangar.invoke("p", "echo", { n: 1 })).structuredContent).toEqual({ n: 1 });
  });

  test("stands before a client of the provider alone too, of either era, and nothing is started while it is open", async () => {
    const log = join(tempDir(), "starts");
    const config = configOf({
      p: { command: fixture("add"), env: { START_LOG: log }, circuit_breaker: { force: "open" } },
    });
    for (const era of ["legacy", "modern"] as const) {
      const hangar = await startHttp({ config, era });
      const message = { jsonrpc: "2.0", id: 1, method: "tools/list", params: {} as Json };
      if (era === "modern") {
        message.params = {
          _meta: {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
          },
        };
      }
      const reply = await hangar.post(message, hangar.headersFor(message), "/mcp/p");
      const error = reply.messages[0]?.error ?? JSON.parse(reply.text).error;
      if (era === "modern") {
        expect(error.data).toMatchObject({ code: "circuit_open", retryAfterMs: 30_000 });
      } else expect(error.data.code).toMatch(/session|circuit_open/);
      expect(existsSync(log)).toBe(false);
    }
  });
});
