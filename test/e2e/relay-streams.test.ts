/** One provider alone over HTTP and stdio: event streams, subscriptions, and that nobody gets what is not theirs. */
import { existsSync, readFileSync } from "node:fs";
import { Agent, request as httpRequest, type IncomingHttpHeaders } from "node:http";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import * as fc from "fast-check";
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from "vitest";
import {
  configOf,
  ENVELOPE,
  fixture,
  type HttpHangar,
  type HttpReply,
  type Json,
  startedPids,
  startHttp,
  startStdio,
  type StdioHangar,
  tempDir,
  waitFor,
} from "../harness.ts";
import { isAlive } from "../processes.ts";
import { seeded } from "../seeded.ts";

const POST_HEADERS = {
  "content-type": "application/json",
  accept: "application/json, text/event-stream",
};
const EVENT_STREAM = { accept: "text/event-stream" };
const TOKEN = "correct-horse-battery-staple";
const SUBSCRIPTION_ID = "io.modelcontextprotocol/subscriptionId";
const MIB = 1024 * 1024;
/** How long what moves a hundred megabytes may take on a machine that is busy with something else. */
const LOADED_MS = 25_000;

vi.setConfig({ testTimeout: 2 * LOADED_MS });

/** One Hangar with a provider of each kind, for the tests that leave nothing behind. */
let shared: HttpHangar;
let wireLog = "";

/** What must be kept alive while the other tests run. */
let longSession: Record<string, string> = {};
const long: { readonly what: string; readonly stream: Listener }[] = [];

beforeAll(async () => {
  wireLog = join(tempDir(), "wire.log");
  shared = await startHttp({
    config: configOf({
      talks: { command: fixture("talks"), timeout_s: 600 },
      legacy: { command: fixture("dictated"), env: { WIRE_LOG: wireLog } },
      modern: {
        command: fixture("dictated"),
        env: { WIRE_LOG: wireLog, FIXTURE_ERA: "modern" },
      },
      official: { command: fixture("official", "modern"), protocol: "modern", timeout_s: 600 },
      broken: { command: fixture("errors-on-initialize"), env: { START_MS: "300" } },
    }),
    env: { MCP_HANGAR_TOKEN: TOKEN },
  });
  const session = await openSession(shared, "talks");
  longSession = session;
  const wait = modernCall("official", "tools/call", {
    name: "wait",
    arguments: { name: "long", ms: 600_000 },
  });
  long.push(
    { what: "a GET stream", stream: listen(shared, "talks", session) },
    {
      what: "a legacy call",
      stream: call(shared, "talks", talk("long", { ms: 600_000 }), session),
    },
    { what: "an HTTP+SSE stream", stream: new Listener(shared, "GET", "/sse/talks", EVENT_STREAM) },
    { what: "a modern call", stream: wait(shared) },
  );
});

afterAll(async () => {
  await shared.send("DELETE", "/mcp/talks", longSession);
  for (const { stream } of long) stream.close();
});

interface StreamEvent {
  readonly id: string | undefined;
  readonly event: string | undefined;
  readonly retry: string | undefined;
  readonly data: string;
}

/** One HTTP exchange whose answer can be watched while it comes, paused and broken off. */
class Listener {
  status: number | undefined;
  headers: IncomingHttpHeaders = {};
  text = "";
  /** How the answer ended: as it should, or by a broken connection. */
  ended: "whole" | "broken" | undefined;
  readonly #request: ReturnType<typeof httpRequest>;
  #response: { pause(): void; resume(): void } | undefined;
  #paused = false;

  constructor(
    { port }: HttpHangar,
    method: string,
    path: string,
    headers: Record<string, string>,
    body?: string,
    agent: Agent | false = false,
  ) {
    this.#request = httpRequest({ host: "127.0.0.1", port, method, path, headers, agent });
    this.#request.on("error", () => {
      this.ended ??= "broken";
    });
    this.#request.on("response", (response) => {
      this.status = response.statusCode;
      this.headers = response.headers;
      this.#response = response;
      response.setEncoding("utf8");
      response.on("data", (text: string) => {
        this.text += text;
      });
      response.on("end", () => {
        this.ended ??= "whole";
      });
      response.on("error", () => {
        this.ended ??= "broken";
      });
      if (this.#paused) response.pause();
    });
    this.#request.end(body);
  }

  get events(): StreamEvent[] {
    return this.text
      .split("\n\n")
      .slice(0, -1)
      .filter((block) => !block.startsWith(":"))
      .map((block) => {
        const field = (name: string) => new RegExp(`^${name}: ?(.*)$`, "m").exec(block)?.[1];
        return {
          id: field("id"),
          event: field("event"),
          retry: field("retry"),
          data: field("data") ?? "",
        };
      });
  }

  get messages(): Json[] {
    if (this.headers["content-type"] === "application/json") {
      return this.ended === undefined ? [] : [JSON.parse(this.text)];
    }
    return this.events
      .filter(({ event, data }) => event === "message" && data !== "")
      .map(({ data }) => JSON.parse(data));
  }

  /** Waits until `count` messages have come; returns all there are. */
  async atLeast(count: number, timeoutMs = LOADED_MS): Promise<Json[]> {
    const enough = () => this.messages.length >= count;
    await waitFor(`${count} messages`, enough, timeoutMs).catch((error: unknown) => {
      throw new Error(`${String(error)}; HTTP ${this.status}: ${this.text.slice(0, 2000)}`);
    });
    return this.messages;
  }

  /** Waits for the end of the answer; returns its messages. */
  async end(timeoutMs = LOADED_MS): Promise<Json[]> {
    await waitFor("the end of the answer", () => this.ended, timeoutMs);
    return this.messages;
  }

  async opened(): Promise<this> {
    await waitFor("the head of the answer", () => this.status);
    return this;
  }

  /** Reads no more, from the first byte on when it is called at once. */
  pause(): void {
    this.#paused = true;
    this.#response?.pause();
  }

  resume(): void {
    this.#paused = false;
    this.#response?.resume();
  }

  close(): void {
    this.#request.destroy();
  }
}

/** A Listener that lives no longer than its test. */
function begin(...args: ConstructorParameters<typeof Listener>): Listener {
  const listener = new Listener(...args);
  try {
    onTestFinished(() => listener.close());
  } catch {
    // in a hook, whose stream is closed by another
  }
  return listener;
}

function listen(
  hangar: HttpHangar,
  provider: string,
  session: Record<string, string>,
  lastEventId?: string,
): Listener {
  const last = lastEventId === undefined ? {} : { "last-event-id": lastEventId };
  return begin(hangar, "GET", `/mcp/${provider}`, { ...EVENT_STREAM, ...session, ...last });
}

/** POSTs a message; a string goes as it is. */
function call(
  hangar: HttpHangar,
  provider: string,
  message: Json,
  headers: Record<string, string>,
  agent?: Agent,
): Listener {
  const text = typeof message === "string" ? message : JSON.stringify(message);
  const all = { ...POST_HEADERS, ...headers };
  return begin(hangar, "POST", `/mcp/${provider}`, all, text, agent);
}

