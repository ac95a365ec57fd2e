/** The life of a provider, seen by a client of the real CLI. */
import { chmodSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import {
  configOf,
  fixture,
  type Json,
  startedPids,
  startStdio,
  type StdioHangar,
  tempDir,
  waitFor,
} from "../harness.ts";
import { isAlive } from "../processes.ts";

/** A command that works only while the file `ok` exists beside the configuration. */
function startsOnlyWhenOk(dir: string, name = "counts-starts"): string[] {
  const run = fixture(name)
    .map((part) => `'${part}'`)
    .join(" ");
  const script = `test -e '${join(dir, "ok")}' || { echo "the file ok is missing" >&2; exit 5; }; exec ${run}`;
  return ["/bin/sh", "-c", script];
}

async function startWith(provider: Json, rest: Json = {}): Promise<StdioHangar> {
  return startStdio({ config: configOf({ p: provider }, rest) });
}

describe("starting", () => {
  test("a provider that exits on the probe gets initialize first in its next process, and from then on", async () => {
    const log = join(tempDir(), "starts");
    const stateDir = tempDir();
    const config = configOf({ p: { command: fixture("exits-on-probe"), env: { START_LOG: log } } });
    const hangar = await startStdio({ config, stateDir });
    expect((await hangar.invoke("p", "echo", { n: 1 })).structuredContent).toEqual({ n: 1 });
    expect(startedPids(log)).toHaveLength(2);
    await hangar.callTool("registry_stop", { provider: "p" });
    await hangar.invoke("p", "echo");
    expect(startedPids(log)).toHaveLength(3);
    await hangar.close();
    const later = await startStdio({ config, stateDir });
    await later.invoke("p", "echo");
    expect(startedPids(log)).toHaveLength(4);
  });

  test("a provider that is silent on the probe is started in the same process", async () => {
    const log = join(tempDir(), "starts");
    const hangar = await startWith({
      command: fixture("silent-on-probe"),
      env: { START_LOG: log },
    });
    expect((await hangar.invoke("p", "echo", { n: 1 })).structuredContent).toEqual({ n: 1 });
    expect(startedPids(log)).toHaveLength(1);
    expect((await hangar.details("p")).meta.protocol).toBe("legacy");
  });

  test.each([
    ["legacy-only", "legacy", "2025-11-25"],
    ["modern-only", "modern", "2026-07-28"],
    ["old-revision", "legacy", "2024-11-05"],
    ["add", "modern", "2026-07-28"],
  ])("%s is ready as a %s provider of revision %s", async (name, protocol, version) => {
    const hangar = await startWith({ command: fixture(name) });
    await hangar.callTool("registry_start", { provider: "p" });
    expect(await hangar.details("p")).toMatchObject({
      state: "ready",
      alive: true,
      meta: { protocol, protocol_version: version },
    });
    expect((await hangar.invoke("p", "echo", { n: 1 })).structuredContent).toEqual({ n: 1 });
  });

  test("a slow start within startup_timeout_s is no failure", async () => {
    const hangar = await startWith({
      command: fixture("slow-start"),
      env: { START_MS: "2500" },
      startup_timeout_s: 8,
    });
    expect((await hangar.invoke("p", "echo", { n: 1 })).structuredContent).toEqual({ n: 1 });
    expect((await hangar.details("p")).state).toBe("ready");
  });

  test("a provider that floods stderr starts and answers", async () => {
    const hangar = await startWith({ command: fixture("floods-stderr") });
    for (let n = 0; n < 3; n++) {
      expect((await hangar.invoke("p", "echo", { n })).structuredContent).toEqual({ n });
    }
    const { stderr } = await hangar.details("p");
    expect(stderr.length).toBeGreaterThan(0);
    expect(JSON.stringify(stderr).length).toBeLessThan(100_000);
  });
});

describe("a start that fails", () => {
  const STARTUP_S = 5;

  test.each([
    ["never-answers", "start_timeout", "startup_timeout_s"],
    ["only-garbage", "start_timeout", "startup_timeout_s"],
    ["errors-on-initialize", "start_failed", "no licence found"],
    ["crash-on-start", "start_failed", "exit code 3"],
  ])("%s ends in time, says why, and leaves no process", async (name, code, why) => {
    const log = join(tempDir(), "starts");
    const hangar = await startWith({
      command: fixture(name),
      env: { START_LOG: log },
      startup_timeout_s: STARTUP_S,
    });
    const began = performance.now();
    const result = await hangar.invoke("p", "echo");
    expect(performance.now() - began).toBeLessThan((STARTUP_S + 1.5) * 1000);
    expect(result.isError).toBe(true);
    expect(result.structuredContent).toMatchObject({
      code,
      type: "ProviderStartError",
      provider_id: "p",
      operation: "registry_invoke",
      error: expect.stringContaining(why),
    });
    expect(JSON.parse(result.content[0].text)).toEqual(result.structuredContent);
    const pids = startedPids(log);
    expect(pids.length).toBeGreaterThan(0);
    expect(pids.filter(isAlive)).toEqual([]);
    expect(await hangar.details("p")).toMatchObject({ state: "degraded", alive: false });
  });

  test("the message carries the exit code and the last lines of stderr", async () => {
    const hangar = await startWith({ command: fixture("crash-on-start") });
    const { structuredContent: error } = await hangar.invoke("p", "echo");
    expect(error.error).toContain("exit code 3");
    expect(error.error).toContain("cannot open database /var/lib/fixture.db");
    expect(error.details.exit_code).toBe(3);
    const details = await hangar.details("p");
    expect(details.last_exit).toEqual({ exit_code: 3, signal: null });
    expect(details.stderr.join("\n")).toContain("cannot open database");
  });

  test("the message of a refused handshake carries the provider's own words and its stderr", async () => {
    const hangar = await startWith({ command: fixture("errors-on-initialize") });
    const { structuredContent: error } = await hangar.invoke("p", "echo");
    expect(error.error).toContain("answered initialize with an error: no licence found");
    expect(error.error).toContain("licence file not found: /etc/fixture/licence");
  });

  test("the message of a missing program says that the command was not found", async () => {
    const hangar = await startWith({ command: ["no-such-program-here", "x"] });
    const { structuredContent: error } = await hangar.invoke("p", "echo");
    expect(error.error).toContain("command not found");
    expect(error.error).toContain("no-such-program-here");
  });

  test("further calls are refused with retryAfterMs, and the first one after that starts it again", async () => {
    const dir = tempDir();
    const log = join(dir, "starts");
    const hangar = await startWith({
      command: startsOnlyWhenOk(dir),
      env: { START_LOG: log },
      protocol: "legacy",
    });
    const failed = await hangar.invoke("p", "echo");
    expect(failed.structuredContent).toMatchObject({ code: "start_failed" });
    // The wait may be short, and this machine slow: it grows with each failure.
    let refused = await hangar.invoke("p", "echo");
    for (let n = 0; n < 3 && refused.structuredContent.code !== "provider_degraded"; n++) {
      refused = await hangar.invoke("p", "echo");
    }
    expect(refused.structuredContent).toMatchObject({
      code: "provider_degraded",
      type: "ProviderDegradedError",
      error: expect.stringMatching(/retry in \d+\.\ds/),
    });
    const { retryAfterMs } = refused.structuredContent;
    expect(retryAfterMs).toBeGreaterThan(0);
    expect(retryAfterMs).toBeLessThanOrEqual(4_000);
    writeFileSync(join(dir, "ok"), "");
    await sleep(retryAfterMs + 20);
    expect((await hangar.invoke("p", "echo", { n: 1 })).structuredContent).toEqual({ n: 1 });
    expect(await hangar.details("p")).toMatchObject({
      state: "ready",
      health: { consecutive_failures: 0 },
    });
  });

  test("a program that does not exist makes the provider dead, and only registry_start leads out", async () => {
    const dir = tempDir();
    const program = join(dir, "program");
    const hangar = await startWith({ command: [program] });
    await hangar.invoke("p", "echo");
    expect(await hangar.details("p")).toMatchObject({
      state: "dead",
      alive: false,
      health_status: "unhealthy",
      reason: expect.stringContaining(program),
    });
    writeFileSync(program, `#!/bin/sh\nexec ${fixture("add").join(" ")}\n`);
    chmodSync(program, 0o755);
    const refused = await hangar.invoke("p", "echo");
    expect(refused.structuredContent).toMatchObject({
      code: "provider_dead",
      type: "CannotStartProviderError",
    });
    const started = await hangar.callTool("registry_start", { provider: "p" });
    expect(started.structuredContent).toMatchObject({ provider: "p", state: "ready" });
    expect((await hangar.invoke("p", "echo", { n: 1 })).structuredContent).toEqual({ n: 1 });
  });
});

describe("registry_start", () => {
  test("starts a cold provider and does nothing to a ready one", async () => {
    const log = join(tempDir(), "starts");
    const hangar = await startWith({ command: fixture("add"), env: { START_LOG: log } });
    expect((await hangar.details("p")).state).toBe("cold");
    const expected = { provider: "p", provider_id: "p", state: "ready", tools: ["echo", "add"] };
    for (let n = 0; n < 2; n++) {
      const { structuredContent } = await hangar.callTool("registry_start", { provider: "p" });
      expect(structuredContent).toMatchObject(expected);
    }
    expect(startedPids(log)).toHaveLength(1);
  });

  test("joins a start under way", async () => {
    const log = join(tempDir(), "starts");
    const hangar = await startWith({
      command: fixture("counts-starts"),
      env: { START_LOG: log, START_MS: "500" },
    });
    const call = hangar.invoke("p", "echo", { n: 1 });
    await hangar.waitForState("p", "initializing");
    const { structuredContent } = await hangar.callTool("registry_start", { provider: "p" });
    expect(structuredContent).toMatchObject({ state: "ready" });
    expect((await call).structuredContent).toEqual({ n: 1 });
    expect(startedPids(log)).toHaveLength(1);
  });

  test("starts at once a provider that waits for its retry", async () => {
    const dir = tempDir();
    const hangar = await startWith({ command: startsOnlyWhenOk(dir), protocol: "legacy" });
    for (let n = 0; n < 4; n++) await hangar.callTool("registry_start", { provider: "p" });
    writeFileSync(join(dir, "ok"), "");
    expect((await hangar.invoke("p", "echo")).structuredContent.code).toBe("provider_degraded");
    const { structuredContent } = await hangar.callTool("registry_start", { provider: "p" });
    expect(structuredContent).toMatchObject({ state: "ready" });
  });

  test("leaves a running degraded provider as it is", async () => {
    const log = join(tempDir(), "starts");
    const hangar = await startWith({
      command: fixture("hangs-on-ping"),
      env: { START_LOG: log },
      health_check_interval_s: 0.1,
      max_consecutive_failures: 1,
    });
    await hangar.invoke("p", "echo");
    await hangar.waitForState("p", "degraded");
    await hangar.callTool("registry_start", { provider: "p" });
    expect(startedPids(log)).toHaveLength(1);
  });
});

describe("stopping", () => {
  test("registry_stop makes a provider cold, and its next use starts it", async () => {
    const log = join(tempDir(), "starts");
    const hangar = await startWith({ command: fixture("counts-starts"), env: { START_LOG: log } });
    await hangar.invoke("p", "echo");
    const stopped = await hangar.callTool("registry_stop", { provider: "p" });
    expect(stopped.structuredContent).toMatchObject({ stopped: "p", reason: "shutdown" });
    expect(startedPids(log).filter(isAlive)).toEqual([]);
    expect(await hangar.details("p")).toMatchObject({ state: "cold", alive: false });
    expect((await hangar.invoke("p", "echo", { n: 1 })).structuredContent).toEqual({ n: 1 });
    expect(startedPids(log)).toHaveLength(2);
  });

  test("registry_stop during a start ends the start and leaves nothing of it", async () => {
    const log = join(tempDir(), "starts");
    const hangar = await startWith({
      command: fixture("slow-start"),
      env: { START_LOG: log, START_MS: "60000" },
    });
    const call = hangar.invoke("p", "echo");
    const [pid] = await waitFor("the process", () => {
      const pids = startedPids(log);
      return pids.length > 0 ? pids : undefined;
    });
    await hangar.callTool("registry_stop", { provider: "p" });
    expect((await call).structuredContent).toMatchObject({
      code: "provider_stopped",
      type: "ProviderNotReadyError",
    });
    expect(isAlive(pid ?? 0)).toBe(false);
    expect(await hangar.details("p")).toMatchObject({
      state: "cold",
      health: { consecutive_failures: 0 },
    });
  });

  test("registry_stop ends calls under way with an error that says so", async () => {
    const hangar = await startWith({ command: fixture("slow") });
    await hangar.invoke("p", "echo");
    const call = hangar.invoke("p", "sleep", { ms: 30_000 });
    await waitFor("the call", async () => (await hangar.details("p")).in_flight === 1);
    await hangar.callTool("registry_stop", { provider: "p" });
    expect((await call).structuredContent).toMatchObject({ code: "provider_stopped" });
  });

  test("registry_stop twice, and of a cold provider, is no error", async () => {
    const hangar = await startWith({ command: fixture("add") });
    for (let n = 0; n < 2; n++) {
      const result = await hangar.callTool("registry_stop", { provider: "p" });
      expect(result.isError).not.toBe(true);
    }
  });

  test("a provider that ignores SIGTERM and the end of stdin is killed", async () => {
    const log = join(tempDir(), "starts");
    const hangar = await startWith({
      command: fixture("ignores-term-and-eof"),
      env: { START_LOG: log },
    });
    await hangar.invoke("p", "echo");
    await hangar.callTool("registry_stop", { provider: "p" });
    expect(startedPids(log).filter(isAlive)).toEqual([]);
  });

  test("what a provider has started is stopped with it", async () => {
    const hangar = await startWith({ command: fixture("spawns-grandchild") });
    const { pid, child } = (await hangar.invoke("p", "pids")).structuredContent;
    expect([pid, child].filter(isAlive)).toEqual([pid, child]);
    await hangar.callTool("registry_stop", { provider: "p" });
    expect([pid, child].filter(isAlive)).toEqual([]);
  });

  test("a stop that takes long holds up no other provider", async () => {
    const config = configOf({
      stubborn: { command: fixture("ignores-term-and-eof") },
      other: { command: fixture("add") },
    });
    const hangar = await startStdio({ config });
    await hangar.invoke("stubborn", "echo");
    await hangar.invoke("other", "echo");
    let stopped = false;
    const stop = hangar.callTool("registry_stop", { provider: "stubborn" }).then(() => {
      stopped = true;
    });
    const began = performance.now();
    await hangar.invoke("other", "echo");
    expect(performance.now() - began).toBeLessThan(500);
    expect(stopped).toBe(false);
    await stop;
  });
});

describe("idleness", () => {
  test("a provider that nothing uses for idle_ttl_s is stopped, and starts again on use", async () => {
    const log = join(tempDir(), "starts");
    const hangar = await startWith({
      command: fixture("counts-starts"),
      env: { START_LOG: log },
      idle_ttl_s: 0.5,
    });
    await hangar.invoke("p", "echo");
    const details = await hangar.waitForState("p", "cold");
    expect(details.health.consecutive_failures).toBe(0);
    await waitFor("the process to end", () => startedPids(log).every((pid) => !isAlive(pid)));
    expect((await hangar.invoke("p", "echo", { n: 1 })).structuredContent).toEqual({ n: 1 });
    expect(startedPids(log)).toHaveLength(2);
  });

  test("a call longer than idle_ttl_s is not cut", async () => {
    const hangar = await startWith({ command: fixture("slow"), idle_ttl_s: 0.3 });
    const result = await hangar.invoke("p", "sleep", { ms: 2500 });
    expect(result.structuredContent).toEqual({ slept: 2500 });
  });

  test("health checks do not keep an idle provider running", async () => {
    const hangar = await startWith({
      command: fixture("add"),
      idle_ttl_s: 0.6,
      health_check_interval_s: 0.1,
    });
    await hangar.invoke("p", "echo");
    await hangar.waitForState("p", "cold");
  });
});

describe("health", () => {
  test.each([
    ["legacy", "ping"],
    ["modern", "server/discover"],
  ])(
    "a %s provider that no longer answers %s becomes degraded and still gets calls",
    async (era) => {
      const dir = tempDir();
      const hangFile = join(dir, "hang");
      const log = join(dir, "starts");
      const hangar = await startWith({
        command: fixture("hangs-on-ping"),
        env: { HANG_FILE: hangFile, START_LOG: log, FIXTURE_ERA: era },
        health_check_interval_s: 0.2,
        max_consecutive_failures: 2,
      });
      await hangar.invoke("p", "echo");
      writeFileSync(hangFile, "");
      const degraded = await hangar.waitForState("p", "degraded");
      expect(degraded).toMatchObject({ alive: true, health_status: "degraded" });
      expect(degraded.reason).toContain("health check failed");
      expect((await hangar.invoke("p", "echo", { n: 1 })).structuredContent).toEqual({ n: 1 });
      rmSync(hangFile);
      await hangar.waitForState("p", "ready");
      expect(startedPids(log)).toHaveLength(1);
    },
  );

  test("a missed ping while a call is within its deadline does not count", async () => {
    const hangar = await startWith({
      command: fixture("hangs-on-ping"),
      health_check_interval_s: 0.1,
      max_consecutive_failures: 1,
    });
    await hangar.invoke("p", "echo");
    const call = hangar.invoke("p", "hang", {}, 4);
    await sleep(3000);
    expect((await hangar.details("p")).state).toBe("ready");
    await call;
  });

  test("checks never start a cold provider", async () => {
    const log = join(tempDir(), "starts");
    await startWith({
      command: fixture("counts-starts"),
      env: { START_LOG: log },
      health_check_interval_s: 0.1,
    });
    await sleep(700);
    expect(startedPids(log)).toEqual([]);
  });

  test("registry_health counts the providers by state and starts none", async () => {
    const config = configOf({
      cold: { command: fixture("add") },
      ready: { command: fixture("add") },
      dead: { command: ["no-such-program-here"] },
    });
    const hangar = await startStdio({ config });
    await hangar.invoke("ready", "echo");
    await hangar.invoke("dead", "echo");
    const { structuredContent } = await hangar.callTool("registry_health");
    expect(structuredContent.providers).toMatchObject({
      total: 3,
      ready: 1,
      cold: 1,
      degraded: 0,
      by_state: { cold: 1, ready: 1, dead: 1, degraded: 0, initializing: 0 },
    });
    expect(structuredContent.status).toBe("degraded");
  });
});

describe("a crash", () => {
  test.each([
    ["an exit", {}, "exit code 7"],
    ["a signal", { signal: "SIGSEGV" }, "signal SIGSEGV"],
  ])("by %s ends every call under way with how it ended", async (_, args, how) => {
    const hangar = await startWith({ command: fixture("crash-mid-call") });
    await hangar.invoke("p", "echo");
    const { structuredContent: error, isError } = await hangar.invoke("p", "crash", args);
    expect(isError).toBe(true);
    expect(error).toMatchObject({
      code: "provider_exited",
      type: "ProviderNotReadyError",
      error: expect.stringContaining(how),
    });
    const details = await hangar.waitForState("p", "ready");
    expect(details).toMatchObject({ run: 2, restarts: 1 });
    expect(hangar.stderr).toContain("asked to crash");
  });

  test("of an idle provider is noticed without a call", async () => {
    const log = join(tempDir(), "starts");
    const hangar = await startWith({ command: fixture("add"), env: { START_LOG: log } });
    await hangar.invoke("p", "echo");
    process.kill(startedPids(log)[0] ?? 0, "SIGKILL");
    const details = await waitFor("the next run", async () => {
      const now = await hangar.details("p");
      return now.run > 1 && now;
    });
    expect(details.last_exit).toEqual({ exit_code: null, signal: "SIGKILL" });
  });

  test("of one provider touches no other", async () => {
    const config = configOf({
      crashes: { command: fixture("crash-mid-call") },
      works: { command: fixture("slow") },
    });
    const hangar = await startStdio({ config });
    await hangar.invoke("works", "echo");
    const call = hangar.invoke("works", "sleep", { ms: 400 });
    await hangar.invoke("crashes", "crash");
    expect((await call).structuredContent).toEqual({ slept: 400 });
  });
});
