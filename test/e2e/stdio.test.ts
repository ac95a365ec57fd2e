/** Hangar as a stdio server: what is on stdout, both eras, and how it ends. */
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  configOf,
  fixture,
  type Json,
  startedPids,
  startStdio,
  StdioHangar,
  tempDir,
  waitFor,
} from "../harness.ts";
import { isAlive } from "../processes.ts";

const TOOLS = [
  "registry_list",
  "registry_start",
  "registry_stop",
  "registry_invoke",
  "registry_tools",
  "registry_details",
  "registry_health",
];

test("a stderr that nobody reads holds nothing up, and Hangar ends all the same", async () => {
  const config = configOf({ floods: { command: fixture("floods-stderr") } });
  const hangar = new StdioHangar({ config, args: ["--log-level", "debug"] });
  hangar.child.stderr?.pause();
  await hangar.initialize();
  const { structuredContent } = await hangar.invoke("floods", "echo", { a: 1 });
  expect(structuredContent).toEqual({ a: 1 });
  hangar.child.stdin?.end();
  const code = new Promise((resolve) => hangar.child.once("exit", resolve));
  expect(await code).toBe(0);
});

describe("stdout", () => {
  test("holds nothing but protocol messages at log level debug, whatever happens", async () => {
    const config = configOf({
      noisy: { command: fixture("garbage-stdout") },
      floods: { command: fixture("floods-stderr") },
      crashes: { command: fixture("crash-on-start") },
      missing: { command: ["no-such-program-here"] },
      unset: { command: fixture("add"), env: { A: "${HANGAR_NOT_SET_ANYWHERE}" } },
    });
    const hangar = await startStdio({ config, args: ["--log-level", "debug"] });
    for (const provider of ["noisy", "floods", "crashes", "missing", "unset"]) {
      await hangar.invoke(provider, "echo");
    }
    hangar.send("not JSON");
    hangar.send("");
    hangar.send('{"jsonrpc":"1.0"}');
    await hangar.callTool("registry_list");
    expect(await hangar.close()).toEqual({ code: 0, signal: null });
    expect(hangar.lines.length).toBeGreaterThan(8);
    for (const line of hangar.lines) {
      const message = JSON.parse(line);
      expect(message.jsonrpc).toBe("2.0");
      expect(["result", "error", "method"].filter((key) => key in message)).toHaveLength(1);
    }
    expect(hangar.stderr.length).toBeGreaterThan(0);
  });

  test("is silent until somebody asks", async () => {
    const hangar = new StdioHangar({ era: "modern" });
    await hangar.request("server/discover");
    expect(hangar.lines).toHaveLength(1);
  });
});