/** The legacy handshake; returns the headers of the session. */
async function openSession(
  hangar: HttpHangar,
  provider: string,
  version = "2025-11-25",
): Promise<Record<string, string>> {
  const clientInfo = { name: "test", version: "1.0.0" };
  const params = { protocolVersion: version, capabilities: {}, clientInfo };
  const message = { jsonrpc: "2.0", id: 0, method: "initialize", params };
  const { headers, text } = await hangar.post(message, {}, `/mcp/${provider}`);
  const id = headers["mcp-session-id"];
  if (typeof id !== "string") throw new Error(`initialize gave no session: ${text}`);
  const session = { "mcp-session-id": id, "mcp-protocol-version": version };
  const initialized = { jsonrpc: "2.0", method: "notifications/initialized" };
  await hangar.post(initialized, session, `/mcp/${provider}`);
  return session;
}

/** tools/call of the fixture `talks`, with its id as progress token. */
function tool(name: string, args: Json, id: Json = 1): Json {
  const params = { name, arguments: args, _meta: { progressToken: id } };
  return { jsonrpc: "2.0", id, method: "tools/call", params };
}

function talk(tag: string, args: Json, id?: Json): Json {
  return tool("talk", { tag, ...args }, id);
}

/** The headers that a modern client must send with a request. */
function modernHeaders(method: string, params: Json): Record<string, string> {
  const name = params.name ?? params.uri ?? params.taskId;
  return {
    "mcp-protocol-version": "2026-07-28",
    "mcp-method": method,
    ...(typeof name === "string" ? { "mcp-name": name } : {}),
  };
}

/** A modern request, to be sent to any Hangar; `say` is what the fixture `dictated` is to answer. */
function modernCall(
  provider: string,
  method: string,
  params: Json = {},
  { id = 1, say, headers = {} }: { id?: Json; say?: string[]; headers?: Json } = {},
): (hangar: HttpHangar) => Listener {
  const _meta = { ...ENVELOPE, ...(say && { "test/say": say }), ...params._meta };
  const message = { jsonrpc: "2.0", id, method, params: { ...params, _meta } };
  const all = Object.fromEntries(
    Object.entries<string>({ ...modernHeaders(method, params), ...headers }).filter(
      ([, value]) => value !== "",
    ),
  );
  return (hangar) => call(hangar, provider, message, all);
}

/** The structured content of one tool call of a modern provider. */
async function modernTool(hangar: HttpHangar, provider: string, name: string, args: Json = {}) {
  const [reply] = await modernCall(provider, "tools/call", { name, arguments: args })(hangar).end();
  if (reply?.result === undefined) throw new Error(`${name}: ${JSON.stringify(reply)}`);
  return reply.result.structuredContent;
}

/** The ids whose calls the fixture `talks` was told to cancel. */
async function cancelledTalks(session: Record<string, string>): Promise<number[]> {
  const [reply] = await call(shared, "talks", tool("cancelled", {}, "c"), session).end();
  return reply.result.structuredContent.cancelled;
}

/** What the fixture `dictated` has received, from the first line that holds `mark` on. */
function wireLines(mark: string): string[] {
  const lines = existsSync(wireLog) ? readFileSync(wireLog, "utf8").split("\n") : [];
  return lines.filter((line) => line.includes(mark));
}

function result(text: string): string {
  return `{"jsonrpc":"2.0","id":$id,"result":${text}}`;
}

function failure(code: number): string {
  return `{"jsonrpc":"2.0","id":$id,"error":{"code":${code},"message":"no","data":{"a":1.0}}}`;
}

/** Peak resident memory of a process, in bytes. */
function peak(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1]) * 1024;
}

/** Bytes a process has read, pipes included. */
function bytesRead(pid: number): number {
  return Number(/rchar: (\d+)/.exec(readFileSync(`/proc/${pid}/io`, "utf8"))?.[1]);
}

/** Waits until a Hangar has read `bytes` of what its provider says. */
async function waitUntilSaid(pid: number, bytes: number): Promise<void> {
  await waitFor("all that was said to be read", () => bytesRead(pid) > bytes, LOADED_MS);
}

const steps = (messages: Json[]) => messages.map(({ params }) => params?.progress ?? "reply");

describe("a legacy call", () => {
  test("gets plain JSON when it ends soon, and an event stream when something comes first", async () => {
    const session = await openSession(shared, "talks");
    const quick = call(shared, "talks", talk("quick", {}), session);
    expect(await quick.end()).toMatchObject([{ id: 1, result: {} }]);
    expect(quick.headers["content-type"]).toBe("application/json");
    const noted = call(shared, "talks", talk("noted", { n: 2 }), session);
    expect(steps(await noted.end())).toEqual([1, 2, "reply"]);
    expect(noted).toMatchObject({
      status: 200,
      headers: { "content-type": "text/event-stream", "x-accel-buffering": "no" },
    });
  });

  test("gets an event stream when it takes longer, so that it can be taken up again", async () => {
    const session = await openSession(shared, "talks");
    const slow = call(shared, "talks", talk("slow", { ms: 2500 }), session);
    await waitFor("the priming event", () => slow.events.length === 1);
    expect(slow.ended).toBeUndefined();
    expect(slow.events[0]).toMatchObject({ id: expect.any(String), retry: "1000", data: "" });
    slow.close();
    const again = listen(shared, "talks", session, slow.events[0]?.id);
    expect(await again.end()).toMatchObject([
      { id: 1, result: { structuredContent: { tag: "slow" } } },
    ]);
    expect(again.ended).toBe("whole");
  });

  test.each([["2025-06-18"], ["2025-03-26"], ["2024-11-05"]])(
    "of revision %s gets no event without a message, but ids all the same",
    async (version) => {
      const session = await openSession(shared, "talks", version);
      const stream = call(shared, "talks", talk("old", { n: 2, ms: 150 }), session);
      await stream.end();
      const { events } = stream;
      expect(events.map(({ event, retry }) => [event, retry])).toEqual(
        Array.from({ length: 3 }, () => ["message", undefined]),
      );
      expect(new Set(events.map(({ id }) => id)).size).toBe(3);
      expect(events.every(({ id }) => id !== undefined)).toBe(true);
    },
  );

  test("that lost its stream gets the rest once and in order, while it runs and after its end", async () => {
    const session = await openSession(shared, "talks");
    const lost = call(shared, "talks", talk("lost", { n: 6, every_ms: 80, ms: 200 }), session);
    const [first] = await lost.atLeast(1);
    expect(first.params.progress).toBe(1);
    lost.close();
    const seen = lost.events.at(-1);
    const from = JSON.parse(seen?.data ?? "").params.progress;
    const rest = [...Array.from({ length: 6 - from }, (_, i) => from + 1 + i), "reply"];
    const during = listen(shared, "talks", session, seen?.id);
    expect(steps(await during.end())).toEqual(rest);
    expect(during.ended).toBe("whole");
    const after = listen(shared, "talks", session, seen?.id);
    expect(steps(await after.end())).toEqual(rest);
    const fromTheReply = listen(shared, "talks", session, after.events.at(-1)?.id);
    expect(await fromTheReply.end()).toEqual([]);
    // Losing a connection is no cancellation.
    const reply = after.messages.at(-1);
    expect(await cancelledTalks(session)).not.toContain(reply.result.structuredContent.id);
  });

  test("whose stream is read in two places goes on where it was taken up last", async () => {
    const session = await openSession(shared, "talks");
    const first = call(shared, "talks", talk("moved", { n: 8, every_ms: 60 }), session);
    await first.atLeast(1);
    const second = listen(shared, "talks", session, first.events[1]?.id);
    expect(steps(await second.end()).at(-1)).toBe("reply");
    await first.end();
    expect(first.ended).toBe("whole");
    expect(steps(first.messages)).not.toContain("reply");
    const all = [...steps(first.messages), ...steps(second.messages)];
    expect([...new Set(all)]).toEqual([1, 2, 3, 4, 5, 6, 7, 8, "reply"]);
  });

  test("ends with the session, and the provider hears of it", async () => {
    const session = await openSession(shared, "talks");
    const other = await openSession(shared, "talks");
    const stream = await listen(shared, "talks", session).opened();
    const running = call(shared, "talks", talk("ended", { ms: 30_000 }), session);
    await running.opened();
    const before = await cancelledTalks(other);
    const deleted = await shared.send("DELETE", "/mcp/talks", session);
    expect(deleted.status).toBe(204);
    await Promise.all([stream.end(), running.end()]);
    expect(running.ended).toBe("whole");
    expect(running.messages).toMatchObject([{ id: 1, error: { data: { code: "cancelled" } } }]);
    await waitFor(
      "the cancel",
      async () => (await cancelledTalks(other)).length === before.length + 1,
    );
    const late = listen(shared, "talks", session);
    await late.end();
    expect(late.status).toBe(404);
  });

  test("of initialize that fails slowly is told why, and has no session", async () => {
    const params = { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "t" } };
    const message = { jsonrpc: "2.0", id: 7, method: "initialize", params };
    // A client that names event streams first has one from the beginning.
    const accept = "text/event-stream, application/json";
    const failed = call(shared, "broken", message, { accept });
    const [reply] = await failed.end();
    expect(failed.ended).toBe("whole");
    expect(failed.headers["content-type"]).toBe("text/event-stream");
    expect(reply).toMatchObject({ id: 7, error: { data: { code: "start_failed" } } });
    const session = failed.headers["mcp-session-id"];
    if (typeof session !== "string") return;
    const ping = { jsonrpc: "2.0", id: 1, method: "ping" };
    const after = call(shared, "broken", ping, { "mcp-session-id": session });
    await after.end();
    expect(after.status).toBe(404);
  });
});

