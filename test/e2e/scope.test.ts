/** Whose run it is: one for each client with `scope: session`, one for all with `scope: shared`. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  configOf,
  fixture,
  type HttpHangar,
  type Json,
  startedPids,
  startHttp,
  startStdio,
  StdioHangar,
  tempDir,
  waitFor,
} from "../harness.ts";
import { isAlive } from "../processes.ts";
import {
  answerIn,
  type Events,
  enveloped,
  HttpClient,
  legacy,
  messageIn,
  openRemotes,
  openStream,
  type RemoteServer,
  structured,
} from "../remote-server.ts";

const TOKEN = "token-of-the-scope-test-0123456789";
const MAX_RUNS = 64;
const ROOTS = { jsonrpc: "2.0", result: { roots: [{ uri: "file:///mine" }] } };

let hangar: HttpHangar;
let starts = "";
let remote: RemoteServer;

beforeAll(async () => {
  starts = join(tempDir(), "starts");
  [remote = remote] = await openRemotes(1);
  const program = { command: fixture("asks-later"), env: { START_LOG: starts } };
  const config = configOf({
    own: { ...program, scope: "session" },
    brief: { ...program, scope: "session", idle_ttl_s: 1 },
    all: { command: fixture("asks-later"), scope: "shared" },
  });
  const text = JSON.parse(readFileSync(config, "utf8"));
  text.providers.far = { mode: "remote", endpoint: remote.url, scope: "session" };
  writeFileSync(config, JSON.stringify(text));
  hangar = await startHttp({ config, env: { MCP_HANGAR_TOKEN: TOKEN } });
});

afterAll(() => remote.close());

/** A client of one provider, past its handshake. */
async function clientOf(provider: string, capabilities: Json = {}): Promise<HttpClient> {
  const client = new HttpClient(`${hangar.url}/${provider}`);
  await client.initialize(capabilities);
  return client;
}

/** A client of the registry tools. */
async function registryClient(capabilities: Json = {}): Promise<HttpClient> {
  const client = new HttpClient(hangar.url);
  await client.initialize(capabilities);
  return client;
}

function viaRegistry(client: HttpClient, tool: string, args: Json = {}): Promise<Json> {
  return client.result("registry_invoke", { provider: "own", tool, arguments: args });
}

async function pidOf(client: HttpClient): Promise<number> {
  return (await client.result("who")).structuredContent.pid;
}

function gone(pid: number): Promise<unknown> {
  return waitFor(`process ${pid} to end`, () => !isAlive(pid));
}

/** The question on a stream of the client. */
function questionOn(events: Events): Promise<Json> {
  return messageIn(events, ({ method, id }) => method !== undefined && id !== undefined);
}

