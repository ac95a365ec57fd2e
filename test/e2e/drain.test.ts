/** How Hangar ends when it is told to: what is under way, what is new, who is told what, how long it takes. R13. */
import { spawnSync } from "node:child_process";
import { closeSync, existsSync, openSync, readFileSync, writeFileSync, writeSync } from "node:fs";
import { Agent, type IncomingMessage, request as httpRequest } from "node:http";
import { connect } from "node:net";
import { join } from "node:path";
import { text as textOf } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import {
  configOf,
  ENVELOPE,
  type Exit,
  fixture,
  HttpHangar,
  type HttpReply,
  type Json,
  runCli,
  startedPids,
  startHttp,
  startStdio,
  StdioHangar,
  tempDir,
  waitFor,
} from "../harness.ts";
import { isAlive } from "../processes.ts";

/** What a machine that is busy with something else may add to any measured time. */
const SLACK_MS = 3_000;
/** The longest stop of one provider: 2 s after the end of stdin, 2 s after TERM, and what follows KILL. */
const STOP_MS = 5_000;
const DEFAULT_GRACE_MS = 25_000;
const CLEAN: Exit = { code: 0, signal: null };
const JSON_TYPE = { "content-type": "application/json" };
const STREAMS = { accept: "application/json, text/event-stream" };
const MIB = 1024 * 1024;

vi.setConfig({ testTimeout: 40_000 });

type Hangar = StdioHangar | HttpHangar;

const KINDS = [
  ["HTTP", "legacy"],
  ["HTTP", "modern"],
  ["stdio", "legacy"],
  ["stdio", "modern"],
] as const;

function start(front: string, era: "legacy" | "modern", config: string): Promise<Hangar> {
  return front === "HTTP" ? startHttp({ config, era }) : startStdio({ config, era });
}

/** Sends `signal`; `exit` settles with how Hangar ended, and how long after the signal that was. */
function end(hangar: Hangar, signal: NodeJS.Signals = "SIGTERM") {
  const began = performance.now();
  hangar.kill(signal);
  const exit = hangar.exit.then((how) => ({ how, ms: performance.now() - began }));
  return { exit, since: () => performance.now() - began };
}

function shuttingDown(hangar: Hangar): Promise<unknown> {
  return waitFor("the drain", () => hangar.stderr.includes('"shutting_down"'));
}

/** A call of a tool of `p` that has reached it when this returns. */
async function underWay(hangar: Hangar, tool: string, args: Json, meta?: Json) {
  await hangar.callTool("registry_start", { provider: "p" });
  const params = { provider: "p", tool, arguments: args };
  const call = hangar.callTool("registry_invoke", params, meta);
  call.catch(() => undefined);
  await waitFor("the call", async () => (await hangar.details("p")).in_flight > 0);
  return { call };
}

/** A provider that never answers what asks for it by `NEVER`, and its log of what it got. */
function silentProvider() {
  const log = join(tempDir(), "wire.log");
  const read = (): Json[] =>
    existsSync(log)
      ? readFileSync(log, "utf8")
          .trim()
          .split("\n")
          .map((line) => JSON.parse(line))
      : [];
  return { provider: { command: fixture("dictated"), env: { WIRE_LOG: log } }, read };
}
const NEVER = { "test/say": [] };

/** One exchange over a connection of `agent`, and the client's port of that connection. */
async function over(
  agent: Agent,
  { port }: HttpHangar,
  method: string,
  path: string,
  headers: Record<string, string> = {},
  body?: Json,
): Promise<Pick<HttpReply, "status" | "headers" | "text"> & { from: number }> {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    httpRequest({ host: "127.0.0.1", port, agent, method, path, headers })
      .on("response", resolve)
      .on("error", reject)
      .end(body === undefined ? undefined : JSON.stringify(body));
  });
  const from = response.socket.localPort ?? 0;
  const text = await textOf(response);
  return { status: response.statusCode ?? 0, headers: response.headers, text, from };
}

function oneConnection(): Agent {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  onTestFinished(() => agent.destroy());
  return agent;
}