describe("a session's own stream", () => {
  const uris = (messages: Json[]) => messages.map(({ params }) => params.uri);

  test("begins with what happened since initialize, and can be taken up again", async () => {
    const session = await openSession(shared, "talks");
    const other = await openSession(shared, "talks");
    const elsewhere = await listen(shared, "talks", other).opened();
    await call(shared, "talks", tool("later", { tag: "missed", n: 3 }), session).end();
    await elsewhere.atLeast(3);
    const stream = listen(shared, "talks", session);
    expect(uris(await stream.atLeast(3))).toEqual([1, 2, 3].map((i) => `test://missed/${i}`));
    expect(stream.headers["x-accel-buffering"]).toBe("no");
    const ids = stream.events.map(({ id }) => id);
    const again = listen(shared, "talks", session, ids[0]);
    expect(uris(await again.atLeast(2))).toEqual([2, 3].map((i) => `test://missed/${i}`));
    expect(again.events.map(({ id }) => id)).toEqual(ids.slice(1));
  });

  test("goes on over the GET that came last, and says nothing twice", async () => {
    const session = await openSession(shared, "talks");
    const first = await listen(shared, "talks", session).opened();
    const second = await listen(shared, "talks", session).opened();
    await first.end();
    expect(first.ended).toBe("whole");
    await call(shared, "talks", tool("later", { tag: "second", n: 1 }), session).end();
    expect(uris(await second.atLeast(1))).toEqual(["test://second/1"]);
    second.close();
    const third = await listen(shared, "talks", session).opened();
    await call(shared, "talks", tool("later", { tag: "third", n: 1 }), session).end();
    expect(uris(await third.atLeast(1))).toEqual(["test://third/1"]);
    expect(first.messages).toEqual([]);
  });

  test.each([["nonsense"], ["999-1"], ["-1--1"], ["0-99999999999999999999"], ["1e0-1"]])(
    "serves a client that names the event %j, which nobody has sent",
    async (last) => {
      const session = await openSession(shared, "talks");
      const stream = await listen(shared, "talks", session, last).opened();
      expect(stream.status).toBe(200);
      await call(shared, "talks", tool("later", { tag: "x", n: 1 }), session).end();
      expect(uris(await stream.atLeast(1))).toEqual(["test://x/1"]);
    },
  );

  test("gives nothing of another session to who names its events", async () => {
    const [mine, theirs] = [await openSession(shared, "talks"), await openSession(shared, "talks")];
    const secret = call(shared, "talks", talk("secret", { n: 3, ms: 150 }), theirs);
    await secret.end();
    const streams = secret.events.map(({ id }) => listen(shared, "talks", mine, id));
    await Promise.all(streams.map((stream) => stream.opened()));
    await call(shared, "talks", tool("later", { tag: "mine", n: 1 }), mine).end();
    await waitFor("what is mine", () => streams.some(({ text }) => text.includes("test://mine/1")));
    expect(streams.map(({ text }) => text).join("")).not.toContain("secret");
  });
});