describe("with scope session", () => {
  test("each client has one run of its own, however it begins", async () => {
    const before = startedPids(starts).length;
    const clients = await Promise.all([1, 2, 3].map(() => clientOf("own")));
    const pids = await Promise.all(
      clients.map((client) => Promise.all([1, 2, 3].map(() => pidOf(client)))),
    );
    for (const [first, ...others] of pids) for (const pid of others) expect(pid).toBe(first);
    expect(new Set(pids.flat()).size).toBe(3);
    expect(startedPids(starts)).toHaveLength(before + 3);
  });

  test("a run sees exactly what its client declared", async () => {
    const declared = [
      {},
      { roots: { listChanged: false } },
      { sampling: { tools: {} }, experimental: { "x/y": { deep: [1.5, null] } } },
    ];
    for (const capabilities of declared) {
      const direct = await clientOf("own", capabilities);
      expect((await direct.result("who")).structuredContent.capabilities).toEqual(capabilities);
      const through = await registryClient(capabilities);
      const { structuredContent } = await viaRegistry(through, "who");
      expect(structuredContent.capabilities).toEqual(capabilities);
    }
    const config = configOf({ p: { command: fixture("asks-later"), scope: "session" } });
    const stdio = new StdioHangar({ config, args: ["--provider", "p"] });
    await stdio.initialize("2025-11-25", { roots: {} });
    const { result } = await stdio.request("tools/call", { name: "who", arguments: {} });
    expect(result.structuredContent.capabilities).toEqual({ roots: {} });
    stdio.send({
      jsonrpc: "2.0",
      id: "x",
      method: "tools/call",
      params: { name: "later", arguments: { method: "roots/list" } },
    });
    const question = await waitFor("the question on stdout", () =>
      stdio.notifications.find(({ method }) => method === "roots/list"),
    );
    stdio.send({ ...ROOTS, id: question.id });
    await waitFor("the answer", async () => {
      const answers = await stdio.request("tools/call", { name: "answers", arguments: {} });
      return answers.result.structuredContent["q-1"]?.result?.roots?.[0]?.uri === "file:///mine";
    });
    const pid = result.structuredContent.pid;
    expect((await stdio.close()).code).toBe(0);
    expect(isAlive(pid)).toBe(false);
  });

  test("a question outside any call reaches the client on its GET stream, and nobody else", async () => {
    const one = await clientOf("own", { roots: {} });
    const other = await clientOf("own", { roots: {} });
    const mine = await one.listen();
    const theirs = await other.listen();
    await one.result("later", { method: "roots/list" });
    const question = await questionOn(mine);
    expect(question.method).toBe("roots/list");
    await one.post({ ...ROOTS, id: question.id });
    await waitFor("the answer", async () => {
      const { structuredContent } = await one.result("answers");
      return structuredContent["q-1"]?.result?.roots?.[0]?.uri === "file:///mine";
    });
    expect(theirs.messages).toEqual([]);
    expect((await other.result("answers")).structuredContent).toEqual({});
  });

  test("a question outside any call reaches a client of the registry tools, too", async () => {
    const client = await registryClient({ elicitation: {} });
    const events = await client.listen();
    await viaRegistry(client, "later", { method: "elicitation/create" });
    const question = await questionOn(events);
    const result = { action: "decline" };
    await client.post({ jsonrpc: "2.0", id: question.id, result });
    await waitFor("the answer", async () => {
      const { structuredContent } = await viaRegistry(client, "answers");
      return structuredContent["q-1"]?.result?.action === "decline";
    });
  });

  test("a question outside any call reaches a client of the older HTTP+SSE, whose run ends with its stream", async () => {
    const events = await openStream(`${hangar.origin}/sse/own`, { accept: "text/event-stream" });
    const path = await waitFor("the endpoint", () =>
      events.lines.find((line) => line.includes("/messages")),
    );
    const url = `${hangar.origin}${path.replace(/^data: /, "")}`;
    const post = (message: Json) => openStream(url, {}, { jsonrpc: "2.0", ...message });
    const clientInfo = { name: "sse", version: "1" };
    const params = { protocolVersion: "2024-11-05", capabilities: { roots: {} }, clientInfo };
    await post({ id: 1, method: "initialize", params });
    await messageIn(events, ({ id }) => id === 1);
    await post({ method: "notifications/initialized" });
    await post({ id: 2, method: "tools/call", params: { name: "who", arguments: {} } });
    const { result } = await messageIn(events, ({ id }) => id === 2);
    const later = { name: "later", arguments: { method: "roots/list" } };
    await post({ id: 3, method: "tools/call", params: later });
    expect((await questionOn(events)).method).toBe("roots/list");
    const { pid } = result.structuredContent;
    expect(isAlive(pid)).toBe(true);
    events.close();
    await gone(pid);
  });

  test("a question that the client cannot be asked is refused with what is missing", async () => {
    const client = await clientOf("own", { roots: {} });
    const { structuredContent } = await client.result("now", { method: "sampling/createMessage" });
    expect(structuredContent.answer.error.code).toBe(-32601);
    expect(structuredContent.answer.error.message).toContain("sampling");
  });

  test("a run ends with its session, and the others go on", async () => {
    const [one, other] = (await Promise.all([1, 2].map(() => clientOf("own")))) as [
      HttpClient,
      HttpClient,
    ];
    const [mine, theirs] = [await pidOf(one), await pidOf(other)];
    await one.end();
    await gone(mine);
    expect(await pidOf(other)).toBe(theirs);
  });

  test("a run of a client of the registry tools is its own, and ends with its session", async () => {
    const [one, other] = (await Promise.all([1, 2].map(() => registryClient()))) as [
      HttpClient,
      HttpClient,
    ];
    const pid = async (client: HttpClient): Promise<number> =>
      (await viaRegistry(client, "who")).structuredContent.pid;
    const [mine, theirs] = [await pid(one), await pid(other)];
    expect(mine).not.toBe(theirs);
    expect(await pid(one)).toBe(mine);
    await one.end();
    await gone(mine);
    expect(await pid(other)).toBe(theirs);
  });

  test("a run that nobody uses is stopped, and the next call starts another that can ask, too", async () => {
    const client = await clientOf("brief", { roots: {} });
    const events = await client.listen();
    const first = await pidOf(client);
    await gone(first);
    const second = await pidOf(client);
    expect(second).not.toBe(first);
    await client.result("later", { method: "roots/list" });
    expect((await questionOn(events)).method).toBe("roots/list");
  });

  test("modern clients share a run by principal, and never across principals", async () => {
    const pid = async (headers: Record<string, string>): Promise<number> => {
      const params = enveloped({ name: "who", arguments: {} });
      const message = { jsonrpc: "2.0", id: 1, method: "tools/call", params };
      const all = {
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "tools/call",
        "mcp-name": "who",
        ...headers,
      };
      const reply = await hangar.post(message, all, "/mcp/own");
      return reply.messages[0].result.structuredContent.pid;
    };
    const local = await pid({});
    const known = await pid({ authorization: `Bearer ${TOKEN}` });
    expect(known).not.toBe(local);
    expect(await pid({})).toBe(local);
    expect(await pid({ authorization: `Bearer ${TOKEN}` })).toBe(known);
  });

  test(`more than ${MAX_RUNS} clients are refused until one goes, and remote runs are each client's own, too`, async () => {
    const sessions = new Set<string>();
    const tools = {
      session: (_: Json, { headers }: Json) => structured({ id: headers["mcp-session-id"] }),
    };
    remote.handler = legacy({ tools }, sessions);
    const clients = await Promise.all(Array.from({ length: MAX_RUNS }, () => clientOf("far")));
    expect(sessions.size).toBe(MAX_RUNS);
    const ids = await Promise.all(
      clients.map(async (client) => (await client.result("session")).structuredContent.id),
    );
    expect(new Set(ids)).toEqual(sessions);
    const late = new HttpClient(`${hangar.url}/far`);
    const { error } = await late.initialize();
    expect(error.data).toMatchObject({ code: "overloaded", retryAfterMs: expect.any(Number) });
    expect(error.message).toContain(`${MAX_RUNS} clients`);
    expect(late.session).toBe("");
    await clients[0]?.end();
    await waitFor("the end of its session", () => sessions.size === MAX_RUNS - 1);
    const next = await clientOf("far");
    expect((await next.result("session")).structuredContent.id).toBe(`session-${MAX_RUNS + 1}`);
    await Promise.all([...clients.slice(1), next].map((client) => client.end()));
    await waitFor("the end of every session", () => sessions.size === 0);
  });
});