describe("the end", () => {
  test("of stdin is exit code 0 with every provider stopped", async () => {
    const log = join(tempDir(), "starts");
    const providers = {
      plain: { command: fixture("add"), env: { START_LOG: log } },
      stubborn: { command: fixture("ignores-term-and-eof"), env: { START_LOG: log } },
    };
    const hangar = await startStdio({ config: configOf(providers) });
    for (const name of Object.keys(providers)) await hangar.invoke(name, "echo");
    expect(await hangar.close()).toEqual({ code: 0, signal: null });
    expect(startedPids(log)).toHaveLength(2);
    expect(startedPids(log).filter(isAlive)).toEqual([]);
  });

  test.each(["SIGINT", "SIGTERM"] as const)(
    "by %s is exit code 0 with every provider stopped",
    async (signal) => {
      const hangar = await startStdio({
        config: configOf({ parent: { command: fixture("spawns-grandchild") } }),
      });
      const { pid, child } = (await hangar.invoke("parent", "pids")).structuredContent;
      hangar.kill(signal);
      expect(await hangar.exit).toEqual({ code: 0, signal: null });
      expect([pid, child].filter(isAlive)).toEqual([]);
    },
  );

  test("waits for calls under way", async () => {
    const hangar = await startStdio({ config: configOf({ p: { command: fixture("slow") } }) });
    await hangar.invoke("p", "echo");
    const call = hangar.invoke("p", "sleep", { ms: 1000 });
    await waitFor("the call", async () => (await hangar.details("p")).in_flight === 1);
    hangar.kill("SIGTERM");
    expect((await call).structuredContent).toEqual({ slept: 1000 });
    expect(await hangar.exit).toEqual({ code: 0, signal: null });
  });

  test("answers a call that takes too long before it exits", async () => {
    const config = configOf({ p: { command: fixture("slow") } }, { shutdown_grace_s: 1 });
    const hangar = await startStdio({ config });
    await hangar.invoke("p", "echo");
    const call = hangar.invoke("p", "sleep", { ms: 60_000 });
    await waitFor("the call", async () => (await hangar.details("p")).in_flight === 1);
    hangar.kill("SIGTERM");
    const { structuredContent, isError } = await call;
    expect(isError).toBe(true);
    expect(structuredContent.code).toBe("shutting_down");
    expect(await hangar.exit).toEqual({ code: 0, signal: null });
  });

  test("of stdin during a start leaves nothing of the start", async () => {
    const log = join(tempDir(), "starts");
    const hangar = await startStdio({
      config: configOf({
        p: { command: fixture("slow-start"), env: { START_LOG: log, START_MS: "60000" } },
      }),
    });
    void hangar.invoke("p", "echo").catch(() => undefined);
    await waitFor("the process", () => startedPids(log).length === 1);
    expect((await hangar.close()).code).toBe(0);
    expect(startedPids(log).filter(isAlive)).toEqual([]);
  });

  test("by a second signal comes at once, and still leaves no provider", async () => {
    const log = join(tempDir(), "starts");
    const hangar = await startStdio({
      config: configOf({ p: { command: fixture("slow"), env: { START_LOG: log } } }),
    });
    await hangar.invoke("p", "echo");
    void hangar.invoke("p", "sleep", { ms: 60_000 }).catch(() => undefined);
    await waitFor("the call", async () => (await hangar.details("p")).in_flight === 1);
    hangar.kill("SIGTERM");
    await waitFor("the shutdown", () => /shut/i.test(hangar.stderr), 3000);
    hangar.kill("SIGTERM");
    const began = performance.now();
    await hangar.exit;
    expect(performance.now() - began).toBeLessThan(1500);
    await waitFor("the provider to end", () => startedPids(log).every((pid) => !isAlive(pid)));
  });
});

describe("a legacy client", () => {
  test.each(["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"])(
    "gets the revision %s that it asks for",
    async (version) => {
      const hangar = new StdioHangar({});
      const result = await hangar.initialize(version);
      expect(result).toMatchObject({
        protocolVersion: version,
        capabilities: { tools: {} },
        serverInfo: { name: expect.any(String), version: expect.any(String) },
      });
    },
  );

  test("that asks for an unknown revision is offered the newest legacy one", async () => {
    const hangar = new StdioHangar({});
    expect((await hangar.initialize("1999-01-01")).protocolVersion).toBe("2025-11-25");
  });

  test("can ping, list, and call", async () => {
    const hangar = await startStdio();
    expect((await hangar.request("ping")).result).toEqual({});
    const { tools } = (await hangar.request("tools/list")).result;
    expect(tools.map(({ name }: Json) => name)).toEqual(TOOLS);
    const { structuredContent } = await hangar.invoke("math", "power", { base: 2, exponent: 10 });
    expect(structuredContent).toEqual({ result: 1024 });
  });

  test("gets -32601 for a method that Hangar does not have", async () => {
    const hangar = await startStdio();
    for (const method of ["resources/list", "nothing/at/all", "tools/List"]) {
      const { error } = await hangar.request(method);
      expect(error.code).toBe(-32601);
      expect(error.data.code).toBe("method_not_found");
    }
  });
});