describe("memory", () => {
  test("holds the last events of a session that does not listen, however many there were", async () => {
    const hangar = await startHttp({ config: configOf({ talks: { command: fixture("talks") } }) });
    const sessions = [await openSession(hangar, "talks"), await openSession(hangar, "talks")];
    const [session = {}, witness = {}] = sessions;
    const seen = await listen(hangar, "talks", witness).opened();
    const before = peak(hangar.pid);
    const flood = tool("later", { tag: "flood", n: 5000, bytes: 4000 });
    await call(hangar, "talks", flood, session).end();
    await waitFor(
      "the last one",
      () => seen.text.slice(-9000).includes("test://flood/5000"),
      LOADED_MS,
    );
    // 20 MB have passed; one of both sessions read them, the other keeps a MiB.
    expect(peak(hangar.pid) - before).toBeLessThan(100 * MIB);
    const stream = listen(hangar, "talks", session);
    await waitFor(
      "the last one",
      () => stream.text.slice(-9000).includes("test://flood/5000"),
      LOADED_MS,
    );
    const kept = stream.messages.map(({ params }) => Number(params.uri.split("/").at(-1)));
    expect(kept.length).toBeLessThanOrEqual(256);
    expect(kept).toEqual(Array.from(kept, (_, i) => 5000 - kept.length + 1 + i));
    const small = tool("later", { tag: "small", n: 5000 });
    stream.close();
    await call(hangar, "talks", small, session).end();
    await waitFor(
      "the last one",
      () => seen.text.slice(-9000).includes("test://small/5000"),
      LOADED_MS,
    );
    const again = listen(hangar, "talks", session);
    await waitFor(
      "the last one",
      () => again.text.slice(-9000).includes("test://small/5000"),
      LOADED_MS,
    );
    expect(again.messages.length).toBeLessThanOrEqual(257);
  });

  test("is not taken by a slow reader, who loses progress and gets the reply", async () => {
    const hangar = await startHttp({ config: configOf({ talks: { command: fixture("talks") } }) });
    const session = await openSession(hangar, "talks");
    const before = peak(hangar.pid);
    const slow = call(hangar, "talks", talk("slow", { n: 500, bytes: 100_000 }), session);
    slow.pause();
    await waitUntilSaid(hangar.pid, 50_000_000);
    expect(peak(hangar.pid) - before).toBeLessThan(100 * MIB);
    slow.resume();
    const messages = await slow.end();
    expect(messages.at(-1)).toMatchObject({ id: 1, result: {} });
    const progress = messages.slice(0, -1).map(({ params }) => params.progress);
    expect(progress.length).toBeGreaterThan(0);
    expect(progress.length).toBeLessThan(250);
    expect(progress).toEqual(progress.toSorted((a, b) => a - b));
  });

  test(
    "is not taken by a reader that never reads, who is cut off while others are served",
    async () => {
      const command = fixture("talks");
      const modern = { command, env: { FIXTURE_ERA: "modern" } };
      const hangar = await startHttp({ config: configOf({ modern, other: { command } }) });
      const session = await openSession(hangar, "other");
      const before = peak(hangar.pid);
      const args = { tag: "stuck", n: 800, bytes: 100_000, method: "message", ms: 60_000 };
      const _meta = { "io.modelcontextprotocol/logLevel": "debug" };
      const params = { name: "talk", arguments: args, _meta };
      const stuck = modernCall("modern", "tools/call", params)(hangar);
      stuck.pause();
      const times: number[] = [];
      for (let i = 0; i < 20; i++) {
        const began = performance.now();
        await call(hangar, "other", talk("other", {}, i), session).end();
        times.push(performance.now() - began);
      }
      expect(times.toSorted((a, b) => a - b)[10]).toBeLessThan(1000);
      // It is cut off, and so its call is cancelled; it has not read a byte.
      const { cancelled } = await waitFor(
        "the cancel",
        async () => {
          const told = await modernTool(hangar, "modern", "cancelled");
          return told.cancelled.length > 0 && told;
        },
        LOADED_MS,
      );
      expect(cancelled).toHaveLength(1);
      stuck.resume();
      await stuck.end(LOADED_MS);
      expect(stuck.ended).toBe("broken");
      expect(peak(hangar.pid) - before).toBeLessThan(320 * MIB);
    },
    2 * LOADED_MS,
  );
});

describe("HTTP+SSE", () => {
  const INITIALIZE = {
    jsonrpc: "2.0",
    id: 0,
    method: "initialize",
    params: {
      protocolVersion: "2024-11-05",
      capabilities: { sampling: {}, elicitation: {}, roots: {} },
      clientInfo: { name: "test", version: "1.0.0" },
    },
  };

  /** A client past its handshake. */
  async function connect(hangar: HttpHangar, path: string, headers: Record<string, string> = {}) {
    const stream = begin(hangar, "GET", path, { ...EVENT_STREAM, ...headers });
    await waitFor("the endpoint", () => stream.events.length > 0);
    const endpoint = stream.events[0]?.data ?? "";
    const post = async (message: Json): Promise<HttpReply> =>
      await hangar.post(message, { accept: "", ...headers }, endpoint);
    await post(INITIALIZE);
    await stream.atLeast(1);
    await post({ jsonrpc: "2.0", method: "notifications/initialized" });
    return { stream, endpoint, post };
  }

  test("names where to POST first, takes what comes there with 202, and answers on the stream", async () => {
    const { stream, endpoint, post } = await connect(shared, "/sse/talks");
    expect(stream.events[0]).toEqual({
      id: undefined,
      event: "endpoint",
      retry: undefined,
      data: expect.stringMatching(/^\/messages\?sessionId=[\w-]{16,}$/),
    });
    expect(stream).toMatchObject({
      status: 200,
      headers: { "content-type": "text/event-stream", "x-accel-buffering": "no" },
    });
    expect(stream.messages[0]).toMatchObject({ id: 0, result: { protocolVersion: "2024-11-05" } });
    expect(await post(talk("one", { n: 2 }, "a"))).toMatchObject({ status: 202 });
    const [, ...messages] = await stream.atLeast(4);
    expect(steps(messages)).toEqual([1, 2, "reply"]);
    expect(messages.at(-1)).toMatchObject({ id: "a", result: { structuredContent: {} } });
    expect(await post("{")).toMatchObject({ status: 202 });
    expect((await stream.atLeast(5)).at(-1)).toMatchObject({ id: null, error: { code: -32700 } });
    expect(endpoint).not.toContain("127.0.0.1");
  });

  test("puts the provider's questions on the stream, and takes the answers", async () => {
    const hangar = await startHttp({ config: configOf({ p: { command: fixture("asks-back") } }) });
    const { stream, post } = await connect(hangar, "/sse/p");
    await post(tool("ask", { method: "elicitation/create" }, 5));
    const question = await waitFor("the question", () =>
      stream.messages.find(({ method }) => method === "elicitation/create"),
    );
    expect(question.params.message).toBe("What is your name?");
    await post({ jsonrpc: "2.0", id: question.id, result: { action: "decline" } });
    const reply = await waitFor("the reply", () => stream.messages.find(({ id }) => id === 5));
    expect(reply.result.structuredContent).toEqual({ answer: { result: { action: "decline" } } });
  });

  test("serves the registry's tools at /sse", async () => {
    const { stream, post } = await connect(shared, "/sse");
    await post({ jsonrpc: "2.0", id: 1, method: "tools/list" });
    const names = (await stream.atLeast(2))[1].result.tools.map(({ name }: Json) => name);
    expect(names).toContain("registry_invoke");
  });

  test("knows nobody whose stream is not open", async () => {
    const { stream, endpoint, post } = await connect(shared, "/sse/talks");
    const ping = { jsonrpc: "2.0", id: 1, method: "ping" };
    const wrong = ["/messages?sessionId=0123456789abcdef0123456789abcdef", "/messages"];
    for (const path of wrong) expect((await shared.post(ping, {}, path)).status).toBe(404);
    // The one who opened it came without a token, so it is not the same one.
    const bearer = { authorization: `Bearer ${TOKEN}` };
    expect((await shared.post(ping, bearer, endpoint)).status).toBe(404);
    stream.close();
    await waitFor("404", async () => (await post(ping)).status === 404);
  });

  test("R7: cancels what a client has asked for when its stream closes", async () => {
    const session = await openSession(shared, "talks");
    const before = await cancelledTalks(session);
    const { stream, post } = await connect(shared, "/sse/talks");
    await post(talk("left", { ms: 30_000 }));
    await post({ jsonrpc: "2.0", id: 2, method: "ping" });
    await stream.atLeast(2);
    stream.close();
    await waitFor("the cancel", async () => {
      return (await cancelledTalks(session)).length === before.length + 1;
    });
  });

  test("has the same checks as the rest: Host, Origin, token, verb, type", async () => {
    const foreign = [
      [{ host: "evil.example" }, 403],
      [{ origin: "https://evil.example" }, 403],
      [{ "x-forwarded-for": "203.0.113.7" }, 401],
      [{ authorization: "Bearer wrong" }, 401],
    ] as const;
    const { endpoint } = await connect(shared, "/sse/talks");
    const ping = { jsonrpc: "2.0", id: 1, method: "ping" };
    for (const [headers, status] of foreign) {
      const opened = begin(shared, "GET", "/sse/talks", { ...EVENT_STREAM, ...headers });
      expect((await opened.opened()).status).toBe(status);
      expect((await shared.post(ping, headers, endpoint)).status).toBe(status);
    }
    expect((await shared.post(ping, { "content-type": "text/plain" }, endpoint)).status).toBe(415);
    expect((await shared.post(ping, {}, "/sse/talks")).status).toBe(405);
    expect((await begin(shared, "GET", "/sse/nobody", EVENT_STREAM).opened()).status).toBe(404);
  });
});

