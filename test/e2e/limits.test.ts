/** What is refused when there is too much of it, and how little the others notice. */
import { readFileSync } from "node:fs";
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
  waitFor,
  startedPids,
  tempDir,
} from "../harness.ts";
import { memoryOf } from "../processes.ts";

function percentile(times: number[], share: number): number {
  return times.toSorted((a, b) => a - b)[Math.floor(times.length * share)] ?? 0;
}

/** How long each of `times` calls of `echo` takes, one after the other, in milliseconds. */
async function timed(
  hangar: { invoke: (provider: string, tool: string) => Promise<Json> },
  times: number,
): Promise<number[]> {
  const all: number[] = [];
  for (let n = 0; n < times; n++) {
    const began = performance.now();
    expect((await hangar.invoke("works", "echo")).isError).toBeUndefined();
    all.push(performance.now() - began);
  }
  return all;
}

describe("a provider that is called more than it can take", () => {
  test("R10: has a full queue, and what overflows is refused at once, while another provider is as quick as before", async () => {
    const hangar = await startStdio({
      config: configOf({
        stuck: { command: chaos("--hang", "tools/call"), max_concurrency: 4, max_queue: 50 },
        works: { command: fixture("add") },
      }),
    });
    await hangar.invoke("works", "echo");
    await hangar.callTool("registry_start", { provider: "stuck" });
    const before = await timed(hangar, 200);
    const memory = memoryOf(hangar.pid);
    const held = Array.from({ length: 54 }, () => hangar.invoke("stuck", "echo", {}, 12));
    await waitFor("a full queue", async () => (await hangar.details("stuck")).queued === 50);
    const refusals: number[] = [];
    for (let n = 0; n < 200; n++) {
      const began = performance.now();
      const { structuredContent } = await hangar.invoke("stuck", "echo");
      refusals.push(performance.now() - began);
      expect(structuredContent).toMatchObject({
        code: "overloaded",
        retryAfterMs: 1_000,
        error: expect.stringContaining("max_queue"),
      });
    }
    const during = await timed(hangar, 200);
    expect(percentile(refusals, 0.5)).toBeLessThan(10);
    expect(percentile(during, 0.5)).toBeLessThan(2 * percentile(before, 0.5) + 2);
    expect(memoryOf(hangar.pid) - memory).toBeLessThan(40 * 1024 * 1024);
    expect(await hangar.details("stuck")).toMatchObject({ in_flight: 4, queued: 50 });
    // Each has its own deadline, whether it was sent or not.
    for (const { structuredContent } of await Promise.all(held)) {
      expect(structuredContent).toMatchObject({ code: "timeout" });
    }
    expect(await hangar.details("stuck")).toMatchObject({ in_flight: 0, queued: 0 });
  }, 40_000);

  test("works on max_concurrency calls at once, the others one after the other in the order they came", async () => {
    const hangar = await startStdio({
      config: configOf({ p: { command: fixture("slow"), max_concurrency: 2 } }),
    });
    await hangar.callTool("registry_start", { provider: "p" });
    const began = performance.now();
    const order: number[] = [];
    const calls = Array.from({ length: 6 }, async (_, n) => {
      const result = await hangar.invoke("p", "sleep", { ms: 300 + n });
      order.push(n);
      return result.structuredContent.slept;
    });
    expect(await Promise.all(calls)).toEqual([300, 301, 302, 303, 304, 305]);
    expect(order).toEqual([0, 1, 2, 3, 4, 5]);
    expect(performance.now() - began).toBeGreaterThan(890);
  });

  test("forgets a waiting call that its client cancels, and sends nothing of it", async () => {
    const hangar = await startStdio({
      config: configOf({ p: { command: fixture("slow"), max_concurrency: 1 } }),
    });
    const first = hangar.invoke("p", "sleep", { ms: 700 });
    await waitFor("the first call", async () => (await hangar.details("p")).in_flight === 1);
    const params = {
      name: "registry_invoke",
      arguments: { provider: "p", tool: "sleep", arguments: { ms: 1 } },
    };
    hangar.send({ jsonrpc: "2.0", id: "gone", method: "tools/call", params });
    await waitFor("the second call", async () => (await hangar.details("p")).queued === 1);
    hangar.notify("notifications/cancelled", { requestId: "gone" });
    await waitFor("its end", async () => (await hangar.details("p")).queued === 0);
    await first;
    const { seen } = (await hangar.invoke("p", "cancelled")).structuredContent;
    expect(seen).toHaveLength(1);
  });

  test("is not sent what has no time left when its turn comes, and is not blamed for that", async () => {
    const ledger = join(tempDir(), "ledger");
    const p = { command: chaos("--ledger", ledger), max_concurrency: 1, timeout_s: 1.5 };
    const hangar = await startStdio({ config: configOf({ p }) });
    await hangar.callTool("registry_start", { provider: "p" });
    const blocked = hangar.invoke("p", "block", { ms: 4_000 });
    const waiting = Array.from({ length: 12 }, () => hangar.invoke("p", "count"));
    for (const { structuredContent } of await Promise.all([blocked, ...waiting])) {
      expect(structuredContent).toMatchObject({ code: "timeout" });
    }
    const sent = (await Promise.all(waiting)).filter(({ structuredContent: end }) => end.sent);
    expect(sent).toEqual([]);
    const details = await hangar.details("p");
    expect(details).toMatchObject({ state: "ready", circuit_breaker: { failures: 1 } });
    expect(details.health.consecutive_failures).toBe(1);
    // It would have counted by now.
    expect((await hangar.invoke("p", "echo", { n: 1 }, 10)).structuredContent).toEqual({ n: 1 });
    expect(readFileSync(ledger, "utf8")).toBe("");
  }, 20_000);

  test("is not started again by registry_stop's own victims: calls that wait end with those that run", async () => {
    const log = join(tempDir(), "starts");
    const p = { command: fixture("slow"), env: { START_LOG: log }, max_concurrency: 1 };
    const hangar = await startStdio({ config: configOf({ p: { ...p, protocol: "legacy" } }) });
    await hangar.callTool("registry_start", { provider: "p" });
    const calls = Array.from({ length: 4 }, () => hangar.invoke("p", "sleep", { ms: 8_000 }));
    await waitFor("a queue", async () => (await hangar.details("p")).queued === 3);
    await hangar.callTool("registry_stop", { provider: "p" });
    for (const { structuredContent } of await Promise.all(calls)) {
      expect(structuredContent).toMatchObject({ code: "provider_stopped" });
    }
    expect(await hangar.details("p")).toMatchObject({ state: "cold", queued: 0, run: 1 });
    expect(startedPids(log)).toHaveLength(1);
  });

  test("is sent no more than 64 MiB that wait for an answer", async () => {
    const hangar = await startHttp({
      config: configOf({ p: { command: chaos("--hang", "tools/call") } }),
    });
    await hangar.callTool("registry_start", { provider: "p" });
    const text = "x".repeat(15 * 1024 * 1024);
    const codes = await Promise.all(
      Array.from({ length: 6 }, async () => {
        await sleep(1);
        return (await hangar.invoke("p", "echo", { text }, 13)).structuredContent.code;
      }),
    );
    expect(codes.filter((code) => code === "overloaded").length).toBeGreaterThanOrEqual(2);
    expect(codes.filter((code) => code === "timeout").length).toBeGreaterThanOrEqual(1);
  }, 40_000);
});