describe("a modern client", () => {
  test("discovers without a handshake", async () => {
    const hangar = await startStdio({ era: "modern" });
    const { result } = await hangar.request("server/discover");
    expect(result).toMatchObject({
      resultType: "complete",
      supportedVersions: ["2026-07-28"],
      capabilities: { tools: {} },
      ttlMs: expect.any(Number),
      cacheScope: expect.stringMatching(/^(public|private)$/),
    });
    expect(result._meta["io.modelcontextprotocol/serverInfo"].name).toBeTypeOf("string");
  });

  test("lists and calls, and each result says what it is", async () => {
    const hangar = await startStdio({ era: "modern" });
    const list = (await hangar.request("tools/list")).result;
    expect(list.tools.map(({ name }: Json) => name)).toEqual(TOOLS);
    expect(list).toMatchObject({ resultType: "complete", ttlMs: expect.any(Number) });
    for (const name of ["registry_list", "registry_health"]) {
      expect((await hangar.callTool(name)).resultType).toBe("complete");
    }
    const failed = await hangar.invoke("nobody", "add");
    expect(failed).toMatchObject({ resultType: "complete", isError: true });
    const result = await hangar.invoke("math", "add", { a: 5, b: 3 });
    expect(result).toMatchObject({ resultType: "complete", structuredContent: { result: 8 } });
  });

  test("of an unknown revision is told which ones there are", async () => {
    const hangar = await startStdio({ era: "modern" });
    const _meta = { "io.modelcontextprotocol/protocolVersion": "2030-01-01" };
    const { error } = await hangar.request("tools/list", { _meta });
    expect(error).toMatchObject({
      code: -32022,
      data: { supported: ["2026-07-28"], requested: "2030-01-01" },
    });
  });

  test("that leaves its capabilities out gets -32602", async () => {
    const hangar = await startStdio({ era: "modern" });
    const _meta = { "io.modelcontextprotocol/clientCapabilities": undefined };
    const { error } = await hangar.request("tools/list", { _meta });
    expect(error.code).toBe(-32602);
    expect(error.message).toContain("clientCapabilities");
  });

  test("finds no ping and no initialize in its revision", async () => {
    const hangar = await startStdio({ era: "modern" });
    for (const method of ["ping", "initialize", "logging/setLevel"]) {
      expect((await hangar.request(method)).error.code).toBe(-32601);
    }
  });
});

describe("a message that is none", () => {
  test.each([
    ["no JSON", "{nope", -32700, null],
    ["a batch", '[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600, null],
    ["a number", "17", -32600, null],
    ["not a number", '{"jsonrpc":"2.0","id":"a","method":"ping","params":{"n":NaN}}', -32700, "a"],
    ["another JSON-RPC", '{"jsonrpc":"1.0","id":1,"method":"ping"}', -32600, 1],
    ["a key twice", '{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/list"}', -32600, null],
    ["a hidden key twice", '{"jsonrpc":"2.0","id":1,"method":"ping","\\u0069d":2}', -32600, null],
    [
      "65 levels",
      `{"method":"ping","params":${"[".repeat(64)}${"]".repeat(64)},"jsonrpc":"2.0","id":1}`,
      -32600,
      1,
    ],
    ["a null id", '{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600, null],
  ])("because it is %s is refused, and the conversation goes on", async (_, text, code, own) => {
    const hangar = await startStdio();
    const refused = waitFor("the refusal", () =>
      hangar.notifications.find(({ error }) => error !== undefined),
    );
    hangar.send(text);
    const { error, id } = await refused;
    expect(error.code).toBe(code);
    expect(typeof error.data.code).toBe("string");
    // By its own id, where that can be told, or its client would wait for ever.
    expect(id).toBe(own);
    expect((await hangar.request("ping")).result).toEqual({});
  });

  test("because it is too long is refused, and the conversation goes on", async () => {
    const hangar = await startStdio({
      config: configOf({ p: { command: fixture("add") } }, { max_message_bytes: 10_000 }),
    });
    const text = "x".repeat(20_000);
    hangar.send({ jsonrpc: "2.0", id: "long", method: "ping", params: { text } });
    const { error, id } = await waitFor("the refusal", () =>
      hangar.notifications.find(({ error: found }) => found !== undefined),
    );
    expect(error.data.code).toBe("message_too_large");
    expect(id).toBe("long");
    expect((await hangar.request("ping")).result).toEqual({});
  });

  test("but spread over several writes and with CRLF is read all the same", async () => {
    const hangar = await startStdio();
    const reply = hangar.replyTo("é");
    const text = '{"jsonrpc":"2.0","id":"é","method":"ping"}\r\n';
    for (const byte of Buffer.from(text)) hangar.child.stdin?.write(Buffer.from([byte]));
    expect((await reply).result).toEqual({});
  });
});