describe("a modern call", () => {
  const COMPLETE = result('{"resultType":"complete"}');

  test("of server/discover and tools/call gets what the official SDK's server says", async () => {
    const discover = modernCall("official", "server/discover")(shared);
    expect(await discover.end()).toMatchObject([
      { id: 1, result: { resultType: "complete", supportedVersions: ["2026-07-28"] } },
    ]);
    expect(await modernTool(shared, "official", "add", { a: 2, b: 3 })).toEqual({ sum: 5 });
  });

  test("takes its own envelope to the provider, byte for byte, and nothing else", async () => {
    const meta = `{"io.modelcontextprotocol/protocolVersion":"2026-07-28", "io.modelcontextprotocol/clientCapabilities":{"elicitation":{"x":1.0},"extensions":{"vendor/x":{}}},"io.modelcontextprotocol/clientInfo":{"name":"caf\\u00e9","version":"0","more":[1e400]},"io.modelcontextprotocol/logLevel":"warning","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","vendor/unknown":{"n":9007199254740993},"test/say":[${JSON.stringify(COMPLETE)}]}`;
    const params = `{"name":"t", "arguments":{"envelope":1.0},"_meta":${meta}}`;
    const text = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":${params}}`;
    await call(shared, "modern", text, modernHeaders("tools/call", { name: "t" })).end();
    const [line] = wireLines('"envelope":1.0');
    expect(line?.endsWith(`"params":${params}}`)).toBe(true);
  });

  test.each([
    ["tools/call", "name", "t"],
    ["prompts/get", "name", "p"],
    ["resources/read", "uri", "test://caf%C3%A9"],
    ["tasks/get", "taskId", "task-1"],
    ["tasks/update", "taskId", "task-1"],
    ["tasks/cancel", "taskId", "task-1"],
  ])("of %s must repeat its %s in Mcp-Name", async (method, member, value) => {
    const base64 = (text: string) => `=?base64?${Buffer.from(text).toString("base64")}?=`;
    const params = (named: string) => ({ [member]: named });
    const say = [COMPLETE];
    const passes = [
      modernCall("modern", method, params(value), { say }),
      modernCall("modern", method, params(value), { say, headers: { "mcp-name": base64(value) } }),
      modernCall("modern", method, params("café"), {
        say,
        headers: { "mcp-name": base64("café") },
      }),
      modernCall("modern", method, params(" x "), { say, headers: { "mcp-name": base64(" x ") } }),
      modernCall("modern", method, params(base64("y")), {
        say,
        headers: { "mcp-name": base64(base64("y")) },
      }),
    ];
    for (const send of passes) {
      const stream = send(shared);
      expect(await stream.end()).toMatchObject([{ id: 1, result: { resultType: "complete" } }]);
      expect(stream.status).toBe(200);
    }
    const mark = `refused-${method}`;
    const marked = { "test/mark": mark };
    const refused = [
      { "mcp-name": "" },
      { "mcp-name": `${value}x` },
      { "mcp-name": value.toUpperCase() },
      { "mcp-name": base64(`${value}x`) },
      { "mcp-name": "=?base64?!?=" },
      { "mcp-method": "" },
      { "mcp-method": "tools/list" },
      { "mcp-protocol-version": "" },
      { "mcp-protocol-version": "2025-11-25" },
    ];
    for (const headers of refused) {
      const named = { ...params(value), _meta: marked };
      const stream = modernCall("modern", method, named, { say, headers })(shared);
      const [reply] = await stream.end();
      expect([headers, stream.status, reply.error.code]).toEqual([headers, 400, -32020]);
    }
    // The name in the header must not be what an encoded one only looks like.
    const looksEncoded = modernCall("modern", method, {
      ...params(base64("y")),
      _meta: marked,
    })(shared);
    expect((await looksEncoded.end())[0].error.code).toBe(-32020);
    const absent = modernCall(
      "modern",
      method,
      { _meta: marked },
      { headers: { "mcp-name": "t" } },
    );
    expect((await absent(shared).end())[0].error.code).toBe(-32020);
    expect(wireLines(mark)).toEqual([]);
  });

  test("gets notes as events without ids, and its progress under its own token", async () => {
    const say = [
      '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":$token,"progress":1.0,"vendor":1e400}}',
      '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":2, "progressToken" : $token}}',
      COMPLETE,
    ];
    const params = { name: "t", _meta: { progressToken: "mine" } };
    const stream = modernCall("modern", "tools/call", params, { id: "a", say })(shared);
    await stream.end();
    expect(stream.events.map(({ data }) => data)).toEqual([
      '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"mine","progress":1.0,"vendor":1e400}}',
      '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":2, "progressToken" : "mine"}}',
      '{"jsonrpc":"2.0","id":"a","result":{"resultType":"complete"}}',
    ]);
    expect(stream.events.map(({ id, retry }) => id ?? retry)).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
    expect(stream.headers).toMatchObject({
      "content-type": "text/event-stream",
      "x-accel-buffering": "no",
    });
    expect(stream.headers["mcp-session-id"]).toBeUndefined();
  });

  test("that is asked for input gets the question, and answers it, byte for byte", async () => {
    const asked =
      '{"resultType":"input_required", "inputRequests":{"q":{"method":"elicitation/create","params":{"message":"caf\\u00e9?","n":1.0}}},"requestState":"a+/=\\u0000\\/","vendor":9007199254740993}';
    const first = modernCall("modern", "tools/call", { name: "t" }, { say: [result(asked)] });
    const stream = first(shared);
    await stream.end();
    expect(stream.text).toBe(`{"jsonrpc":"2.0","id":1,"result":${asked}}`);
    const retry = `{"name":"t","inputResponses":{"q":{"action":"accept","content":{"n":1.50}},"extra":[-0]}, "requestState":"a+/=\\u0000\\/","_meta":${JSON.stringify({ ...ENVELOPE, "test/say": [COMPLETE] })}}`;
    const text = `{"jsonrpc":"2.0","id":2,"method":"tools/call","params":${retry}}`;
    await call(shared, "modern", text, modernHeaders("tools/call", { name: "t" })).end();
    const [line] = wireLines('"inputResponses":{"q"');
    expect(line?.endsWith(`"params":${retry}}`)).toBe(true);
  });

  test.each([
    ['{"resultType":"task","task":{"taskId":"t-1","ttl":1.0}}'],
    ['{"resultType":"vendor/x","a":1e400,"content":[{"type":"hologram"}]}'],
    ['{"no":"resultType"}'],
    ["{}"],
  ])("gets the result %s as it is", async (text) => {
    const stream = modernCall("modern", "vendor/method", {}, { say: [result(text)] })(shared);
    await stream.end();
    expect(stream.text).toBe(`{"jsonrpc":"2.0","id":1,"result":${text}}`);
  });

  test.each([
    [-32601, 404],
    [-32020, 400],
    [-32021, 400],
    [-32022, 400],
    [-32602, 200],
    [-32603, 200],
    [-32002, 200],
    [12345, 200],
  ])("gets the provider's error %i with HTTP %i, and its bytes", async (code, status) => {
    const params = { name: "t" };
    const stream = modernCall("modern", "tools/call", params, { say: [failure(code)] })(shared);
    await stream.end();
    expect(stream.status).toBe(status);
    expect(stream.text).toBe(failure(code).replace("$id", "1"));
  });

  test("of a provider of the older era, and the other way round, is refused as that provider would", async () => {
    const discover = modernCall("talks", "server/discover")(shared);
    expect(await discover.end()).toMatchObject([{ id: 1, error: { code: -32601 } }]);
    expect(discover.status).toBe(404);
    const params = { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "t" } };
    const message = { jsonrpc: "2.0", id: 1, method: "initialize", params };
    const initialize = call(shared, "modern", message, {});
    expect(await initialize.end()).toMatchObject([
      { error: { code: -32022, data: { supported: ["2026-07-28"] } } },
    ]);
    expect(initialize.headers["mcp-session-id"]).toBeUndefined();
  });

  test("R7: is cancelled at the provider when its client goes away, and no other call is", async () => {
    const mark = "goes-away";
    const params = { name: "t", arguments: { mark }, _meta: { progressToken: 1 } };
    const progress =
      '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":$token,"progress":1}}';
    const [gone, stays] = [1, 1].map((id) =>
      modernCall("modern", "tools/call", params, { id, say: [progress] })(shared),
    );
    await gone?.atLeast(1);
    await stays?.atLeast(1);
    gone?.close();
    const ids = wireLines(mark).map((line) => JSON.parse(line).id);
    const cancels = () =>
      wireLines("notifications/cancelled").filter((line) =>
        ids.includes(JSON.parse(line).params.requestId),
      );
    await waitFor("the cancel", () => cancels().length > 0);
    expect(cancels()).toHaveLength(1);
    expect(stays?.ended).toBeUndefined();
  });

  test("hears no log message unless it asked for some", async () => {
    const hold = { name: "t", arguments: { hold: 1 } };
    const level = { "io.modelcontextprotocol/logLevel": "info" };
    const message =
      '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"private"}}';
    const asks = modernCall(
      "official",
      "tools/call",
      { name: "add", arguments: { a: 1, b: 1 } },
      {},
    );
    await asks(shared).end();
    const wants = modernCall(
      "modern",
      "tools/call",
      { ...hold, _meta: level },
      { say: [] },
    )(shared);
    await waitFor("the first call", () => wireLines('"hold":1').length === 1);
    const silent = modernCall("modern", "tools/call", hold, { id: 2, say: [message] })(shared);
    await waitFor("the second call", () => wireLines('"hold":1').length === 2);
    // Answered after it, so what was said before has arrived.
    await modernCall("modern", "vendor/x", {}, { say: [COMPLETE] })(shared).end();
    expect(silent.text).not.toContain("private");
    expect(await wants.atLeast(1)).toMatchObject([{ method: "notifications/message" }]);
  });
});