describe("with scope shared", () => {
  test("all clients have one run, and it declares whatever any of them may be able to answer", async () => {
    const clients = await Promise.all([clientOf("all"), clientOf("all", { roots: {} })]);
    const all = await Promise.all(clients.map((client) => client.result("who")));
    expect(new Set(all.map(({ structuredContent }) => structuredContent.pid)).size).toBe(1);
    const { capabilities } = all[0].structuredContent;
    expect(Object.keys(capabilities).toSorted()).toEqual(["elicitation", "roots", "sampling"]);
  });

  test("a question in the one call under way reaches its client", async () => {
    const client = await clientOf("all", { roots: {} });
    const events = await client.call("now", { method: "roots/list" });
    const question = await questionOn(events);
    await client.post({ ...ROOTS, id: question.id });
    const { result } = await answerIn(events);
    expect(result.structuredContent.answer).toEqual({ result: ROOTS.result });
  });

  test("a question outside any call is refused with the advice to use scope session", async () => {
    const client = await clientOf("all", { roots: {} });
    const events = await client.listen();
    const before = Object.keys((await client.result("answers")).structuredContent).length;
    await client.result("later", { method: "roots/list" });
    await sleep(200); // not polled: the poll would be a call that the question could be for
    const answers = Object.values<Json>((await client.result("answers")).structuredContent);
    expect(answers).toHaveLength(before + 1);
    const { message } = answers.at(-1).error;
    expect(message).toContain("no call is under way");
    expect(message).toContain("scope: session");
    expect(events.messages).toEqual([]);
  });

  test("a question while calls of two clients are under way is refused, and neither hears of it", async () => {
    const config = configOf({ all: { command: fixture("asks-back"), scope: "shared" } });
    const own = await startHttp({ config });
    const [one, other] = (await Promise.all(
      [1, 2].map(async () => {
        const client = new HttpClient(`${own.url}/all`);
        await client.initialize({ roots: {}, sampling: {} });
        return client;
      }),
    )) as [HttpClient, HttpClient];
    const first = await one.call("ask", { method: "roots/list" });
    await questionOn(first); // unanswered, so that the call stays under way
    const second = await other.call("ask", { method: "sampling/createMessage" });
    const { result } = await answerIn(second);
    const { error } = result.structuredContent.answer;
    expect(error.message).toContain("calls of several clients are under way");
    expect(error.message).toContain("scope: session");
    expect(second.messages).toHaveLength(1);
    expect(first.messages).toHaveLength(1);
  });

  test("a question that the one client did not declare is refused with what is missing", async () => {
    const client = await clientOf("all", { sampling: {} });
    const events = await client.call("now", { method: "roots/list" });
    const { result } = await answerIn(events);
    expect(result.structuredContent.answer.error).toMatchObject({
      code: -32601,
      message: expect.stringContaining("roots"),
    });
    expect(events.messages).toHaveLength(1);
  });
});

test("a client of the registry tools has its own run on stdio, which ends with it", async () => {
  const log = join(tempDir(), "starts");
  const provider = { command: fixture("asks-later"), scope: "session", env: { START_LOG: log } };
  const stdio = await startStdio({ config: configOf({ own: provider }) });
  const { pid, capabilities } = (await stdio.invoke("own", "who")).structuredContent;
  expect(capabilities).toEqual({});
  expect(startedPids(log)).toEqual([pid]);
  await stdio.close();
  expect(isAlive(pid)).toBe(false);
});