describe("all providers together", () => {
  test("work on max_calls calls, and further ones are refused", async () => {
    const config = configOf(
      { a: { command: fixture("slow") }, b: { command: fixture("slow") } },
      { max_calls: 3 },
    );
    const hangar = await startStdio({ config });
    const calls = ["a", "b", "a"].map((name) => hangar.invoke(name, "sleep", { ms: 1_000 }));
    await waitFor("three calls", async () => {
      const both = [await hangar.details("a"), await hangar.details("b")];
      return both.reduce((sum, { in_flight }) => sum + in_flight, 0) === 3;
    });
    const { structuredContent } = await hangar.invoke("b", "echo");
    expect(structuredContent).toMatchObject({
      code: "overloaded",
      error: expect.stringContaining("max_calls"),
    });
    await Promise.all(calls);
    expect((await hangar.invoke("b", "echo", { n: 1 })).structuredContent).toEqual({ n: 1 });
  });
});

describe("the rate limit", () => {
  async function refusals(
    hangar: {
      invoke: (provider: string, tool: string) => Promise<Json>;
      request: (method: string) => Promise<Json>;
    },
    times: number,
  ): Promise<Json[]> {
    const replies = await Promise.all(
      Array.from({ length: times }, () => hangar.request("tools/list")),
    );
    return replies.filter(({ error }) => error !== undefined).map(({ error }) => error);
  }

  test("lets a burst through, then so many requests per second, and refuses the others with retryAfterMs", async () => {
    const config = configOf(
      { p: { command: fixture("add") } },
      { rate_limit: { rps: 5, burst: 20 } },
    );
    const hangar = await startStdio({ config });
    const refused = await refusals(hangar, 60);
    expect(refused.length).toBeGreaterThan(30);
    expect(refused.length).toBeLessThanOrEqual(41);
    expect(refused[0]).toMatchObject({
      data: { code: "overloaded" },
      message: expect.stringContaining("rate_limit"),
    });
    const { retryAfterMs } = refused[0].data;
    expect(retryAfterMs).toBeGreaterThan(0);
    expect(retryAfterMs).toBeLessThanOrEqual(200);
    await sleep(retryAfterMs + 10);
    expect((await hangar.request("tools/list")).error).toBeUndefined();
  });

  test("is off unless it is set, and MCP_RATE_LIMIT_RPS and MCP_RATE_LIMIT_BURST set it", async () => {
    const config = configOf({ p: { command: fixture("add") } });
    const free = await startStdio({ config });
    expect(await refusals(free, 60)).toEqual([]);
    const env = { MCP_RATE_LIMIT_RPS: "1", MCP_RATE_LIMIT_BURST: "10" };
    const limited = await startStdio({ config, env });
    expect((await refusals(limited, 60)).length).toBeGreaterThan(45);
  });
});