describe("a subscription", () => {
  const LISTEN = { notifications: { toolsListChanged: true } };

  function subscribe(hangar: HttpHangar, id: Json): Listener {
    return modernCall("p", "subscriptions/listen", LISTEN, { id })(hangar);
  }

  function startListens(rest: Json = {}): Promise<HttpHangar> {
    const provider = { command: fixture("listens"), ...rest };
    return startHttp({ config: configOf({ p: provider }), era: "modern" });
  }

  const methods = (messages: Json[]) => messages.map(({ method }) => method);
  const ACKNOWLEDGED = "notifications/subscriptions/acknowledged";
  const CHANGED = "notifications/tools/list_changed";

  test("is acknowledged first, under the id its client gave it, and outlives every deadline", async () => {
    const hangar = await startListens({ timeout_s: 1 });
    const began = performance.now();
    const ids = [1, "1", 1, 'caf\u00e9 "x"'];
    const streams = ids.map((id) => subscribe(hangar, id));
    for (const stream of streams) expect(methods(await stream.atLeast(1))).toEqual([ACKNOWLEDGED]);
    await sleep(Math.max(0, 1300 - (performance.now() - began))); // past timeout_s
    await modernTool(hangar, "p", "change", { tag: 1.5 });
    for (const [at, stream] of streams.entries()) {
      const messages = await stream.atLeast(2);
      expect(methods(messages)).toEqual([ACKNOWLEDGED, CHANGED]);
      for (const { params } of messages) {
        expect(params._meta[SUBSCRIPTION_ID]).toBe(ids[at]);
        expect(Object.keys(params._meta)).toEqual([SUBSCRIPTION_ID]);
      }
      expect(stream.ended).toBeUndefined();
    }
  });

  test("ends at the provider when its client goes away, and when the provider ends it", async () => {
    const hangar = await startListens();
    const [left, stays] = [subscribe(hangar, 1), subscribe(hangar, 1)];
    await Promise.all([left.atLeast(1), stays.atLeast(1)]);
    const { open } = await modernTool(hangar, "p", "open");
    expect(open).toHaveLength(2);
    left.close();
    const after = await waitFor("the cancel", async () => {
      const now = await modernTool(hangar, "p", "open");
      return now.closed.length > 0 && now;
    });
    expect(after.open).toHaveLength(1);
    expect(new Set([...after.open, ...after.closed])).toEqual(new Set(open));
    await modernTool(hangar, "p", "end");
    const messages = await stays.end();
    expect(stays.ended).toBe("whole");
    expect(messages.at(-1)).toEqual({
      jsonrpc: "2.0",
      id: 1,
      result: { resultType: "complete", _meta: { [SUBSCRIPTION_ID]: 1 } },
    });
  });

  test("is taken up by the next run after a crash, without being acknowledged again", async () => {
    const hangar = await startListens();
    const stream = subscribe(hangar, "s");
    await stream.atLeast(1);
    const crash = { name: "crash", arguments: {} };
    expect(await modernCall("p", "tools/call", crash)(hangar).end()).toMatchObject([
      { error: { data: { code: "provider_exited" } } },
    ]);
    await hangar.callTool("registry_start", { provider: "p" });
    await waitFor("it to be open again", async () => {
      return (await modernTool(hangar, "p", "open")).open.length === 1;
    });
    await modernTool(hangar, "p", "change");
    expect(methods(await stream.atLeast(2))).toEqual([ACKNOWLEDGED, CHANGED]);
    expect(stream.messages[1].params._meta[SUBSCRIPTION_ID]).toBe("s");
    stream.close();
    await waitFor("the cancel", async () => {
      return (await modernTool(hangar, "p", "open")).open.length === 0;
    });
  });

  test("does not keep the provider running, and outlives an idle stop", async () => {
    const hangar = await startListens({ idle_ttl_s: 1 });
    const stream = subscribe(hangar, 9);
    await stream.atLeast(1);
    await hangar.waitForState("p", "cold");
    expect(stream.ended).toBeUndefined();
    await modernTool(hangar, "p", "change");
    expect(methods(await stream.atLeast(2))).toEqual([ACKNOWLEDGED, CHANGED]);
    await hangar.callTool("registry_stop", { provider: "p" });
    const gone = subscribe(hangar, 10);
    await gone.atLeast(1);
    expect((await modernTool(hangar, "p", "open")).open).toHaveLength(2);
    stream.close();
    await waitFor("the cancel", async () => {
      return (await modernTool(hangar, "p", "open")).open.length === 1;
    });
  });

  test("ends soon when Hangar does", async () => {
    const hangar = await startListens();
    const stream = subscribe(hangar, 1);
    await stream.atLeast(1);
    const began = performance.now();
    await hangar.close();
    expect(performance.now() - began).toBeLessThan(3000);
    await stream.end();
    expect(stream.ended).toBe("whole");
    expect(stream.messages.at(-1)).toEqual({
      jsonrpc: "2.0",
      id: 1,
      result: { resultType: "complete", _meta: { [SUBSCRIPTION_ID]: 1 } },
    });
  });

  test("is refused to a client that takes no event stream, as it would hear nothing", async () => {
    const headers = { accept: "application/json" };
    const stream = modernCall("official", "subscriptions/listen", LISTEN, { headers })(shared);
    await stream.end(3000);
    expect(stream.status).toBe(406);
  });
});

