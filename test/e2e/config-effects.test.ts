/** What each key of the configuration file does, seen from outside. test/config/key-effects.ts names these tests. */
import { existsSync, mkdirSync, readFileSync, realpathSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import {
  chaos,
  configOf,
  fixture,
  type Json,
  type Reply,
  runCli,
  startedPids,
  startHttp,
  startStdio,
  StdioHangar,
  tempDir,
  waitFor,
} from "../harness.ts";
import { isAlive } from "../processes.ts";
import { HttpClient, legacy, startRemote } from "../remote-server.ts";

const UNBUILT_MODES = ["container", "docker", "podman", "group"];
const LEVELS = ["debug", "info", "warn", "error"];
const EXIT_CONFIG_INVALID = 78;

function startWith(provider: Json, rest: Json = {}): Promise<StdioHangar> {
  return startStdio({ config: configOf({ p: provider }, rest) });
}

/** Writes a configuration file as it stands; returns its path. */
function fileOf(text: string, name = "config.yaml", dir = tempDir()): string {
  const file = join(dir, name);
  writeFileSync(file, text);
  return file;
}

/** Writes an MCP client's own settings file whose programs carry the marker of this test file. */
function clientFile(servers: Record<string, Json>, rest: Json = {}, dir = tempDir()): string {
  const mcpServers = Object.fromEntries(
    Object.entries(servers).map(([name, server]) => [
      name,
      { ...server, env: { ...server.env, HANGAR_TEST: "${HANGAR_TEST}" } },
    ]),
  );
  return fileOf(JSON.stringify({ ...rest, mcpServers }), "client.json", dir);
}

/** The command that runs a fixture, in the form that clients use. */
function clientCommand(name: string, ...args: string[]): { command: string; args: string[] } {
  const [command = "", ...all] = fixture(name, ...args);
  return { command, args: all };
}

/** What registry_list shows. */
async function listed(hangar: StdioHangar): Promise<Json[]> {
  return (await hangar.callTool("registry_list")).structuredContent.providers;
}

async function names(hangar: StdioHangar): Promise<string[]> {
  return (await listed(hangar)).map(({ provider }) => provider);
}

async function toolNames(hangar: StdioHangar, provider = "p"): Promise<string[]> {
  const { structuredContent } = await hangar.callTool("registry_tools", { provider });
  return structuredContent.tools.map(({ name }: Json) => name);
}

/** The structured content of a call, whether it went well or not. */
async function resultOf(call: Promise<Json>): Promise<Json> {
  return (await call).structuredContent;
}

/** What the fixture `logs-messages` has got so far. */
function messages(log: string): { at: number; method: string }[] {
  if (!existsSync(log)) return [];
  const lines = readFileSync(log, "utf8").split("\n").filter(Boolean);
  return lines.map((line) => {
    const [at = "", method = ""] = line.split(" ");
    return { at: Number(at), method };
  });
}

function methods(log: string): string[] {
  return messages(log).map(({ method }) => method);
}

describe("a provider", () => {
  test("providers are listed under the names they have in the file", async () => {
    const ids = ["zeta", "Alpha-1", "alpha_2", "a"];
    const hangar = await startStdio({
      config: configOf(
        Object.fromEntries(ids.map((id) => [id, { command: fixture("env"), env: { WHO: id } }])),
      ),
    });
    expect(await names(hangar)).toEqual(ids);
    expect((await listed(hangar)).map(({ provider_id }) => provider_id)).toEqual(ids);
    for (const id of ["zeta", "Alpha-1"]) {
      expect((await resultOf(hangar.invoke(id, "env"))).WHO).toBe(id);
    }
    expect(await resultOf(hangar.invoke("alpha-1", "env"))).toMatchObject({
      code: "provider_not_found",
    });
  });

  test("mode decides how a provider is run, and one not built yet leaves it dead with the reason", async () => {
    const unbuilt = UNBUILT_MODES.map((mode) => [mode, { mode, image: "x", members: [] }]);
    const config = configOf({
      named: { mode: "subprocess", command: fixture("add") },
      unnamed: { command: fixture("add") },
      ...Object.fromEntries(unbuilt),
    });
    const hangar = await startStdio({ config });
    for (const id of ["named", "unnamed"]) {
      expect(await resultOf(hangar.invoke(id, "add", { a: 5, b: 3 }))).toEqual({ result: 8 });
    }
    const providers = await listed(hangar);
    for (const mode of UNBUILT_MODES) {
      const reason = expect.stringContaining(`mode \`${mode}\` is not built yet`);
      expect(providers.find(({ provider }) => provider === mode)).toMatchObject({
        state: "dead",
        mode,
        alive: false,
        reason,
      });
      const refused = await hangar.invoke(mode, "add");
      expect(refused.isError).toBe(true);
      expect(refused.structuredContent).toMatchObject({ code: "provider_dead", error: reason });
    }
    const started = await hangar.callTool("registry_start", { provider: "container" });
    expect(started.structuredContent).toMatchObject({
      code: "not_startable",
      error: expect.stringContaining("not built yet"),
    });
    expect(await hangar.details("container")).toMatchObject({ state: "dead" });
    const check = await runCli(["config", "check", "--config", config]);
    expect(check.code).toBe(EXIT_CONFIG_INVALID);
    for (const mode of UNBUILT_MODES) expect(check.stdout).toContain(`providers.${mode}.mode`);
  });

  test("endpoint is where a remote provider is called", async () => {
    const servers = [await startRemote(legacy()), await startRemote(legacy())];
    const providers = Object.fromEntries(
      servers.map(({ url }, n) => [`p${n}`, { mode: "remote", endpoint: `${url}/${n}?n=${n}` }]),
    );
    const hangar = await startStdio({ config: fileOf(JSON.stringify({ providers })) });
    for (const [n, server] of servers.entries()) {
      expect(await resultOf(hangar.invoke(`p${n}`, "echo", { n }))).toEqual({ n });
      expect(server.of("tools/call")).toHaveLength(1);
      for (const { path } of server.received) expect(path).toBe(`/mcp/${n}?n=${n}`);
    }
  });

  test("headers are sent with every request to the endpoint", async () => {
    const server = await startRemote(legacy());
    const headers = { Authorization: "Bearer ${KEY}", "X-Team": "a b" };
    const providers = { p: { mode: "remote", endpoint: server.url, headers } };
    const config = fileOf(JSON.stringify({ providers }));
    const hangar = await startStdio({ config, env: { KEY: "of-the-test" } });
    expect(await resultOf(hangar.invoke("p", "echo", { n: 1 }))).toEqual({ n: 1 });
    await hangar.close();
    expect(server.received.length).toBeGreaterThan(4);
    for (const received of server.received) {
      expect(received.headers).toMatchObject({
        authorization: "Bearer of-the-test",
        "x-team": "a b",
      });
    }
  });

  test("scope session gives each client a run of its own", async () => {
    const command = fixture("env");
    const hangar = await startHttp({
      config: configOf({ own: { command, scope: "session" }, all: { command, scope: "shared" } }),
    });
    const pids = async (id: string): Promise<number[]> => {
      const clients = [1, 2].map(() => new HttpClient(`${hangar.url}/${id}`));
      return Promise.all(
        clients.map(async (client) => {
          await client.initialize();
          return (await client.result("pid")).structuredContent.pid;
        }),
      );
    };
    expect(new Set(await pids("own")).size).toBe(2);
    expect(new Set(await pids("all")).size).toBe(1);
  });

  test("command runs the program with its arguments as they stand", async () => {
    const args = ["a b", "$HOME", "*", "; exit 1", "`id`", "$(id)", "q\"u'o\\te", "é", "--x=1\n2"];
    const hangar = await startWith({ command: fixture("env", ...args) });
    expect(await resultOf(hangar.invoke("p", "argv"))).toEqual({ argv: args });
  });

  test("env reaches the provider's process", async () => {
    const env = { PLAIN: "a b $HOME", EMPTY: "", LANG: "tlh", "odd.name": "x\ny" };
    const config = configOf({
      p: { command: fixture("env"), env },
      other: { command: fixture("env") },
    });
    const hangar = await startStdio({ config, env: { LANG: "C" } });
    expect(await resultOf(hangar.invoke("p", "env"))).toMatchObject(env);
    const other = await resultOf(hangar.invoke("other", "env"));
    expect(Object.keys(other)).not.toContain("PLAIN");
    expect(other.LANG).toBe("C");
  });

  test("inherit_env hands on the variables it names and no others", async () => {
    const hangar = await startStdio({
      config: configOf({
        p: {
          command: fixture("env"),
          inherit_env: ["WANTED", "BOTH", "NOT_SET_ANYWHERE"],
          env: { BOTH: "declared" },
        },
        q: { command: fixture("env") },
      }),
      env: { WANTED: "yes", BOTH: "inherited", SECRET: "no", MCP_HANGAR_TOKEN: "no" },
    });
    const env = await resultOf(hangar.invoke("p", "env"));
    expect(env).toMatchObject({ WANTED: "yes", BOTH: "declared" });
    for (const name of ["NOT_SET_ANYWHERE", "SECRET", "MCP_HANGAR_TOKEN"]) {
      expect(Object.keys(env)).not.toContain(name);
    }
    expect(Object.keys(await resultOf(hangar.invoke("q", "env")))).not.toContain("WANTED");
  });

  test("cwd is where the provider runs, by default the configuration file's folder", async () => {
    const elsewhere = tempDir();
    const command = fixture("env");
    const config = configOf({
      usual: { command },
      relative: { command, cwd: "deep/er" },
      absolute: { command, cwd: elsewhere },
      missing: { command, cwd: "nowhere" },
    });
    const folder = realpathSync(join(config, ".."));
    mkdirSync(join(folder, "deep", "er"), { recursive: true });
    const hangar = await startStdio({ config });
    for (const [id, cwd] of [
      ["usual", folder],
      ["relative", join(folder, "deep", "er")],
      ["absolute", realpathSync(elsewhere)],
    ] as const) {
      expect(await resultOf(hangar.invoke(id, "cwd"))).toEqual({ cwd });
    }
    expect(await resultOf(hangar.invoke("missing", "cwd"))).toMatchObject({
      code: "not_startable",
      error: expect.stringMatching(/nowhere does not exist.*cwd/),
    });
  });

  test("enabled false leaves a provider out of the list and refuses calls to it", async () => {
    const log = join(tempDir(), "starts");
    const hangar = await startStdio({
      config: configOf({
        off: { command: fixture("add"), env: { START_LOG: log }, enabled: false },
        on: { command: fixture("add"), enabled: true },
      }),
    });
    expect(await names(hangar)).toEqual(["on"]);
    for (const call of [
      hangar.invoke("off", "add", { a: 1, b: 2 }),
      hangar.callTool("registry_start", { provider: "off" }),
    ]) {
      expect(await resultOf(call)).toMatchObject({
        code: "provider_not_found",
        type: "ProviderNotFoundError",
      });
    }
    expect(startedPids(log)).toEqual([]);
    expect(await resultOf(hangar.invoke("on", "add", { a: 1, b: 2 }))).toEqual({ result: 3 });
  });

  test("description appears in registry_list", async () => {
    const description = "Adds numbers – slowly.";
    const hangar = await startStdio({
      config: configOf({
        with: { command: fixture("add"), description },
        without: { command: fixture("add") },
        dead: { mode: "container", description: "Not yet." },
      }),
    });
    const providers = await listed(hangar);
    expect(providers.map((one) => one.description)).toEqual([description, undefined, "Not yet."]);
  });

  test("idle_ttl_s stops an idle provider", async () => {
    const dir = tempDir();
    const logs = { brief: join(dir, "brief"), endless: join(dir, "endless") };
    const hangar = await startStdio({
      config: configOf({
        brief: { command: fixture("add"), env: { START_LOG: logs.brief }, idle_ttl_s: 1 },
        endless: { command: fixture("add"), env: { START_LOG: logs.endless }, idle_ttl_s: 0 },
      }),
    });
    await hangar.invoke("endless", "echo");
    await hangar.invoke("brief", "echo");
    const answered = performance.now();
    await hangar.waitForState("brief", "cold");
    expect(performance.now() - answered).toBeGreaterThan(950);
    await waitFor("its process to end", () => !startedPids(logs.brief).some(isAlive));
    expect(await hangar.details("endless")).toMatchObject({ state: "ready", alive: true });
    expect(startedPids(logs.endless).filter(isAlive)).toHaveLength(1);
  });

  test("health_check_interval_s sets how often a provider is asked whether it is well", async () => {
    const dir = tempDir();
    const logs = { often: join(dir, "often"), rarely: join(dir, "rarely") };
    const provider = (log: string, health_check_interval_s: number) => ({
      command: fixture("logs-messages"),
      env: { MESSAGE_LOG: log },
      protocol: "legacy",
      health_check_interval_s,
    });
    const hangar = await startStdio({
      config: configOf({
        often: provider(logs.often, 0.4),
        rarely: provider(logs.rarely, 3600),
      }),
    });
    await hangar.invoke("rarely", "echo");
    await hangar.invoke("often", "echo");
    const pings = await waitFor("five pings", () => {
      const found = messages(logs.often).filter(({ method }) => method === "ping");
      return found.length >= 5 ? found : undefined;
    });
    const gaps = pings
      .slice(1, 5)
      .map(({ at }, index) => at - (pings[index]?.at ?? 0))
      .toSorted((a, b) => a - b);
    // The interval less its jitter; and, as a machine may be busy for once, the shorter half for the other side.
    expect(gaps[0]).toBeGreaterThanOrEqual(350);
    expect(gaps[1]).toBeLessThan(600);
    expect(methods(logs.rarely)).not.toContain("ping");
  });

  test("max_consecutive_failures is how many failures make a provider degraded", async () => {
    const provider = { command: fixture("hangs-on-ping"), timeout_s: 0.15 };
    const hangar = await startStdio({
      config: configOf({
        one: { ...provider, max_consecutive_failures: 1 },
        two: { ...provider, max_consecutive_failures: 2 },
        usual: provider,
      }),
    });
    const fail = async (id: string): Promise<void> => {
      expect(await resultOf(hangar.invoke(id, "hang"))).toMatchObject({ code: "timeout" });
    };
    for (const [id, allowed] of [
      ["one", 0],
      ["two", 1],
      ["usual", 2],
    ] as const) {
      await hangar.callTool("registry_start", { provider: id });
      for (let failures = 1; failures <= allowed; failures++) {
        await fail(id);
        expect(await hangar.details(id)).toMatchObject({
          state: "ready",
          health: { consecutive_failures: failures },
        });
      }
      await fail(id);
      expect(await hangar.details(id)).toMatchObject({
        state: "degraded",
        alive: true,
        health: { consecutive_failures: allowed + 1 },
      });
    }
    // They count only in a row.
    await hangar.invoke("two", "echo", {}, 5);
    await fail("two");
    await hangar.invoke("two", "echo", {}, 5);
    await fail("two");
    expect((await hangar.details("two")).state).toBe("ready");
  });

  test("startup_timeout_s ends a start that never answers", async () => {
    const log = join(tempDir(), "starts");
    const command = fixture("never-answers");
    const hangar = await startStdio({
      config: configOf({
        hasty: { command, env: { START_LOG: log }, startup_timeout_s: 2 },
        patient: { command, startup_timeout_s: 60 },
      }),
    });
    const patient = hangar.callTool("registry_start", { provider: "patient" });
    patient.catch(() => undefined); // when the test has failed before it looks at it
    const began = performance.now();
    const { isError, structuredContent } = await hangar.invoke("hasty", "echo");
    expect(performance.now() - began).toBeLessThan(2500);
    expect(isError).toBe(true);
    expect(structuredContent).toMatchObject({
      code: "start_timeout",
      error: expect.stringContaining("startup_timeout_s (2 s)"),
    });
    expect(startedPids(log)).toHaveLength(1);
    expect(startedPids(log).filter(isAlive)).toEqual([]);
    expect(await hangar.details("hasty")).toMatchObject({ state: "degraded", alive: false });
    expect((await hangar.details("patient")).state).toBe("initializing");
    await hangar.callTool("registry_stop", { provider: "patient" });
    expect(await resultOf(patient)).toMatchObject({ code: "provider_stopped" });
  });

  test("timeout_s ends a call that names no timeout of its own", async () => {
    const hangar = await startStdio({
      config: configOf({
        hasty: { command: fixture("slow"), timeout_s: 0.3 },
        usual: { command: fixture("slow") },
      }),
    });
    await hangar.callTool("registry_start", { provider: "hasty" });
    const began = performance.now();
    expect(await resultOf(hangar.invoke("hasty", "sleep", { ms: 20_000 }))).toMatchObject({
      code: "timeout",
      error: expect.stringContaining("after 0.3s"),
    });
    expect(performance.now() - began).toBeLessThan(1500);
    const longer = { ms: 700 };
    expect(await resultOf(hangar.invoke("hasty", "sleep", longer, 5))).toEqual({ slept: 700 });
    expect(await resultOf(hangar.invoke("usual", "sleep", longer))).toEqual({ slept: 700 });
  });

  test("timeout_s begins anew with each progress notification, but a deadline that the caller chose does not", async () => {
    const p = { command: chaos(), timeout_s: 0.6 };
    const hangar = await startStdio({ config: configOf({ p }), args: ["--provider", "p"] });
    const call = (args: Json, token?: number): Promise<Reply> => {
      const _meta = token === undefined ? {} : { progressToken: token };
      return hangar.request("tools/call", { name: "progress", arguments: args, _meta });
    };
    const steps = { steps: 6, every_ms: 250 };
    expect((await call(steps, 1)).result.structuredContent).toEqual({ steps: 6 });
    // Who does not ask for progress does not get any, so nothing shows that it is at work.
    expect((await call(steps)).error.data).toMatchObject({ code: "timeout", timeout_s: 0.6 });
    const silent = { steps: 1, every_ms: 20_000 };
    expect((await call(silent, 2)).error.data).toMatchObject({ code: "timeout" });
    const registry = await startWith(p);
    await registry.callTool("registry_start", { provider: "p" });
    const meta = { progressToken: 3 };
    const args = { provider: "p", tool: "progress", arguments: steps };
    const extended = await registry.callTool("registry_invoke", args, meta);
    expect(extended.structuredContent).toEqual({ steps: 6 });
    const chosen = await registry.callTool("registry_invoke", { ...args, timeout: 0.6 }, meta);
    expect(chosen.structuredContent).toMatchObject({ code: "timeout" });
  });

  test("max_timeout_s ends any call, whatever its progress and whatever the caller asks for", async () => {
    const p = { command: chaos(), timeout_s: 0.6, max_timeout_s: 1.2 };
    const hangar = await startWith(p);
    await hangar.callTool("registry_start", { provider: "p" });
    const args = { provider: "p", tool: "progress", arguments: { steps: 60, every_ms: 200 } };
    const began = performance.now();
    const talkative = await hangar.callTool("registry_invoke", args, { progressToken: 1 });
    expect(talkative.structuredContent).toMatchObject({
      code: "timeout",
      details: { timeout_s: 1.2 },
    });
    expect(performance.now() - began).toBeGreaterThan(1150);
    const patient = await resultOf(hangar.invoke("p", "sleep", { ms: 20_000 }, 30));
    expect(patient).toMatchObject({ code: "timeout", details: { timeout_s: 1.2 } });
  });

  test("tool_timeouts_s stands in for timeout_s for the tools that match", async () => {
    const tool_timeouts_s = { "sl*": 0.3, "*": 5 };
    const hangar = await startWith({ command: chaos(), timeout_s: 60, tool_timeouts_s });
    await hangar.callTool("registry_start", { provider: "p" });
    expect(await resultOf(hangar.invoke("p", "sleep", { ms: 900 }))).toMatchObject({
      ...{ code: "timeout", details: { timeout_s: 0.3, deadline: "provider" } },
    });
    const slow = { steps: 1, every_ms: 900 };
    expect(await resultOf(hangar.invoke("p", "progress", slow))).toEqual({ steps: 1 });
  });

  test("circuit_breaker.failure_rate and min_calls decide when the breaker opens", async () => {
    const p = (circuit_breaker: Json): Json => ({
      command: chaos("--hang", "tools/call"),
      timeout_s: 0.1,
      circuit_breaker,
    });
    const hangar = await startStdio({
      config: configOf({ soon: p({ min_calls: 2 }), later: p({ min_calls: 4 }), usual: p({}) }),
    });
    for (const [name, calls] of [
      ["soon", 2],
      ["later", 4],
      ["usual", 10],
    ] as const) {
      await hangar.callTool("registry_start", { provider: name });
      for (let n = 0; n < calls; n++) {
        expect(await resultOf(hangar.invoke(name, "echo"))).toMatchObject({ code: "timeout" });
      }
      expect(await resultOf(hangar.invoke(name, "echo"))).toMatchObject({ code: "circuit_open" });
    }
    // Half of the calls fail: enough for 0.5, not for 0.6.
    const half = (failure_rate: number): Json => ({
      command: chaos(),
      tool_timeouts_s: { sleep: 0.1 },
      circuit_breaker: { min_calls: 4, failure_rate },
    });
    const mixed = await startStdio({ config: configOf({ at: half(0.5), above: half(0.6) }) });
    for (const name of ["at", "above"]) {
      await mixed.callTool("registry_start", { provider: name });
      for (let n = 0; n < 2; n++) {
        await mixed.invoke(name, "echo");
        await mixed.invoke(name, "sleep", { ms: 5_000 });
      }
    }
    expect((await mixed.details("at")).circuit_breaker.state).toBe("open");
    expect((await mixed.details("above")).circuit_breaker.state).toBe("closed");
  });

  test("circuit_breaker.slow_call_s makes slow calls count as failed", async () => {
    const p = (slow_call_s: number): Json => ({
      command: chaos(),
      circuit_breaker: { min_calls: 2, slow_call_s },
    });
    const hangar = await startStdio({ config: configOf({ strict: p(0.2), usual: p(0) }) });
    for (const name of ["strict", "usual"]) {
      await hangar.callTool("registry_start", { provider: name });
      for (let n = 0; n < 2; n++) await hangar.invoke(name, "sleep", { ms: 300 });
    }
    expect((await hangar.details("strict")).circuit_breaker.state).toBe("open");
    expect((await hangar.details("usual")).circuit_breaker.state).toBe("closed");
  });

  test("circuit_breaker.force opens the breaker or keeps it closed", async () => {
    const p = { command: chaos("--hang", "tools/call"), timeout_s: 0.1 };
    const breaker = { min_calls: 1, force: "closed" };
    const hangar = await startStdio({
      config: configOf({
        shut: { ...p, circuit_breaker: { force: "open" } },
        free: { ...p, circuit_breaker: breaker },
      }),
    });
    expect(await resultOf(hangar.invoke("shut", "echo"))).toMatchObject({
      ...{ code: "circuit_open", error: expect.stringContaining("force") },
    });
    await hangar.callTool("registry_start", { provider: "free" });
    for (let n = 0; n < 3; n++) {
      expect(await resultOf(hangar.invoke("free", "echo"))).toMatchObject({ code: "timeout" });
    }
  });

  test("restart.window_s is the time in which crashes are counted", async () => {
    const p = (window_s: number): Json => ({
      command: fixture("crash-on-start"),
      restart: { limit: 2, window_s },
    });
    const hangar = await startStdio({ config: configOf({ short: p(1), usual: p(60) }) });
    for (let n = 0; n < 2; n++) {
      if (n > 0) await sleep(1_100);
      await hangar.callTool("registry_start", { provider: "short" });
      await hangar.callTool("registry_start", { provider: "usual" });
    }
    expect((await hangar.details("short")).state).toBe("degraded");
    expect((await hangar.details("usual")).state).toBe("dead");
  });

  test("protocol decides which handshake a provider gets first", async () => {
    const dir = tempDir();
    const provider = (id: string, FIXTURE_ERA: string, protocol?: string) => ({
      // With the id as an argument, as what is known of one must not be taken for known of another.
      command: fixture("logs-messages", id),
      env: { MESSAGE_LOG: join(dir, id), FIXTURE_ERA },
      ...(protocol === undefined ? {} : { protocol }),
    });
    const hangar = await startStdio({
      config: configOf({
        usual: provider("usual", "legacy"),
        auto: provider("auto", "dual", "auto"),
        legacy: provider("legacy", "dual", "legacy"),
        modern: provider("modern", "dual", "modern"),
        wrong: provider("wrong", "legacy", "modern"),
      }),
    });
    const legacy = ["initialize", "notifications/initialized", "tools/list"];
    const modern = ["server/discover", "tools/list"];
    for (const [id, expected] of [
      ["usual", ["server/discover", ...legacy]],
      ["auto", modern],
      ["legacy", legacy],
      ["modern", modern],
    ] as const) {
      await hangar.callTool("registry_start", { provider: id });
      expect(await hangar.details(id)).toMatchObject({ state: "ready" });
      expect(methods(join(dir, id))).toEqual(expected);
    }
    expect((await hangar.details("legacy")).meta.protocol).toBe("legacy");
    expect((await hangar.details("modern")).meta.protocol).toBe("modern");
    // What is said in the file is not tried out.
    expect(await resultOf(hangar.invoke("wrong", "echo"))).toMatchObject({ code: "start_failed" });
    expect(methods(join(dir, "wrong"))).toEqual(["server/discover"]);
  });

  test("tools.deny wins over tools.allow", async () => {
    const hangar = await startWith({
      command: fixture("env"),
      tools: { allow: ["env", "p*", "cwd"], deny: ["?id", "c*"] },
    });
    expect(await toolNames(hangar)).toEqual(["env"]);
    for (const tool of ["pid", "cwd"]) {
      expect(await resultOf(hangar.invoke("p", tool))).toMatchObject({ code: "tool_not_found" });
    }
    expect(await resultOf(hangar.invoke("p", "env"))).toHaveProperty("PATH");
  });

  test("tools.allow offers only the tools that match", async () => {
    const config = configOf({
      p: { command: fixture("env"), tools: { allow: ["?nv", "argv"] } },
      none: { command: fixture("env"), tools: { allow: [] } },
    });
    const hangar = await startStdio({ config });
    const offered = ["env", "argv"];
    expect(await toolNames(hangar)).toEqual(offered);
    expect(await toolNames(hangar, "none")).toEqual([]);
    const started = await hangar.callTool("registry_start", { provider: "p" });
    expect(started.structuredContent.tools).toEqual(offered);
    const details = await hangar.details("p");
    expect(details.tools.map(({ name }: Json) => name)).toEqual(offered);
    expect((await listed(hangar)).map((one) => one.tools_count)).toEqual([2, 0]);
    expect(await resultOf(hangar.invoke("p", "argv"))).toEqual({ argv: [] });
    for (const tool of ["pid", "ARGV", "echo"]) {
      expect(await resultOf(hangar.invoke("p", tool))).toMatchObject({ code: "tool_not_found" });
    }
    const { stdout } = await runCli(["tools", "p", "--config", config, "--json"]);
    expect(JSON.parse(stdout).map(({ name }: Json) => name)).toEqual(offered);
  });

  test("tools.deny hides a tool and refuses calls to it", async () => {
    const log = join(tempDir(), "messages");
    const hangar = await startStdio({
      config: configOf({
        p: { command: fixture("env"), tools: { deny: ["*v", "pid"] } },
        logs: {
          command: fixture("logs-messages"),
          env: { MESSAGE_LOG: log },
          tools: { deny: ["echo"] },
        },
      }),
    });
    expect(await toolNames(hangar)).toEqual(["echo", "cwd"]);
    for (const tool of ["env", "argv", "pid"]) {
      const { isError, structuredContent } = await hangar.invoke("p", tool);
      expect(isError).toBe(true);
      // In the words used for a tool that does not exist, so that nothing is given away.
      const nothing = await resultOf(hangar.invoke("p", "nothing"));
      expect(structuredContent).toEqual(
        JSON.parse(JSON.stringify(nothing).replaceAll("nothing", tool)),
      );
    }
    expect(await toolNames(hangar, "logs")).toEqual([]);
    expect(await resultOf(hangar.invoke("logs", "echo"))).toMatchObject({ code: "tool_not_found" });
    expect(methods(log)).toContain("tools/list");
    expect(methods(log)).not.toContain("tools/call");
  });
});

describe("a client's own file", () => {
  test("mcpServers of a client's own file are served as they are", async () => {
    const args = ["a b", "", "$HOME", "--flag"];
    const config = clientFile(
      {
        "my-env": { ...clientCommand("env", ...args), autoApprove: ["env"], timeout: 60 },
        "Add two numbers!": clientCommand("add"),
      },
      { globalShortcut: "Ctrl+Space", preferences: { theme: "dark" } },
    );
    const hangar = await startStdio({ config });
    expect(await names(hangar)).toEqual(["my-env", "Add-two-numbers-"]);
    expect(await resultOf(hangar.invoke("my-env", "argv"))).toEqual({ argv: args });
    const sum = hangar.invoke("Add-two-numbers-", "add", { a: 5, b: 3 });
    expect(await resultOf(sum)).toEqual({ result: 8 });
    for (const ignored of ["globalShortcut", "preferences", "autoApprove", "timeout"]) {
      expect(hangar.stderr).toMatch(new RegExp(`${ignored}\` is not a key of Hangar`));
    }
    expect(hangar.stderr).toContain("it is called `Add-two-numbers-` here");
    const check = await runCli(["config", "check", "--config", config]);
    expect(check.code).toBe(0);
  });

  test("mcpServers stand beside providers in one file", async () => {
    const config = clientFile(
      { theirs: clientCommand("add") },
      { providers: { ours: { command: fixture("add"), inherit_env: ["HANGAR_TEST"] } } },
    );
    const hangar = await startStdio({ config });
    expect(await names(hangar)).toEqual(["ours", "theirs"]);
    for (const id of ["ours", "theirs"]) {
      expect(await resultOf(hangar.invoke(id, "add", { a: 5, b: 3 }))).toEqual({ result: 8 });
    }
  });

  test("env of an mcpServers entry reaches the provider's process", async () => {
    const hangar = await startStdio({
      config: clientFile({
        p: {
          ...clientCommand("env"),
          env: { PLAIN: "x", KEY: "${API_KEY}", PLACE: "${PLACE_NOT_SET:-here}", KEPT: "$${KEY}" },
        },
      }),
      env: { API_KEY: "k", OTHER: "no" },
    });
    const env = await resultOf(hangar.invoke("p", "env"));
    expect(env).toMatchObject({ PLAIN: "x", KEY: "k", PLACE: "here", KEPT: "${KEY}" });
    expect(Object.keys(env)).not.toContain("OTHER");
    expect(Object.keys(env)).not.toContain("API_KEY");
  });

  test("cwd of an mcpServers entry is where the provider runs", async () => {
    const elsewhere = tempDir();
    const folder = realpathSync(tempDir());
    mkdirSync(join(folder, "inner"));
    const program = clientCommand("env");
    const config = clientFile(
      {
        usual: program,
        relative: { ...program, cwd: "./inner" },
        absolute: { ...program, cwd: elsewhere },
      },
      {},
      folder,
    );
    const hangar = await startStdio({ config });
    for (const [id, cwd] of [
      ["usual", folder],
      ["relative", join(folder, "inner")],
      ["absolute", realpathSync(elsewhere)],
    ] as const) {
      expect(await resultOf(hangar.invoke(id, "cwd"))).toEqual({ cwd });
    }
  });

  test("enabled false and disabled true leave an mcpServers entry out", async () => {
    const program = clientCommand("add");
    const hangar = await startStdio({
      config: clientFile({
        plain: program,
        not_disabled: { ...program, disabled: false },
        enabled: { ...program, enabled: true },
        disabled: { ...program, disabled: true },
        not_enabled: { ...program, enabled: false },
        both: { ...program, enabled: true, disabled: true },
      }),
    });
    expect(await names(hangar)).toEqual(["plain", "not_disabled", "enabled"]);
    for (const id of ["disabled", "not_enabled", "both"]) {
      expect(await resultOf(hangar.invoke(id, "add", { a: 1, b: 2 }))).toMatchObject({
        code: "provider_not_found",
      });
    }
  });

  test("type of an mcpServers entry must fit its command", async () => {
    const program = clientCommand("add");
    const config = clientFile({
      stdio: { ...program, type: "stdio" },
      http: { ...program, type: "http" },
      sse: { ...program, type: "sse" },
      reversed: { url: "http://127.0.0.1:9/mcp", type: "stdio" },
    });
    const hangar = await startStdio({ config });
    expect(await resultOf(hangar.invoke("stdio", "add", { a: 5, b: 3 }))).toEqual({ result: 8 });
    for (const [id, reason] of [
      ["http", "an entry with `command` is of type `stdio`"],
      ["sse", "an entry with `command` is of type `stdio`"],
      ["reversed", "an entry with `url` is not of type `stdio`"],
    ] as const) {
      expect(await resultOf(hangar.invoke(id, "add"))).toMatchObject({
        code: "provider_dead",
        error: expect.stringContaining(reason),
      });
    }
    const check = await runCli(["config", "check", "--config", config]);
    expect(check.code).toBe(EXIT_CONFIG_INVALID);
    for (const id of ["http", "sse"]) expect(check.stdout).toContain(`mcpServers.${id}.type`);
    expect(check.stdout).not.toContain("mcpServers.stdio");
  });

  test("url in an mcpServers entry makes a remote provider", async () => {
    const server = await startRemote(legacy());
    const config = clientFile({
      plain: { url: server.url },
      typed: { url: server.url, type: "http" },
      keyless: { url: server.url, headers: { Authorization: "Bearer ${REMOTE_KEY_NOT_SET}" } },
    });
    const hangar = await startStdio({ config });
    for (const id of ["plain", "typed"]) {
      expect(await resultOf(hangar.invoke(id, "echo", { id }))).toEqual({ id });
      expect(await hangar.details(id)).toMatchObject({ mode: "remote", state: "ready" });
    }
    const [, , keyless] = await listed(hangar);
    expect(keyless).toMatchObject({ mode: "remote", state: "dead" });
    expect(keyless?.reason).toContain("REMOTE_KEY_NOT_SET is not set");
    expect(hangar.stderr).not.toContain("url` is not a key of Hangar");
  });

  test("headers of an mcpServers entry are sent with every request to its url", async () => {
    const server = await startRemote(legacy());
    const config = clientFile({
      p: { url: server.url, headers: { Authorization: "Bearer ${KEY}" } },
    });
    const hangar = await startStdio({ config, env: { KEY: "of-the-test" } });
    expect(await resultOf(hangar.invoke("p", "echo", { n: 1 }))).toEqual({ n: 1 });
    for (const { headers } of server.received)
      expect(headers.authorization).toBe("Bearer of-the-test");
    expect(hangar.stderr).not.toContain("of-the-test");
  });
});

describe("a setting", () => {
  /** Makes Hangar log on every level, ends it, and returns its configuration's folder and its stderr. */
  async function logged(
    logging: Json,
    dir = tempDir(),
    args: string[] = [],
  ): Promise<{ dir: string; stderr: string }> {
    const noisy = { command: fixture("garbage-stdout"), inherit_env: ["HANGAR_TEST"] };
    const providers = { noisy, missing: { command: ["no-such-program-here"] } };
    const config = fileOf(JSON.stringify({ logging, providers }), "config.yaml", dir);
    const hangar = await startStdio({ config, args });
    await hangar.invoke("noisy", "echo");
    await hangar.invoke("missing", "echo");
    await hangar.close();
    return { dir, stderr: hangar.stderr };
  }

  /** The levels that occur in a log, the least important first; its lines must be JSON. */
  function levels(log: string): string[] {
    const lines = log.trim().split("\n");
    const found = lines.map((line): string => JSON.parse(line).level);
    return LEVELS.filter((level) => found.includes(level));
  }

  test("logging.file takes the log, and stderr no longer gets it", async () => {
    const [{ dir, stderr }, without] = await Promise.all([
      logged({ file: "logs/deep/hangar.log" }),
      logged({}),
    ]);
    // Of the level info, as no other is named.
    expect(levels(without.stderr)).toEqual(["info", "warn", "error"]);
    const file = join(dir, "logs", "deep", "hangar.log");
    expect(stderr).toBe("");
    const first = readFileSync(file, "utf8");
    expect(levels(first)).toEqual(["info", "warn", "error"]);
    await logged({ file }, dir);
    const second = readFileSync(file, "utf8");
    expect(second.startsWith(first)).toBe(true);
    expect(second.length).toBeGreaterThan(first.length);
  });

  test.each([
    ["/tmp", "logging.file: /tmp is a folder; name a file in it, such as /tmp/mcp-hangar.log"],
    [
      "/proc/no/such/file.log",
      "logging.file: /proc/no/such/file.log is no file that can be written (ENOENT: no such file or directory, mkdir '/proc/no'); " +
        "name another, or leave the key out to log to stderr",
    ],
  ])("logging.file %s is refused with the key and what to do", async (file, message) => {
    const config = configOf({ p: { command: fixture("add") } }, { logging: { file } });
    const { code, stderr } = await runCli(["serve", "--config", config]);
    expect(stderr).toBe(`mcp-hangar: ${message}\n`);
    expect(code).toBe(78);
  });

  test("logging.file on a full disk costs the log and nothing else", async () => {
    const config = configOf(
      { p: { command: fixture("add") } },
      { logging: { file: "/dev/full", level: "debug" } },
    );
    const hangar = await startStdio({ config });
    for (let n = 0; n < 3; n++) {
      expect((await hangar.invoke("p", "echo", { n })).structuredContent).toEqual({ n });
    }
    expect((await hangar.close()).code).toBe(0);
  });

  test("logging.level leaves out what is less important", async () => {
    const cases = [
      { level: "debug", expected: LEVELS },
      { level: "WARNING", expected: ["warn", "error"] },
      { level: "error", expected: ["error"] },
      { level: "error", args: ["--log-level", "debug"], expected: LEVELS },
    ];
    await Promise.all(
      cases.map(async ({ level, args, expected }) => {
        const { stderr } = await logged({ level }, tempDir(), args);
        expect({ level, args, levels: levels(stderr) }).toEqual({ level, args, levels: expected });
      }),
    );
  });

  test("allowed_origins lets a web page of that origin in and no other", async () => {
    const providers = { p: { command: fixture("add") } };
    const ping = { jsonrpc: "2.0", id: 1, method: "ping" };
    const hangar = await startHttp({
      config: configOf(providers, {
        allowed_origins: ["https://App.example.com:443", "http://other.example:8080"],
      }),
    });
    const session = hangar.headersFor(ping);
    for (const origin of ["https://app.example.com", "http://other.example:8080"]) {
      const {
        status,
        headers,
        messages: replies,
      } = await hangar.post(ping, { ...session, origin });
      expect([status, replies]).toEqual([200, [{ jsonrpc: "2.0", id: 1, result: {} }]]);
      expect(headers["access-control-allow-origin"]).toBe(origin);
      expect((await hangar.send("OPTIONS", "/mcp", { origin })).status).toBe(204);
    }
    for (const origin of [
      "https://evil.example",
      "http://app.example.com",
      "https://app.example.com:8443",
      "https://app.example.com.evil.example",
      "https://sub.app.example.com",
      "http://other.example",
      "null",
    ]) {
      const { status, headers, text } = await hangar.post(ping, { ...session, origin });
      expect([origin, status]).toEqual([origin, 403]);
      expect(text).toContain("allowed_origins");
      expect(headers["access-control-allow-origin"]).toBeUndefined();
    }
    const closed = await startHttp({ config: configOf(providers) });
    const refused = await closed.post(ping, {
      ...closed.headersFor(ping),
      origin: "https://app.example.com",
    });
    expect(refused.status).toBe(403);
  });

  test("max_message_bytes refuses a larger message", async () => {
    const limit = 4096;
    const config = configOf({ p: { command: fixture("huge-line") } }, { max_message_bytes: limit });
    /** A ping that is `bytes` long. */
    const ping = (id: string, bytes: number): string => {
      const head = `{"jsonrpc":"2.0","id":"${id}","method":"ping","params":{"x":"`;
      return `${head}${"x".repeat(bytes - head.length - 3)}"}}`;
    };

    const stdio = await startStdio({ config });
    const fits = stdio.replyTo("fits");
    stdio.send(ping("fits", limit));
    expect((await fits).result).toEqual({});
    stdio.send(ping("too long", limit + 1));
    const { error } = await waitFor("the refusal", () =>
      stdio.notifications.find((message) => message.error !== undefined),
    );
    expect(error.data.code).toBe("message_too_large");

    // The other direction: what the provider answers.
    expect((await stdio.invoke("p", "huge", { bytes: limit })).isError).not.toBe(true);
    const cut = await stdio.invoke("p", "huge", { bytes: limit + 1 }, 0.5);
    expect(cut.structuredContent).toMatchObject({ code: "unreadable_answer" });
    expect((await stdio.details("p")).noise_lines).toBe(1);

    const http = await startHttp({ config });
    const headers = http.headersFor({});
    expect((await http.post(ping("a", limit), headers)).status).toBe(200);
    const refused = await http.post(ping("b", limit + 1), headers);
    expect(refused.status).toBe(413);
    expect(refused.messages[0].error.data.code).toBe("message_too_large");
  });
});

describe("variables in a YAML file", () => {
  const [node = "", program = ""] = fixture("env");

  test("are replaced once, with their defaults, and an escaped reference stays", async () => {
    const config = fileOf(`
providers:
  p: # a comment
    command:
      - \${NODE_PATH_OF_TEST}
      - '${program}'
      - \${COLOUR:-green}
      - "\${SHAPE_NOT_SET:-round and \\u00e9}"
    inherit_env: [HANGAR_TEST]
    env:
      SET: \${COLOUR}
      SET_WITH_DEFAULT: \${COLOUR:-green}
      UNSET_WITH_DEFAULT: \${SHAPE_NOT_SET:-round}
      UNSET_WITH_EMPTY_DEFAULT: \${SHAPE_NOT_SET:-}
      EMPTY_WITH_DEFAULT: \${EMPTY:-filled}
      IN_THE_MIDDLE: a-\${COLOUR}-\${COLOUR}-z
      ESCAPED: $\${COLOUR}
      BARE: $COLOUR costs $5
      ONCE: \${NESTED}
`);
    const hangar = await startStdio({
      config,
      env: { NODE_PATH_OF_TEST: node, COLOUR: "red", EMPTY: "", NESTED: "${COLOUR}" },
    });
    expect(await resultOf(hangar.invoke("p", "argv"))).toEqual({ argv: ["red", "round and é"] });
    expect(await resultOf(hangar.invoke("p", "env"))).toMatchObject({
      SET: "red",
      SET_WITH_DEFAULT: "red",
      UNSET_WITH_DEFAULT: "round",
      UNSET_WITH_EMPTY_DEFAULT: "",
      EMPTY_WITH_DEFAULT: "filled",
      IN_THE_MIDDLE: "a-red-red-z",
      ESCAPED: "${COLOUR}",
      BARE: "$COLOUR costs $5",
      ONCE: "${COLOUR}",
    });
    expect((await runCli(["config", "check", "--config", config])).code).toBe(EXIT_CONFIG_INVALID);
  });

  test("without a value and a default make only their own provider dead, with name and place", async () => {
    const config = fileOf(`
providers:
  broken:
    command: ['${node}', '${program}']
    inherit_env: [HANGAR_TEST]
    env:
      KEY: \${KEY_NOT_SET}
  works:
    command: ['${node}', '${program}']
    inherit_env: [HANGAR_TEST]
`);
    const hangar = await startStdio({ config });
    const reason = expect.stringMatching(/KEY_NOT_SET is not set.*config\.yaml:7:12/);
    expect(await listed(hangar)).toMatchObject([
      { provider: "broken", state: "dead", reason },
      { provider: "works", state: "cold" },
    ]);
    expect(await resultOf(hangar.invoke("broken", "env"))).toMatchObject({
      code: "provider_dead",
      error: reason,
    });
    expect(await resultOf(hangar.invoke("works", "argv"))).toEqual({ argv: [] });
    const check = await runCli(["config", "check", "--config", config]);
    expect(check.code).toBe(EXIT_CONFIG_INVALID);
    expect(check.stdout).toContain("config.yaml:7:12");
    const set = { env: { KEY_NOT_SET: "now it is" } };
    expect((await runCli(["config", "check", "--config", config], set)).code).toBe(0);
  });
});