/** A request whose answer is a stream; `ended` says whether it ended as it should. */
function listen(
  { port }: HttpHangar,
  method: string,
  path: string,
  headers: Record<string, string>,
  body?: Json,
) {
  const listener = { text: "", ended: undefined as "whole" | "broken" | undefined };
  httpRequest({ host: "127.0.0.1", port, agent: false, method, path, headers })
    .on("error", () => (listener.ended ??= "broken"))
    .on("response", (response) => {
      response
        .setEncoding("utf8")
        .on("data", (text: string) => (listener.text += text))
        .on("end", () => (listener.ended ??= "whole"))
        .on("error", () => (listener.ended ??= "broken"));
    })
    .end(body === undefined ? undefined : JSON.stringify(body));
  return listener;
}

async function accepts(port: number): Promise<boolean> {
  const socket = connect({ host: "127.0.0.1", port });
  const open = await new Promise<boolean>((resolve) => {
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
  });
  socket.destroy();
  return open;
}

describe("a call under way", () => {
  test.each(KINDS)("R13: over %s (%s) finishes, and then the exit is 0", async (front, era) => {
    const log = join(tempDir(), "starts");
    const provider = { command: fixture("slow"), env: { START_LOG: log } };
    const hangar = await start(front, era, configOf({ p: provider }));
    const { call } = await underWay(hangar, "sleep", { ms: 1500 });
    const { exit } = end(hangar);
    expect((await call).structuredContent).toEqual({ slept: 1500 });
    const { how, ms } = await exit;
    expect(how).toEqual(CLEAN);
    expect(ms).toBeLessThan(1500 + SLACK_MS);
    expect(startedPids(log).map(isAlive)).toEqual([false]);
  });

  test.each(KINDS)(
    "R13: shutdown_grace_s is how long it may go on, over %s (%s), then both sides are told",
    async (front, era) => {
      const { provider, read } = silentProvider();
      const hangar = await start(front, era, configOf({ p: provider }, { shutdown_grace_s: 1.5 }));
      const { call } = await underWay(hangar, "echo", {}, NEVER);
      const { exit, since } = end(hangar);
      const { structuredContent, isError } = await call;
      expect(since()).toBeGreaterThan(1400);
      expect(isError).toBe(true);
      expect(structuredContent).toMatchObject({ code: "shutting_down", sent: true });
      const { how, ms } = await exit;
      expect(how).toEqual(CLEAN);
      expect(ms).toBeLessThan(1500 + SLACK_MS);
      const asked = read().find(({ method }) => method === "tools/call");
      const cancelled = read().find(({ method }) => method === "notifications/cancelled");
      expect(asked.id).toBeDefined();
      expect(cancelled.params.requestId).toBe(asked.id);
    },
  );

  test("R13: of a provider seen directly ends with the error on its event stream", async () => {
    const { provider } = silentProvider();
    const hangar = await startHttp({
      config: configOf({ p: provider }, { shutdown_grace_s: 1 }),
      era: "modern",
    });
    const session = await openSession(hangar, "p");
    const params = { name: "echo", arguments: {}, _meta: NEVER };
    const message = { jsonrpc: "2.0", id: "x", method: "tools/call", params };
    const accept = "text/event-stream, application/json";
    const stream = listen(hangar, "POST", "/mcp/p", { ...JSON_TYPE, accept, ...session }, message);
    await waitFor("the call", async () => (await hangar.details("p")).in_flight > 0);
    const { exit } = end(hangar);
    expect((await exit).how).toEqual(CLEAN);
    expect(stream.ended).toBe("whole");
    const [, data = "{}"] = /^data: (\{.*)$/m.exec(stream.text) ?? [];
    expect(JSON.parse(data)).toMatchObject({
      id: "x",
      error: { data: { code: "shutting_down", sent: true } },
    });
  });

  test("R13: that waits for a provider's start is refused at once, as nothing was sent", async () => {
    for (const [front, era] of KINDS) {
      const log = join(tempDir(), "starts");
      const env = { START_LOG: log, START_MS: "60000" };
      const hangar = await start(
        front,
        era,
        configOf({ p: { command: fixture("slow-start"), env } }),
      );
      const call = hangar.invoke("p", "echo");
      await waitFor("the process", () => startedPids(log).length === 1);
      const { exit } = end(hangar);
      const { structuredContent } = await call;
      expect(structuredContent.code).toBe("shutting_down");
      expect(structuredContent).not.toHaveProperty("sent");
      const { how, ms } = await exit;
      expect(how).toEqual(CLEAN);
      expect(ms).toBeLessThan(SLACK_MS);
      expect(startedPids(log).map(isAlive)).toEqual([false]);
    }
  });

  test("R13: may still ask its client over stdio, and gets the answer", async () => {
    const config = configOf({ p: { command: fixture("asks-back") } });
    const hangar = new StdioHangar({ config, args: ["--provider", "p"] });
    await hangar.initialize("2025-11-25", { elicitation: {} });
    const call = hangar.request("tools/call", {
      name: "ask",
      arguments: { method: "elicitation/create" },
    });
    const question = await waitFor("the question", () =>
      hangar.notifications.find(({ method }) => method === "elicitation/create"),
    );
    const { exit } = end(hangar);
    await shuttingDown(hangar);
    const content = { name: "Ada" };
    hangar.send({ jsonrpc: "2.0", id: question.id, result: { action: "accept", content } });
    expect((await call).result.structuredContent.answer.result.content).toEqual(content);
    expect((await exit).how).toEqual(CLEAN);
  });

  test("R13: may still ask its client over HTTP, and gets the answer on a connection that exists", async () => {
    const config = configOf({ p: { command: fixture("asks-back") } });
    const hangar = await startHttp({ config, era: "modern" });
    const agent = oneConnection();
    const session = await openSession(hangar, "p", agent);
    const params = { name: "ask", arguments: { method: "elicitation/create" } };
    const message = { jsonrpc: "2.0", id: "x", method: "tools/call", params };
    const headers = { ...JSON_TYPE, ...STREAMS, ...session };
    const stream = listen(hangar, "POST", "/mcp/p", headers, message);
    const [, id] = await waitFor("the question", () =>
      /^data: \{.*"id":(\d+),"method":"elicitation\/create"/m.exec(stream.text),
    );
    const { exit } = end(hangar);
    await shuttingDown(hangar);
    const content = { name: "Ada" };
    const answer = { jsonrpc: "2.0", id: Number(id), result: { action: "accept", content } };
    expect((await over(agent, hangar, "POST", "/mcp/p", headers, answer)).status).toBe(202);
    await waitFor("the end", () => stream.ended);
    expect(stream.ended).toBe("whole");
    expect(stream.text).toContain('"structuredContent":{"answer":{"result":{"action":"accept"');
    expect((await exit).how).toEqual(CLEAN);
  });

  test("R13: is answered in full although its client reads slowly, and not to one that does not read", async () => {
    const config = configOf({ p: { command: fixture("slow") } });
    const hangar = await startHttp({ config, era: "modern" });
    const size = 6 * MIB;
    const params = {
      name: "registry_invoke",
      arguments: { provider: "p", tool: "echo", arguments: { text: "x".repeat(size) } },
      _meta: ENVELOPE,
    };
    const message = { jsonrpc: "2.0", id: 1, method: "tools/call", params };
    const headers = { ...JSON_TYPE, ...STREAMS, ...hangar.headersFor(message) };
    const ask = () =>
      new Promise<IncomingMessage>((resolve, reject) => {
        httpRequest({
          host: "127.0.0.1",
          port: hangar.port,
          agent: false,
          method: "POST",
          path: "/mcp",
          headers,
        })
          .on("response", (response) => resolve(response.pause()))
          .on("error", reject)
          .end(JSON.stringify(message));
      });
    const [reading, stuck] = await Promise.all([ask(), ask()]);
    const { exit, since } = end(hangar);
    let received = 0;
    let broken: unknown;
    stuck.on("error", (error) => (broken = error));
    for await (const chunk of reading) {
      received += (chunk as Buffer).length;
      // About four times as long as a client may take nothing.
      await sleep((2000 * (chunk as Buffer).length) / (2 * size));
    }
    expect(since()).toBeGreaterThan(600);
    expect(received).toBe(Number(reading.headers["content-length"]));
    const { how, ms } = await exit;
    expect(how).toEqual(CLEAN);
    expect(ms).toBeLessThan(DEFAULT_GRACE_MS / 2);
    stuck.resume();
    await waitFor("the break", () => broken !== undefined);
  });
});

/** A legacy session with one provider, whose client can be asked; the headers that name it. */
async function openSession(
  hangar: HttpHangar,
  provider: string,
  agent = oneConnection(),
): Promise<Record<string, string>> {
  const version = "2025-11-25";
  const params = {
    protocolVersion: version,
    capabilities: { elicitation: {} },
    clientInfo: { name: "test", version: "1" },
  };
  const message = { jsonrpc: "2.0", id: 0, method: "initialize", params };
  const path = `/mcp/${provider}`;
  const { headers } = await over(
    agent,
    hangar,
    "POST",
    path,
    { ...JSON_TYPE, ...STREAMS },
    message,
  );
  return {
    "mcp-session-id": String(headers["mcp-session-id"]),
    "mcp-protocol-version": version,
  };
}

describe("what is new during a drain", () => {
  test("R13: is refused at once over HTTP, and connections that exist hear that Hangar is not ready", async () => {
    const config = configOf({ p: { command: fixture("slow") } });
    const hangar = await startHttp({ config });
    const { call } = await underWay(hangar, "sleep", { ms: 3000 });
    const [monitor, client] = [oneConnection(), oneConnection()];
    const before = await over(monitor, hangar, "GET", "/ready");
    expect(before).toMatchObject({ status: 200, text: '{"status":"ok"}' });
    const ping = { jsonrpc: "2.0", id: "p", method: "ping" };
    const headers = { ...JSON_TYPE, ...STREAMS, ...hangar.headersFor(ping) };
    const pinged = await over(client, hangar, "POST", "/mcp", headers, ping);
    expect(pinged.status).toBe(200);

    const { exit } = end(hangar);
    await shuttingDown(hangar);
    for (const path of ["/ready", "/health/ready", "/ready"]) {
      const { status, text, from } = await over(monitor, hangar, "GET", path);
      expect({ status, text }).toEqual({ status: 503, text: '{"status":"shutting_down"}' });
      expect(from).toBe(before.from);
    }
    expect((await over(monitor, hangar, "GET", "/health/live")).status).toBe(200);
    const began = performance.now();
    const refused = await over(client, hangar, "POST", "/mcp", headers, ping);
    expect(performance.now() - began).toBeLessThan(500);
    expect(refused.from).toBe(pinged.from);
    expect(refused.status).toBe(503);
    expect(refused.headers).toMatchObject({ "retry-after": "1", connection: "close" });
    expect(JSON.parse(refused.text)).toMatchObject({
      id: "p",
      error: { data: { code: "shutting_down", retryAfterMs: 1000 } },
    });
    expect(await accepts(hangar.port)).toBe(false);
    expect((await call).structuredContent).toEqual({ slept: 3000 });
    expect((await exit).how).toEqual(CLEAN);
  });

  test.each(["legacy", "modern"] as const)(
    "R13: is refused at once over stdio (%s)",
    async (era) => {
      const hangar = await startStdio({
        config: configOf({ p: { command: fixture("slow") } }),
        era,
      });
      const { call } = await underWay(hangar, "sleep", { ms: 2000 });
      const { exit } = end(hangar);
      await shuttingDown(hangar);
      const began = performance.now();
      const { error } = await hangar.request("tools/list");
      expect(performance.now() - began).toBeLessThan(500);
      expect(error.data).toMatchObject({ code: "shutting_down", retryAfterMs: 1000 });
      expect((await call).structuredContent).toEqual({ slept: 2000 });
      expect((await exit).how).toEqual(CLEAN);
    },
  );
});

describe("streams without an end", () => {
  test("R13: do not hold the drain up, and end as they should", async () => {
    const config = configOf({
      p: { command: fixture("talks") },
      l: { command: fixture("listens"), protocol: "modern" },
    });
    const hangar = await startHttp({ config, era: "modern" });
    const session = await openSession(hangar, "p");
    const events = { accept: "text/event-stream" };
    const params = { notifications: { toolsListChanged: true }, _meta: ENVELOPE };
    const subscribe = { jsonrpc: "2.0", id: 7, method: "subscriptions/listen", params };
    const subscribing = { ...JSON_TYPE, ...STREAMS, ...hangar.headersFor(subscribe) };
    const streams = {
      "a legacy GET": listen(hangar, "GET", "/mcp/p", { ...events, ...session }),
      "HTTP+SSE": listen(hangar, "GET", "/sse/p", events),
      "a subscription": listen(hangar, "POST", "/mcp/l", subscribing, subscribe),
    };
    await waitFor("the streams", () => streams["HTTP+SSE"].text.includes("endpoint"));
    await waitFor("the acknowledgement", () =>
      streams["a subscription"].text.includes("acknowledged"),
    );
    const { how, ms } = await end(hangar).exit;
    expect(how).toEqual(CLEAN);
    expect(ms).toBeLessThan(SLACK_MS);
    for (const [name, { ended }] of Object.entries(streams)) {
      expect({ name, ended }).toEqual({ name, ended: "whole" });
    }
    expect(streams["a subscription"].text).toContain('"id":7,"result":{"resultType":"complete"');
  });
});

describe("the providers", () => {
  test("R13: of which one ignores SIGTERM and the end of its stdin is killed", async () => {
    const log = join(tempDir(), "starts");
    const provider = { command: fixture("ignores-term-and-eof"), env: { START_LOG: log } };
    const hangar = await startHttp({ config: configOf({ p: provider }) });
    await hangar.invoke("p", "echo");
    const { how, ms } = await end(hangar).exit;
    expect(how).toEqual(CLEAN);
    expect(ms).toBeGreaterThan(3900);
    expect(ms).toBeLessThan(STOP_MS + SLACK_MS);
    expect(startedPids(log).map(isAlive)).toEqual([false]);
  });

  test("R13: twenty that ignore both are stopped in the time of one", {
    timeout: 90_000,
  }, async () => {
    const log = join(tempDir(), "starts");
    const provider = { command: fixture("ignores-term-and-eof"), env: { START_LOG: log } };
    const names = Array.from({ length: 20 }, (_, n) => `p${n}`);
    const config = configOf(Object.fromEntries(names.map((name) => [name, provider])));
    const hangar = await startStdio({ config, era: "modern" });
    const starts = names.map((name) => hangar.callTool("registry_start", { provider: name }));
    await Promise.all(starts);
    expect(startedPids(log).filter(isAlive)).toHaveLength(20);
    const { how, ms } = await end(hangar).exit;
    expect(how).toEqual(CLEAN);
    expect(ms).toBeGreaterThan(3900);
    expect(ms).toBeLessThan(2 * STOP_MS + SLACK_MS);
    expect(startedPids(log).filter(isAlive)).toEqual([]);
  });
});

describe("signals", () => {
  test.each(["HTTP", "stdio"])(
    "R13: the second one over %s ends Hangar at once, and its providers with it",
    async (front) => {
      const log = join(tempDir(), "starts");
      const provider = { command: fixture("ignores-term-and-eof"), env: { START_LOG: log } };
      const hangar = await start(front, "modern", configOf({ p: provider }));
      await hangar.invoke("p", "echo");
      end(hangar);
      await shuttingDown(hangar);
      const { how, ms } = await end(hangar).exit;
      expect(how).toEqual({ code: 1, signal: null });
      expect(ms).toBeLessThan(1500);
      await waitFor("the provider to end", () => !startedPids(log).some(isAlive), 1000);
    },
  );

  test("R13: one that comes while Hangar is still being loaded is exit code 0 all the same", async () => {
    const env = { NODE_OPTIONS: `--import=${signalsAtLoadOf("cli/main.js")}` };
    const hangar = new StdioHangar({ env });
    expect(await hangar.exit).toEqual(CLEAN);
    expect(hangar.stderr).toContain('"reason":"SIGTERM"');
  });

  test.each([
    ["HTTP", ["--http", "--port", "0"]],
    ["stdio", []],
  ])("R13: one that comes before Hangar serves %s is exit code 0 all the same", async (_, args) => {
    // Reading it lasts until the test has written it, so Hangar is somewhere in its start.
    const config = join(tempDir(), "config.yaml");
    expect(spawnSync("mkfifo", [config]).status).toBe(0);
    const hangar = new StdioHangar({ config, args });
    const file = await openWhenRead(config);
    hangar.kill("SIGTERM");
    writeSync(file, '{"providers":{}}');
    const began = performance.now();
    closeSync(file);
    expect(await hangar.exit).toEqual(CLEAN);
    expect(performance.now() - began).toBeLessThan(SLACK_MS);
  });
});

/** A module that, loaded first, signals its process when `file` is about to be loaded. */
function signalsAtLoadOf(file: string): string {
  const path = join(tempDir(), "signals.mjs");
  const lines = [
    'import { registerHooks } from "node:module";',
    "registerHooks({ load(url, context, next) {",
    `  if (url.endsWith("/${file}")) process.kill(process.pid, "SIGTERM");`,
    "  return next(url, context);",
    "} });",
  ];
  writeFileSync(path, lines.join("\n"));
  return path;
}

/** Opens a named pipe for writing as soon as somebody reads it. */
function openWhenRead(path: string): Promise<number> {
  const nonblocking = 0o1 | 0o4000; // O_WRONLY | O_NONBLOCK
  return waitFor("somebody to read the file", () => {
    try {
      return openSync(path, nonblocking);
    } catch {
      return undefined; // ENXIO: nobody reads it yet
    }
  });
}

describe("the end of stdin", () => {
  const ask = (id: number, args: Json) => {
    const params = { name: "registry_invoke", arguments: args };
    return `${JSON.stringify({ jsonrpc: "2.0", id, method: "tools/call", params })}\n`;
  };

  test("R13: leaves the answers to what came before it, and is exit code 0", async () => {
    const env = { START_MS: "500" };
    const config = configOf({ p: { command: fixture("slow"), env } });
    const calls = [
      ask(1, { provider: "p", tool: "echo", arguments: { n: 1 } }),
      ask(2, { provider: "p", tool: "sleep", arguments: { ms: 1000 } }),
      ask(3, { provider: "nobody", tool: "echo" }).trimEnd(), // and no line feed at the end
    ];
    const { code, stdout } = await runCli(["--config", config], { stdin: calls.join("") });
    expect(code).toBe(0);
    const answers = new Map(
      stdout
        .trim()
        .split("\n")
        .map((line) => [JSON.parse(line).id, line]),
    );
    expect(new Set(answers.keys())).toEqual(new Set([1, 2, 3]));
    expect(answers.get(1)).toContain('"structuredContent":{"n":1}');
    expect(answers.get(2)).toContain('"structuredContent":{"slept":1000}');
    expect(answers.get(3)).toContain("provider_not_found");
  });

  test("R13: ends a call that takes longer than a few seconds, with the error", async () => {
    const { provider, read } = silentProvider();
    const hangar = await startStdio({ config: configOf({ p: provider }) });
    const { call } = await underWay(hangar, "echo", {}, NEVER);
    const began = performance.now();
    expect(await hangar.close()).toEqual(CLEAN);
    const ms = performance.now() - began;
    expect(ms).toBeGreaterThan(4900);
    expect(ms).toBeLessThan(5000 + SLACK_MS);
    expect((await call).structuredContent).toMatchObject({ code: "shutting_down", sent: true });
    expect(read().map(({ method }) => method)).toContain("notifications/cancelled");
  });

  test("R13: and SIGTERM after it, or before, wait for no call", async () => {
    for (const order of ["eof first", "signal first"]) {
      const hangar = await startStdio({ config: configOf({ p: { command: fixture("slow") } }) });
      const { call } = await underWay(hangar, "sleep", { ms: 60_000 });
      const began = performance.now();
      if (order === "eof first") hangar.child.stdin?.end();
      hangar.kill("SIGTERM");
      if (order === "signal first")
        await shuttingDown(hangar).then(() => hangar.child.stdin?.end());
      expect(await hangar.exit).toEqual(CLEAN);
      expect(performance.now() - began).toBeLessThan(SLACK_MS);
      expect((await call).structuredContent.code).toBe("shutting_down");
    }
  });

  test("R13: refuses what a call asks, as nobody can answer it any more", async () => {
    const config = configOf({ p: { command: fixture("asks-back") } });
    const hangar = new StdioHangar({ config, args: ["--provider", "p"] });
    await hangar.initialize("2025-11-25", { elicitation: {} });
    const params = { name: "ask", arguments: { method: "elicitation/create" } };
    const call = hangar.request("tools/call", params);
    await waitFor("the question", () =>
      hangar.notifications.some(({ method }) => method === "elicitation/create"),
    );
    const began = performance.now();
    expect(await hangar.close()).toEqual(CLEAN);
    expect(performance.now() - began).toBeLessThan(SLACK_MS);
    const { answer } = (await call).result.structuredContent;
    expect(answer.error.message).toContain("gone");
  });
});