describe("on stdio with --provider", () => {
  function start(name: string, env: Json = {}): Promise<StdioHangar> {
    const config = configOf({ p: { command: fixture(name), env } });
    return startStdio({ config, args: ["--provider", "p"], era: "modern" });
  }

  test("a modern client discovers and calls, and its bytes pass", async () => {
    const log = join(tempDir(), "wire.log");
    const hangar = await start("dictated", { FIXTURE_ERA: "modern", WIRE_LOG: log });
    const { result: discovered } = await hangar.request("server/discover");
    expect(discovered).toMatchObject({ supportedVersions: ["2026-07-28"] });
    const text = '{"resultType":"input_required","requestState":"\\u0000","n":1e400}';
    const _meta = { "test/say": [result(text)], "vendor/x": { a: [] } };
    const { raw } = await hangar.request("tools/call", { name: "t", _meta }, "x");
    expect(raw).toBe(`{"jsonrpc":"2.0","id":"x","result":${text}}`);
    const lines = readFileSync(log, "utf8").split("\n");
    const sent = lines.find((line) => line.includes("vendor/x")) ?? "";
    expect(JSON.parse(sent).params).toEqual({ name: "t", _meta: { ...ENVELOPE, ..._meta } });
  });

  test("cancels by notification, under the provider's own id, and the cancelled call says nothing", async () => {
    const hangar = await start("talks", { FIXTURE_ERA: "modern" });
    const params = { name: "talk", arguments: { tag: "x", ms: 30_000 } };
    await hangar.request("tools/call", { name: "echo" }); // it runs, so the next one reaches it
    const message = { jsonrpc: "2.0", id: "mine", method: "tools/call" };
    hangar.send({ ...message, params: { ...params, _meta: ENVELOPE } });
    hangar.notify("notifications/cancelled", { requestId: "not mine" });
    hangar.notify("notifications/cancelled", { requestId: "mine" });
    const told = await waitFor("the cancel", async () => {
      const { result: said } = await hangar.request("tools/call", { name: "cancelled" });
      return said.structuredContent.cancelled.length > 0 && said.structuredContent.cancelled;
    });
    expect(told).toEqual([expect.any(Number)]);
    expect(hangar.lines.join("\n")).not.toContain('"mine"');
  });

  test("a subscription goes on until it is cancelled, also over a crash", async () => {
    const hangar = await start("listens");
    const params = { notifications: { toolsListChanged: true } };
    const message = { jsonrpc: "2.0", id: "s", method: "subscriptions/listen" };
    hangar.send({ ...message, params: { ...params, _meta: ENVELOPE } });
    const tools = async (name: string) => {
      const reply = await hangar.request("tools/call", { name, arguments: {} });
      return reply.result?.structuredContent;
    };
    await waitFor("the acknowledgement", () => hangar.notifications.length === 1);
    await tools("crash");
    await waitFor("it to be open again", async () => (await tools("open"))?.open.length === 1);
    await tools("change");
    await waitFor("the change", () => hangar.notifications.length === 2);
    const ids = hangar.notifications.map(({ params: said }) => said._meta[SUBSCRIPTION_ID]);
    expect(ids).toEqual(["s", "s"]);
    hangar.notify("notifications/cancelled", { requestId: "s" });
    await waitFor("the cancel", async () => (await tools("open")).open.length === 0);
    await tools("change");
    expect(hangar.notifications).toHaveLength(2);
  });

  test("a slow client loses progress, gets the reply, and takes no memory", async () => {
    const hangar = await start("talks", { FIXTURE_ERA: "modern" });
    await hangar.request("tools/call", { name: "echo" });
    hangar.child.stdout?.pause();
    const before = peak(hangar.pid);
    const args = { tag: "x", n: 500, bytes: 100_000 };
    const params = { name: "talk", arguments: args, _meta: { progressToken: 1 } };
    const reply = hangar.request("tools/call", params);
    await waitUntilSaid(hangar.pid, 50_000_000);
    hangar.child.stdout?.resume();
    expect((await reply).result.structuredContent.tag).toBe("x");
    expect(peak(hangar.pid) - before).toBeLessThan(100 * MIB);
    const progress = hangar.notifications.map(({ params: said }) => said.progress);
    expect(progress.length).toBeLessThan(250);
    expect(progress).toEqual(progress.toSorted((a, b) => a - b));
  });

  test(
    "a client that never reads is given up, and the provider stopped",
    async () => {
      const log = join(tempDir(), "starts.log");
      const hangar = await start("talks", { FIXTURE_ERA: "modern", START_LOG: log });
      await hangar.request("tools/call", { name: "echo" });
      hangar.child.stdout?.pause();
      const before = peak(hangar.pid);
      const args = { tag: "x", n: 800, bytes: 100_000, method: "message", ms: 30_000 };
      const logLevel = { "io.modelcontextprotocol/logLevel": "debug" };
      const params = { name: "talk", arguments: args, _meta: { ...ENVELOPE, ...logLevel } };
      hangar.send({ jsonrpc: "2.0", id: "x", method: "tools/call", params });
      // Hangar itself ends right after, and can be looked at no longer.
      let most = 0;
      const ended = () => {
        if (!startedPids(log).some(isAlive)) return true;
        most = Math.max(most, peak(hangar.pid) || 0);
        return false;
      };
      await waitFor("the provider's end", ended, LOADED_MS);
      expect(most).toBeGreaterThan(0);
      expect(most - before).toBeLessThan(320 * MIB);
      hangar.child.stdout?.resume();
      expect(await hangar.exit).toEqual({ code: 0, signal: null });
    },
    2 * LOADED_MS,
  );

  test("a client that does not read does not keep the provider from being stopped", async () => {
    const log = join(tempDir(), "starts.log");
    const hangar = await start("talks", { FIXTURE_ERA: "modern", START_LOG: log });
    await hangar.request("tools/call", { name: "echo" });
    hangar.child.stdout?.pause();
    const text = "x".repeat(MIB);
    const before = bytesRead(hangar.pid);
    const params = { name: "echo", arguments: { text }, _meta: ENVELOPE };
    hangar.send({ jsonrpc: "2.0", id: "x", method: "tools/call", params });
    await waitFor("the answer to be on its way", () => bytesRead(hangar.pid) - before > 3 * MIB);
    hangar.kill("SIGTERM");
    await waitFor("the provider's end", () => !startedPids(log).some(isAlive), 5000);
    hangar.child.stdout?.resume();
    expect(await hangar.exit).toEqual({ code: 0, signal: null });
  });
});

describe("isolation", () => {
  test("gives each of 200 clients with the same ids its own answers and progress", async () => {
    const command = fixture("talks");
    const hangar = await startHttp({
      config: configOf({
        legacy: { command },
        modern: { command, env: { FIXTURE_ERA: "modern" } },
      }),
    });
    const random = seeded(20_260_728);
    const IDS = [1, 2, "1", "x"];
    let answered = 0;
    let gone = 0;

    async function client(no: number): Promise<void> {
      const agent = new Agent({ keepAlive: true });
      try {
        const isLegacy = no % 2 === 0;
        const session = isLegacy ? await openSession(hangar, "legacy") : {};
        const calls = IDS.map(async (id) => {
          const tag = `${no}/${JSON.stringify(id)}`;
          const args = { tag, n: Math.floor(random() * 4), ms: Math.floor(random() * 150) };
          const leavesAfter = random() < 0.2 ? random() * 120 : undefined;
          const _meta = { progressToken: id, ...(isLegacy ? {} : ENVELOPE) };
          const params = { name: "talk", arguments: args, _meta };
          const message = { jsonrpc: "2.0", id, method: "tools/call", params };
          const headers = isLegacy ? session : modernHeaders("tools/call", params);
          const face = isLegacy ? "legacy" : "modern";
          const stream = call(hangar, face, message, headers, agent);
          if (leavesAfter !== undefined) {
            await sleep(leavesAfter);
            stream.close();
            gone++;
          }
          const messages = await stream.end(15_000).catch((error: unknown) => {
            throw new Error(`client ${tag}: ${String(error)}`);
          });
          for (const { params: said, result: got, id: to } of messages) {
            if (said !== undefined) expect(said).toMatchObject({ progressToken: id, message: tag });
            else expect([to, got?.structuredContent.tag]).toEqual([id, tag]);
          }
          if (leavesAfter !== undefined) return;
          expect(steps(messages)).toEqual([
            ...Array.from({ length: args.n }, (_, i) => i + 1),
            "reply",
          ]);
          answered++;
        });
        await Promise.all(calls);
      } finally {
        agent.destroy();
      }
    }

    await Promise.all(Array.from({ length: 200 }, (_, no) => client(no)));
    expect(answered + gone).toBe(200 * IDS.length);
    expect(gone).toBeGreaterThan(80);
  });

  /** JSON as text, with everything that reading and writing it again would change. */
  const blank = fc.stringMatching(/^[ \t]{0,2}$/);
  const character = fc.oneof(
    fc.constantFrom("\\u0000", "\\/", "\\\\", '\\"', "\\ud83d\\ude00", "\\ud800", "\\u00e9", "é"),
    fc.constantFrom("😀", "}", "]", ",", ":", "'", "id", "_meta", "$", "\u007f", "\ufeff"),
  );
  const string = fc.array(character, { maxLength: 5 }).map((parts) => `"${parts.join("")}"`);
  const scalar = fc.oneof(
    string,
    fc.constantFrom("0", "-0", "1.0", "1e400", "9007199254740993", "2E+3", "-1.50e-7"),
    fc.constantFrom("true", "false", "null"),
  );
  const key = fc.oneof(string, fc.constantFrom('"id"', '"method"', '"_meta"', '"progressToken"'));
  const { value } = fc.letrec<{ value: string }>((tie) => ({
    value: fc.oneof(
      { depthSize: "small", withCrossShrink: true },
      scalar,
      fc
        .tuple(blank, fc.array(fc.tuple(blank, tie("value"), blank), { maxLength: 4 }))
        .map(
          ([only, items]) =>
            `[${items.length > 0 ? items.map((i) => i.join("")).join(",") : only}]`,
        ),
      fc
        .tuple(
          blank,
          fc.array(fc.tuple(blank, key, blank, fc.constant(":"), blank, tie("value"), blank), {
            maxLength: 4,
          }),
        )
        .map(
          ([only, items]) =>
            `{${items.length > 0 ? items.map((i) => i.join("")).join(",") : only}}`,
        ),
    ),
  }));

  test.each([["legacy"], ["modern"]])(
    "of bytes: whatever JSON a %s call and its answer hold goes through unchanged",
    async (era) => {
      const session = era === "legacy" ? await openSession(shared, "legacy") : {};
      const agent = new Agent({ keepAlive: true });
      onTestFinished(() => agent.destroy());
      let no = 0;
      const property = fc.asyncProperty(value, value, async (args, answer) => {
        const mark = `"fuzz":"${era}-${++no}"`;
        const envelope = era === "legacy" ? "" : `,${JSON.stringify(ENVELOPE).slice(1, -1)}`;
        const say = JSON.stringify([
          result(`{"echo":$params,"own":${answer.replaceAll("$", "")}}`),
        ]);
        const params = `{"name":"t","arguments":${args} ,"_meta":{${mark},"test/say":${say}${envelope}}}`;
        const text = `{"jsonrpc":"2.0","id":${no},"method":"tools/call","params":${params}}`;
        const headers = era === "legacy" ? session : modernHeaders("tools/call", { name: "t" });
        const stream = call(shared, era, text, headers, agent);
        await stream.end();
        const whole = `{"jsonrpc":"2.0","id":${no},"result":{"echo":${params},"own":${answer.replaceAll("$", "")}}}`;
        if (stream.headers["content-type"] === "application/json") expect(stream.text).toBe(whole);
        else expect(stream.events.at(-1)?.data).toBe(whole);
      });
      await fc.assert(property, { numRuns: 60, seed: 7, interruptAfterTimeLimit: 5000 });
      const received = wireLines(`"fuzz":"${era}-`);
      expect(received.length).toBeGreaterThanOrEqual(no);
    },
  );
});

describe("a connection on which nothing happens", () => {
  test("is kept alive with comments", async () => {
    await waitFor(
      "a comment on each",
      () => long.every(({ stream }) => stream.text.includes(": keep-alive\n\n")),
      18_000,
    ).catch((error: unknown) => {
      const without = long.filter(({ stream }) => !stream.text.includes(": keep-alive"));
      throw new Error(`${String(error)}: ${without.map(({ what }) => what).join(", ")}`);
    });
    for (const { what, stream } of long) {
      expect([what, stream.status, stream.ended]).toEqual([what, 200, undefined]);
      expect(stream.headers["x-accel-buffering"]).toBe("no");
    }
  });
});
