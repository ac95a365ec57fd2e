/** Providers that run elsewhere: `mode: remote`, against servers that do what servers on the network do. */
import { randomUUID } from "node:crypto";
import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import {
  configOf,
  type Json,
  runCli,
  startHttp,
  type HttpHangar,
  type HttpReply,
  startStdio,
  type StdioHangar,
  waitFor,
} from "../harness.ts";
import { fileMarker } from "../leaks.ts";
import {
  answerIn,
  enveloped,
  event,
  HttpClient,
  json,
  legacy,
  messageIn,
  modern,
  note,
  openEvents,
  openRemotes,
  openStream,
  type Received,
  refuse,
  type RemoteServer,
  reply,
  startRemote,
  structured,
} from "../remote-server.ts";

const SECRET = "s3cr3t-Of-The-Test";

/** As configOf, without the variables of a program. */
function remoteConfig(server: RemoteServer | string, provider: Json = {}, rest: Json = {}): string {
  const endpoint = typeof server === "string" ? server : server.url;
  const config = configOf({}, rest);
  const text = JSON.parse(readFileSync(config, "utf8"));
  text.providers = { p: { mode: "remote", endpoint, ...provider } };
  return rewrite(config, text);
}

function rewrite(file: string, config: Json): string {
  writeFileSync(file, JSON.stringify(config));
  return file;
}

/** One Hangar for all tests that need nothing special of it; starting one is what takes time. */
const SERVERS = 80;
let shared: HttpHangar;
let servers: readonly RemoteServer[] = [];

beforeAll(async () => {
  servers = await openRemotes(SERVERS);
  const providers = servers.map(({ url }, n) => [`p${n}`, { mode: "remote", endpoint: url }]);
  const config = rewrite(configOf({}), { providers: Object.fromEntries(providers) });
  shared = await startHttp({ config, args: ["--log-level", "error"] });
});

afterAll(() => Promise.all(servers.map((server) => server.close())));

/** The name that the shared Hangar knows a server by. */
function nameOf(server: RemoteServer): string {
  const index = servers.indexOf(server);
  expect(index, "as many servers as tests").toBeGreaterThanOrEqual(0);
  return `p${index}`;
}

/** The address of one provider alone at the shared Hangar. */
function faceOf(server: RemoteServer): string {
  return `${shared.url}/${nameOf(server)}`;
}

/** What a test does with the provider that one of its servers is. */
interface Seat {
  invoke(tool: string, args?: Json, timeout?: number): Promise<Json>;
  callTool(name: string, args?: Json): Promise<Json>;
  details(): Promise<Json>;
  waitForState(state: string): Promise<Json>;
  /** Ends what was started. */
  close(): Promise<unknown>;
}

function seatAt(hangar: HttpHangar | StdioHangar, id: string, close: () => Promise<unknown>): Seat {
  return {
    invoke: (tool, args, timeout) => hangar.invoke(id, tool, args, timeout),
    callTool: (name, args) => hangar.callTool(name, { provider: id, ...args }),
    details: () => hangar.details(id),
    waitForState: (state) => hangar.waitForState(id, state),
    close,
  };
}

/** The server as a provider, of the shared Hangar if it needs no configuration of its own. */
async function startWith(
  server: RemoteServer | string,
  provider?: Json,
  rest?: Json,
): Promise<Seat> {
  if (typeof server === "string" || provider !== undefined) {
    const hangar = await startStdio({ config: remoteConfig(server, provider, rest) });
    return seatAt(hangar, "p", () => hangar.close());
  }
  const id = nameOf(server);
  const stop = () => shared.callTool("registry_stop", { provider: id });
  onTestFinished(async () => void (await stop()));
  return seatAt(shared, id, stop);
}

/** Sends a modern request to the provider alone, as an HTTP client. */
function postModern(server: RemoteServer, message: Json, headers: Json = {}): Promise<HttpReply> {
  const own = modernHeaders(message);
  return shared.post(message, { ...own, ...headers }, `/mcp/${nameOf(server)}`);
}

function modernHeaders({ method, params }: Json): Record<string, string> {
  const name = params.name === undefined ? {} : { "mcp-name": params.name };
  return { "mcp-protocol-version": "2026-07-28", "mcp-method": method, ...name };
}

/** A stdio client of the provider alone. */
function relayWith(server: RemoteServer, era: "legacy" | "modern" = "legacy") {
  return startStdio({ config: remoteConfig(server), args: ["--provider", "p"], era });
}

async function failure(call: Promise<Json>): Promise<Json> {
  const { isError, structuredContent } = await call;
  expect(isError).toBe(true);
  return structuredContent;
}

async function toolNames(hangar: Seat): Promise<string[]> {
  const { structuredContent } = await hangar.callTool("registry_tools");
  return structuredContent.tools.map(({ name }: Json) => name);
}

/** A server that opens the GET stream, and hands it out. */
function withStream(streams: Received[]) {
  return (received: Received): false | void => {
    if (received.http !== "GET") return false;
    streams.push(received);
    openEvents(received.response);
  };
}

/** Answers one JSON-RPC method in its own way. */
function on(method: string, answer: (received: Received) => unknown) {
  return (received: Received): unknown =>
    received.message?.method === method ? (answer(received) ?? true) : false;
}

describe("a legacy server", () => {
  test("is asked, greeted, called and left, with session and revision on every request", async () => {
    const server = await startRemote(legacy());
    const hangar = await startWith(server);
    expect((await hangar.invoke("echo", { n: 1 })).structuredContent).toEqual({ n: 1 });
    expect(await hangar.details()).toMatchObject({
      state: "ready",
      mode: "remote",
      meta: { protocol: "legacy", protocol_version: "2025-11-25" },
    });
    await waitFor("the GET", () => server.of("GET").length === 1);
    await hangar.close();
    const [probe, greeting, ...later] = server.received;
    expect(probe?.headers).toMatchObject({
      "mcp-protocol-version": "2026-07-28",
      "mcp-method": "server/discover",
    });
    expect(greeting?.message.method).toBe("initialize");
    for (const name of ["mcp-session-id", "mcp-protocol-version", "mcp-method"]) {
      expect(greeting?.headers).not.toHaveProperty(name);
    }
    const sent: string[] = later.map(({ http, message }) => message?.method ?? http);
    expect(sent.toSorted()).toEqual([
      "DELETE",
      "GET",
      "notifications/initialized",
      "tools/call",
      "tools/list",
    ]);
    expect(server.received.at(-1)?.http).toBe("DELETE");
    for (const { headers, http } of later) {
      expect(headers).toMatchObject({
        "mcp-session-id": "session-1",
        "mcp-protocol-version": "2025-11-25",
      });
      if (http === "POST") expect(headers.accept).toBe("application/json, text/event-stream");
      expect(headers).not.toHaveProperty("mcp-method");
    }
  });

  test("leaves no connection when it is stopped, and nothing is sent to it then", async () => {
    const streams: Received[] = [];
    const server = await startRemote(withStream(streams), legacy());
    const hangar = await startWith(server);
    await hangar.invoke("echo");
    await waitFor("the stream", () => streams.length === 1);
    await hangar.callTool("registry_stop");
    await waitFor("the connections to end", () => server.sockets.size === 0);
    expect(server.of("DELETE")).toHaveLength(1);
    const before = server.received.length;
    expect(await hangar.details()).toMatchObject({ state: "cold", alive: false });
    await sleep(700); // longer than the first wait before a stream is opened again
    expect(server.received).toHaveLength(before);
  });

  test("that answers with events has its progress passed in order and before the answer", async () => {
    const count = async (_: Json, { message, response }: Received) => {
      for (let progress = 1; progress <= 20; progress++) {
        const { progressToken } = message.params._meta;
        note(response, "notifications/progress", { progressToken, progress, vendor: 1.5 });
      }
      return structured({ counted: 20 });
    };
    const server = await startRemote(legacy({ sse: true, tools: { count } }));
    const hangar = await startStdio({ config: remoteConfig(server) });
    await hangar.invoke("p", "echo");
    const before = hangar.lines.length;
    const args = { provider: "p", tool: "count" };
    await hangar.callTool("registry_invoke", args, { progressToken: "mine" });
    const messages = hangar.lines.slice(before).map((line) => JSON.parse(line));
    expect(messages.slice(0, 20).map(({ params }) => params)).toEqual(
      Array.from({ length: 20 }, (_, n) => ({
        progressToken: "mine",
        progress: n + 1,
        vendor: 1.5,
      })),
    );
    expect(messages[20].result.structuredContent).toEqual({ counted: 20 });
  });

  test("is heard on its GET stream, which goes on where it broke off", async () => {
    const streams: Received[] = [];
    const tools: Record<string, () => Json> = { first: () => structured({}) };
    const server = await startRemote(withStream(streams), legacy({ tools }));
    const hangar = await relayWith(server);
    const list = async () => {
      const { tools: all } = (await hangar.request("tools/list")).result;
      return all.map(({ name }: Json) => name);
    };
    const heard = (level: string) => () =>
      hangar.notifications.some(({ params }) => params?.level === level);
    expect(await list()).toEqual(["echo", "first"]);
    const first = await waitFor("the stream", () => streams[0]);
    event(first.response, { method: "notifications/message", params: { level: "info" } }, "e-1");
    await waitFor("the first", heard("info"));
    // In the middle of an event.
    first.response.write('id: e-2\ndata: {"jsonrpc":"2.0","method":"notifica');
    first.response.end();
    const second = await waitFor("the next stream", () => streams[1]);
    expect(second.headers["last-event-id"]).toBe("e-1");
    event(second.response, { method: "notifications/message", params: { level: "error" } }, "e-2");
    await waitFor("the second", heard("error"));
    tools["later"] = () => structured({});
    note(second.response, "notifications/tools/list_changed");
    await waitFor("the news", () =>
      hangar.notifications.some(({ method }) => method === "notifications/tools/list_changed"),
    );
    expect(await list()).toEqual(["echo", "first", "later"]);
  });

  test("has its questions put to the client whose call they came with, however many are under way", async () => {
    const asked = new Map<string, Received>();
    const hold = (_: Json, received: Received) => {
      asked.set(received.message.params.arguments.who, received);
      return undefined;
    };
    const answers: Json[] = [];
    const server = await startRemote(
      ({ message, response }) => {
        if (message?.result === undefined) return false;
        answers.push(message);
        return response.writeHead(202).end();
      },
      legacy({ tools: { hold } }),
    );
    const names = ["a", "b", "c", "d"];
    const calls = await Promise.all(
      names.map(async (who) => {
        const client = new HttpClient(faceOf(server));
        await client.initialize({ sampling: {} });
        return { who, client, events: await client.call("hold", { who }) };
      }),
    );
    await waitFor("all four", () => asked.size === 4);
    for (const who of names.toReversed()) {
      const { response } = asked.get(who) as Received;
      const params = { messages: [], maxTokens: 1, who };
      event(response, { id: `q-${who}`, method: "sampling/createMessage", params });
    }
    for (const { who, client, events } of calls) {
      const question = await messageIn(events, ({ method }) => method !== undefined);
      expect(question.params.who).toBe(who);
      await client.post({ jsonrpc: "2.0", id: question.id, result: { from: who } });
    }
    await waitFor("the answers", () => answers.length === 4);
    for (const { id, result } of answers) expect(id).toBe(`q-${result.from}`);
    for (const { who, events } of calls) {
      const { message, response } = asked.get(who) as Received;
      event(response, { id: message.id, result: structured({ who }) });
      response.end();
      expect((await answerIn(events)).result.structuredContent).toEqual({ who });
      expect(events.messages).toHaveLength(2);
    }
  });

  test("whose answer breaks off is asked for the rest of it, as often as it takes", async () => {
    let id: Json;
    const slow = (_: Json, { message, response }: Received) => {
      ({ id } = message);
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write("id: 1\nretry: 20\ndata:\n\nid: 2\ndata: {broken");
      setTimeout(() => response.destroy(), 30);
      return undefined;
    };
    const server = await startRemote(
      ({ headers, response }) => {
        if (headers["last-event-id"] === undefined) return false;
        if (headers["last-event-id"] === "1") {
          response.writeHead(200, { "content-type": "text/event-stream" });
          return response.end("id: 2\ndata:\n\nid: 3\ndata: {bro");
        }
        event(response, { id, result: structured({ whole: true }) }, "3");
        return response.end();
      },
      legacy({ tools: { slow } }),
    );
    const seat = await startWith(server);
    // A client of 2025-11-25 would be asked to come back as well.
    const earlier = { "mcp-protocol-version": "2025-06-18" };
    const inner = { provider: nameOf(server), tool: "slow" };
    const params = { name: "registry_invoke", arguments: inner };
    const { result } = await shared.request("tools/call", params, earlier);
    expect(result.structuredContent).toEqual({ whole: true });
    const resumed = server.of("GET").filter(({ headers }) => headers["last-event-id"]);
    expect(resumed.map(({ headers }) => headers["last-event-id"])).toEqual(["1", "2"]);
    expect(resumed[0]?.headers["mcp-session-id"]).toBe("session-1");
    expect(server.of("tools/call")).toHaveLength(1);
    expect((await seat.details()).noise_lines).toBe(0);
  });

  test("is told of a cancelled call with the id that it knows", async () => {
    const hold = (_: Json, { response }: Received) => openEvents(response);
    const server = await startRemote(legacy({ tools: { hold } }));
    const hangar = await startWith(server);
    await hangar.invoke("echo");
    expect(await failure(hangar.invoke("hold", {}, 0.3))).toMatchObject({
      code: "timeout",
      sent: true,
    });
    const [cancelled] = await waitFor("the cancel", () => {
      const found = server.of("notifications/cancelled");
      return found.length > 0 ? found : undefined;
    });
    const id = server.of("tools/call")[1]?.message.id;
    expect(cancelled?.message.params.requestId).toBe(id);
  });

  test("that runs on the official SDK v1 works like any other", async () => {
    const transports = new Map<string, StreamableHTTPServerTransport>();
    const server = await startRemote(async ({ http, headers, message, response }) => {
      let transport = transports.get(String(headers["mcp-session-id"]));
      if (transport === undefined && message?.method === "initialize") {
        const created = new StreamableHTTPServerTransport({
          sessionIdGenerator: randomUUID,
          onsessioninitialized: (id) => void transports.set(id, created),
        });
        transport = created;
        const mcp = new McpServer({ name: "v1", version: "1" });
        mcp.registerTool("hello", {}, () => ({ content: [{ type: "text", text: "v1" }] }));
        await mcp.connect(created);
        onTestFinished(() => mcp.close());
      }
      if (transport === undefined) return json(response, { error: "no session" }, 400);
      const request = Object.assign(response.req, { method: http });
      await transport.handleRequest(request, response, message);
    });
    const hangar = await startWith(server);
    expect((await hangar.invoke("hello")).content).toEqual([{ type: "text", text: "v1" }]);
    expect((await hangar.details()).meta.protocol).toBe("legacy");
    await hangar.close();
    expect(transports.size).toBe(1);
    expect(server.of("DELETE")).toHaveLength(1);
  });

  test.each(["legacy", "modern"])(
    "or modern one on the official SDK v2, here %s, works",
    async (era) => {
      const fixture = join(import.meta.dirname, "../conformance/fixture.ts");
      const [name = "", value = ""] = fileMarker().split("=");
      const args = [fixture, "http", "--port", "0", "--era", era];
      const child = spawn(process.execPath, args, { env: { ...process.env, [name]: value } });
      const exited = new Promise((resolve) => child.once("close", resolve));
      onTestFinished(async () => {
        child.kill("SIGTERM");
        await exited;
      });
      let stdout = "";
      child.stdout.setEncoding("utf8").on("data", (text: string) => {
        stdout += text;
      });
      const url = await waitFor("its address", () => /http:\S+/.exec(stdout)?.[0]);
      const hangar = await startWith(url);
      const { content } = await hangar.invoke("test_simple_text");
      expect(content[0].type).toBe("text");
      expect((await hangar.details()).meta.protocol).toBe(era);
    },
  );
});

describe("a modern server", () => {
  const REGION = {
    type: "object",
    properties: {
      region: { type: "string", "x-mcp-header": "Region" },
      deep: { type: "object", properties: { n: { type: "integer", "x-mcp-header": "N" } } },
    },
  };

  function regional(name: string) {
    return modern({ tools: { [name]: (args) => structured(args) }, schemas: { [name]: REGION } });
  }

  test("gets the headers that repeat the body, made anew for clients that send none", async () => {
    const name = "größe";
    const args = { region: " Zürich", deep: { n: 7 } };
    const server = await startRemote(regional(name));
    const hangar = await startWith(server);
    expect((await hangar.invoke(name, args)).structuredContent).toEqual(args);
    const relay = await relayWith(server, "modern");
    const { result } = await relay.request("tools/call", { name, arguments: args });
    expect(result.structuredContent).toEqual(args);
    const calls = server.of("tools/call");
    expect(calls).toHaveLength(2);
    for (const { headers } of calls) {
      expect(headers).toMatchObject({
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "tools/call",
        "mcp-name": "=?base64?Z3LDtsOfZQ==?=",
        "mcp-param-region": "=?base64?IFrDvHJpY2g=?=",
        "mcp-param-n": "7",
      });
    }
    await Promise.all([hangar.close(), relay.close()]);
    for (const { http, headers, message } of server.received) {
      expect(http).toBe("POST");
      expect(headers["mcp-method"]).toBe(message.method);
      expect(headers).not.toHaveProperty("mcp-session-id");
    }
  });

  test("gets the headers of HTTP clients that belong to the call, and no others of theirs", async () => {
    const server = await startRemote(regional("echo"));
    const params = enveloped({ name: "echo", arguments: { region: "x" } });
    const message = { jsonrpc: "2.0", id: 1, method: "tools/call", params };
    const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const answer = await postModern(server, message, {
      "mcp-param-region": "x",
      "mcp-param-unknown": "kept",
      traceparent,
      tracestate: "a=1",
      baggage: "k=v",
      cookie: "no",
      "mcp-session-id": "no",
      "x-other": "no",
    });
    expect(answer.status).toBe(200);
    const headers = server.of("tools/call")[0]?.headers;
    expect(headers).toMatchObject({
      "mcp-param-region": "x",
      "mcp-param-unknown": "kept",
      traceparent,
      tracestate: "a=1",
      baggage: "k=v",
    });
    for (const name of ["cookie", "mcp-session-id", "x-other"]) {
      expect(headers).not.toHaveProperty(name);
    }
  });

  test("with a mark that no header can have is called without it", async () => {
    const schema = { properties: { a: { type: "string", "x-mcp-header": "no token" } } };
    const server = await startRemote(modern({ schemas: { echo: schema } }));
    const hangar = await startWith(server);
    expect((await hangar.invoke("echo", { a: "x" })).structuredContent).toEqual({ a: "x" });
  });

  test("sees the stream closed when a call is cancelled, and no notification", async () => {
    let closed = false;
    const hold = (_: Json, { response }: Received) => {
      openEvents(response);
      response.once("close", () => {
        closed = true;
      });
      return undefined;
    };
    const server = await startRemote(modern({ tools: { hold } }));
    const hangar = await startWith(server);
    await hangar.invoke("echo");
    expect(await failure(hangar.invoke("hold", {}, 0.3))).toMatchObject({ code: "timeout" });
    await waitFor("the end of the stream", () => closed);
    await hangar.invoke("echo");
    expect(server.of("notifications/cancelled")).toEqual([]);
  });

  test("that does not know the revision at first is asked again", async () => {
    let asked = 0;
    const data = { supported: ["2026-07-28"], requested: "2026-07-28" };
    const server = await startRemote((received) => {
      if (received.message.method !== "server/discover" || ++asked > 1) return false;
      const message = "Unsupported protocol version";
      return refuse(received, { code: -32022, message, data }, 400) ?? true;
    }, modern());
    const hangar = await startWith(server);
    await hangar.invoke("echo");
    expect((await hangar.details()).meta.protocol).toBe("modern");
    expect(server.of("initialize")).toEqual([]);
    expect(server.of("server/discover")).toHaveLength(2);
  });

  test.each([
    [400, { code: -32020, message: "Header mismatch", data: { why: "x" } }],
    [404, { code: -32601, message: "Method not found" }],
    [400, { code: -32021, message: "needs", data: { requiredCapabilities: { sampling: {} } } }],
  ])("has its refusal with HTTP %i passed to the client, status and all", async (status, error) => {
    const server = await startRemote(
      on("tools/call", (received) => refuse(received, error, status) ?? true),
      modern(),
    );
    const params = enveloped({ name: "echo", arguments: {} });
    const message = { jsonrpc: "2.0", id: "x", method: "tools/call", params };
    const answer = await postModern(server, message);
    expect(answer.status).toBe(status);
    expect(answer.messages).toEqual([{ jsonrpc: "2.0", id: "x", error }]);
  });

  test("is listened to under the client's own id, until the client goes", async () => {
    const META = "io.modelcontextprotocol/subscriptionId";
    let stream: Received | undefined;
    const server = await startRemote(
      on("subscriptions/listen", (received) => {
        stream = received;
        const _meta = { [META]: received.message.id };
        note(received.response, "notifications/subscriptions/acknowledged", { _meta });
        return true;
      }),
      modern(),
    );
    const message = {
      jsonrpc: "2.0",
      id: "my-id",
      method: "subscriptions/listen",
      params: enveloped({ notifications: { toolsListChanged: true } }),
    };
    const events = await openStream(faceOf(server), modernHeaders(message), message);
    await messageIn(events, ({ method }) => method.endsWith("/acknowledged"));
    const { response, message: received } = stream as unknown as Received;
    note(response, "notifications/tools/list_changed", { _meta: { [META]: received.id } });
    await messageIn(events, ({ method }) => method.endsWith("/list_changed"));
    for (const { params } of events.messages) expect(params._meta[META]).toBe("my-id");
    let closed = false;
    response.once("close", () => {
      closed = true;
    });
    events.close();
    await waitFor("the end of the stream", () => closed);
  });

  test("whose answer breaks off is not asked again, and the error says that it was sent", async () => {
    const breaks = (_: Json, { response }: Received) => {
      event(response, { method: "notifications/message", params: { level: "info" } }, "1");
      setTimeout(() => response.destroy(), 30);
      return undefined;
    };
    const server = await startRemote(modern({ tools: { breaks } }));
    const hangar = await startWith(server);
    expect(await failure(hangar.invoke("breaks"))).toMatchObject({
      code: "remote_failed",
      sent: true,
    });
    expect(server.of("tools/call")).toHaveLength(1);
    expect(server.of("GET")).toEqual([]);
  });
});

describe("a server of HTTP+SSE alone", () => {
  /** The transport of 2024-11-05; `endpoint` is what its stream names. */
  function sseOnly(endpoint: (server: { path: string }) => string) {
    let stream: Received | undefined;
    const answers = (received: Received): Json => {
      switch (received.message.method) {
        case "initialize":
          return {
            protocolVersion: "2024-11-05",
            capabilities: { tools: {} },
            serverInfo: { name: "sse", version: "1" },
          };
        case "tools/list":
          return { tools: [{ name: "echo", inputSchema: { type: "object" } }] };
        case "tools/call":
          return structured(received.message.params.arguments);
        default:
          return {};
      }
    };
    return (received: Received): unknown => {
      const { http, path, message, response } = received;
      if (http === "GET") {
        stream = received;
        openEvents(response);
        return response.write(`event: endpoint\ndata: ${endpoint({ path })}\n\n`);
      }
      if (!path.startsWith("/messages")) return response.writeHead(405).end();
      response.writeHead(202).end("Accepted");
      if (message.id === undefined || stream === undefined) return true;
      event(stream.response, { id: message.id, result: answers(received) });
      return true;
    };
  }

  test("is found, and served at the address that its stream names", async () => {
    const server = await startRemote(sseOnly(() => "/messages?session=1"));
    const hangar = await startWith(server);
    const calls = Array.from({ length: 20 }, (_, n) => hangar.invoke("echo", { n }));
    const results = await Promise.all(calls);
    expect(results.map(({ structuredContent }) => structuredContent.n)).toEqual([
      ...Array(20).keys(),
    ]);
    expect((await hangar.details()).meta.protocol_version).toBe("2024-11-05");
    for (const { path } of server.of("tools/call")) expect(path).toBe("/messages?session=1");
    expect(server.of("GET")).toHaveLength(1);
    await hangar.close();
    await waitFor("the connections to end", () => server.sockets.size === 0);
  });

  test("that names another origin is refused, and nothing is sent there", async () => {
    const other = await startRemote(legacy());
    const server = await startRemote(sseOnly(() => `${other.origin}/messages`));
    const hangar = await startWith(server, { headers: { Authorization: SECRET } });
    const { error, code } = await failure(hangar.invoke("echo"));
    expect(code).toBe("start_failed");
    expect(error).toContain("another origin");
    expect(other.received).toEqual([]);
  });

  test("whose stream ends is started again by the next call after a wait", async () => {
    const server = await startRemote(sseOnly(() => "/messages"));
    const hangar = await startWith(server);
    await hangar.invoke("echo");
    server.of("GET")[0]?.response.end();
    await hangar.waitForState("degraded");
    const { retryAfterMs } = await failure(hangar.invoke("echo"));
    await sleep(retryAfterMs);
    expect((await hangar.invoke("echo", { n: 1 })).structuredContent).toEqual({ n: 1 });
  });
});

describe("a server that cannot be started", () => {
  test.each([401, 403])(
    "because of HTTP %i is dead with the challenge, until it is mended",
    async (status) => {
      let open = false;
      const challenge = 'Bearer resource_metadata="http://x/.well-known/oauth-protected-resource"';
      const server = await startRemote(({ response }) => {
        if (open) return false;
        return response.writeHead(status, { "www-authenticate": challenge }).end("go away");
      }, legacy());
      const hangar = await startWith(server);
      const { code, error } = await failure(hangar.invoke("echo"));
      expect(code).toBe("remote_unauthorized");
      expect(error).toContain(`HTTP ${status}`);
      expect(error).toContain(challenge);
      expect(error).toContain("`headers`");
      expect(await hangar.details()).toMatchObject({ state: "dead" });
      expect(server.of("initialize")).toEqual([]);
      const before = server.received.length;
      expect(await failure(hangar.invoke("echo"))).toMatchObject({ code: "provider_dead" });
      expect(server.received).toHaveLength(before);
      open = true;
      await hangar.callTool("registry_start");
      expect((await hangar.invoke("echo", { n: 1 })).structuredContent).toEqual({ n: 1 });
    },
  );

  test.each([500, 502, 503, 429])(
    "because of HTTP %i waits for its next try, and is not taken for legacy",
    async (status) => {
      let broken = true;
      const server = await startRemote(
        ({ response }) => (broken ? response.writeHead(status).end("oops") : false),
        modern(),
      );
      const hangar = await startWith(server);
      const { code, error } = await failure(hangar.invoke("echo"));
      expect(code).toBe("start_failed");
      expect(error).toContain(`HTTP ${status}`);
      expect(server.received.map(({ message }) => message.method)).toEqual(["server/discover"]);
      const { retryAfterMs, code: refused } = await failure(hangar.invoke("echo"));
      expect(refused).toBe("provider_degraded");
      expect(retryAfterMs).toBeLessThanOrEqual(500);
      expect(await hangar.details()).toMatchObject({ state: "degraded", alive: false });
      broken = false;
      await sleep(retryAfterMs);
      await hangar.invoke("echo");
      expect((await hangar.details()).meta.protocol).toBe("modern");
    },
  );

  test("but says when to come again is left alone until then", async () => {
    const server = await startRemote(({ response }) =>
      response.writeHead(503, { "retry-after": "30" }).end(),
    );
    const hangar = await startWith(server);
    expect(await failure(hangar.invoke("echo"))).toMatchObject({ retryAfterMs: 30_000 });
    const { retryAfterMs } = await failure(hangar.invoke("echo"));
    expect(retryAfterMs).toBeGreaterThan(25_000);
    expect(server.received).toHaveLength(1);
  });

  test("because nothing listens waits for its next try", async () => {
    const server = await startRemote(modern());
    await server.close();
    const hangar = await startWith(server);
    const { code, error } = await failure(hangar.invoke("echo"));
    expect(code).toBe("start_failed");
    expect(error).toContain("ECONNREFUSED");
    const { retryAfterMs } = await failure(hangar.invoke("echo"));
    expect(retryAfterMs).toBeLessThanOrEqual(500);
    await server.open();
    await sleep(retryAfterMs);
    expect((await hangar.invoke("echo", { n: 1 })).structuredContent).toEqual({ n: 1 });
  });

  test("because it is silent is an outage, and no sign of the legacy era", async () => {
    const server = await startRemote(
      on("server/discover", () => true),
      legacy(),
    );
    const hangar = await startWith(server, { startup_timeout_s: 3.5 });
    expect(await failure(hangar.invoke("echo"))).toMatchObject({ code: "start_timeout" });
    expect(server.of("initialize")).toEqual([]);
    await waitFor("the connections to end", () => server.sockets.size === 0);
  });
});

describe("a server that fails while it runs", () => {
  test.each([429, 503])("with HTTP %i and Retry-After says when to call again", async (status) => {
    const server = await startRemote(
      on("tools/call", ({ response }) => response.writeHead(status, { "retry-after": "7" }).end()),
      legacy(),
    );
    const hangar = await startWith(server);
    const error = await failure(hangar.invoke("echo"));
    expect(error).toMatchObject({ code: "remote_failed", retryAfterMs: 7000, details: { status } });
    expect(error.sent).toBeUndefined();
    expect(server.of("tools/call")).toHaveLength(1);
  });

  test("with a date in Retry-After says how long that is", async () => {
    const date = new Date(Date.now() + 60_000).toUTCString();
    const server = await startRemote(
      on("tools/call", ({ response }) => response.writeHead(503, { "retry-after": date }).end()),
      legacy(),
    );
    const hangar = await startWith(server);
    const { retryAfterMs } = await failure(hangar.invoke("echo"));
    expect(retryAfterMs).toBeGreaterThan(50_000);
    expect(retryAfterMs).toBeLessThanOrEqual(60_000);
  });

  test("by going away says whether the call was sent, and works again when it is back", async () => {
    const hold = () => undefined;
    const server = await startRemote(modern({ tools: { hold } }));
    const hangar = await startWith(server, { max_consecutive_failures: 2 });
    await hangar.invoke("echo");
    const call = failure(hangar.invoke("hold"));
    await waitFor("the call", () => server.of("tools/call").length === 2);
    await server.close();
    expect(await call).toMatchObject({ code: "remote_failed", sent: true });
    const refused = await failure(hangar.invoke("echo"));
    expect(refused.code).toBe("remote_unreachable");
    expect(refused.sent).toBeUndefined();
    expect(refused.error).toContain("ECONNREFUSED");
    expect(await hangar.details()).toMatchObject({ state: "degraded" });
    await server.open();
    expect((await hangar.invoke("echo", { n: 1 })).structuredContent).toEqual({ n: 1 });
    expect(await hangar.details()).toMatchObject({ state: "ready" });
  });

  test("by forgetting the session gets a new one, once for all the calls, and nobody notices", async () => {
    const sessions = new Set<string>();
    const held: Received[] = [];
    const hold = (_: Json, received: Received) => {
      held.push(received);
      openEvents(received.response);
      return undefined;
    };
    const server = await startRemote(legacy({ tools: { hold } }, sessions));
    const hangar = await startWith(server);
    await hangar.invoke("echo");
    const long = hangar.invoke("hold");
    await waitFor("the long call", () => held.length === 1);
    sessions.clear();
    const calls = Array.from({ length: 20 }, (_, n) => hangar.invoke("echo", { n }));
    const results = await Promise.all(calls);
    expect(results.map(({ structuredContent }) => structuredContent)).toEqual(
      Array.from({ length: 20 }, (_, n) => ({ n })),
    );
    expect(server.of("initialize")).toHaveLength(2);
    expect(server.of("server/discover")).toHaveLength(1);
    // What the server had begun before it forgot, it may still end.
    const { message, response } = held[0] as Received;
    event(response, { id: message.id, result: structured({ held: true }) });
    response.end();
    expect((await long).structuredContent).toEqual({ held: true });
    expect((await hangar.details()).state).toBe("ready");
    await hangar.close();
    expect(sessions.size).toBe(0);
  });

  test("by forgetting the session in late answers still gets one new session only", async () => {
    const sessions = new Set<string>();
    const late = ({ headers, message, response }: Received): unknown => {
      if (message?.method !== "tools/call" || sessions.has(String(headers["mcp-session-id"]))) {
        return false;
      }
      setTimeout(() => response.writeHead(404).end(), message.params.arguments.ms ?? 0);
      return true;
    };
    const server = await startRemote(late, legacy({}, sessions));
    const hangar = await startWith(server);
    await hangar.invoke("echo");
    sessions.clear();
    const calls = [0, 100, 300, 500].map((ms) => hangar.invoke("echo", { ms }));
    for (const { isError } of await Promise.all(calls)) expect(isError).not.toBe(true);
    expect(server.of("initialize")).toHaveLength(2);
  });

  test("by forgetting every session is an error, and not asked for ever", async () => {
    const server = await startRemote(
      on("tools/call", ({ response }) => response.writeHead(404).end()),
      legacy(),
    );
    const hangar = await startWith(server);
    expect(await failure(hangar.invoke("echo"))).toMatchObject({ code: "session_lost" });
    expect(server.of("initialize")).toHaveLength(2);
    expect(server.of("tools/call")).toHaveLength(2);
  });

  test("by forgetting the session between two calls is found by the health check", async () => {
    const sessions = new Set<string>();
    const server = await startRemote(legacy({}, sessions));
    const hangar = await startWith(server, { health_check_interval_s: 0.3 });
    await hangar.invoke("echo");
    sessions.clear();
    await waitFor("another session", () => sessions.size === 1);
    expect(await hangar.waitForState("ready")).toMatchObject({
      health: { consecutive_failures: 0 },
    });
  });
});

describe("a redirect", () => {
  test.each([307, 308])(
    "with HTTP %i within the origin is followed, by all that comes later, too",
    async (status) => {
      const server = await startRemote(({ path, response }) => {
        if (path === "/mcp/") return false;
        return response.writeHead(status, { location: "/mcp/" }).end();
      }, legacy());
      const hangar = await startWith(server, { headers: { Authorization: SECRET } });
      expect((await hangar.invoke("echo", { n: 1 })).structuredContent).toEqual({ n: 1 });
      await waitFor("the GET", () => server.of("GET").length === 1);
      await hangar.close();
      const arrived = server.received.filter(({ path }) => path === "/mcp/");
      expect(arrived.map(({ http, message }) => message?.method ?? http)).toEqual(
        expect.arrayContaining(["initialize", "tools/call", "GET", "DELETE"]),
      );
      for (const { headers } of arrived) expect(headers.authorization).toBe(SECRET);
    },
  );

  test("to another origin is refused, and nothing is sent there", async () => {
    const other = await startRemote(legacy());
    const server = await startRemote(({ response }) =>
      response.writeHead(307, { location: other.url }).end(),
    );
    const hangar = await startWith(server, { headers: { Authorization: SECRET } });
    const { error } = await failure(hangar.invoke("echo"));
    expect(error).toContain(`redirects to another origin, ${other.origin}`);
    expect(error).toContain("endpoint");
    expect(other.connections).toBe(0);
  });

  test("that never ends is given up", async () => {
    const server = await startRemote(({ response }) =>
      response.writeHead(307, { location: "/mcp" }).end(),
    );
    const hangar = await startWith(server);
    expect((await failure(hangar.invoke("echo"))).error).toContain("redirects more than");
    expect(server.received).toHaveLength(4);
  });
});

describe("configured headers", () => {
  test("reach the server with every request, variables replaced", async () => {
    const server = await startRemote(legacy());
    const headers = { Authorization: "Bearer ${KEY_OF_TEST}", "X-Plain": "a ${NOT_SET:-b}" };
    const config = remoteConfig(server, { headers });
    const hangar = await startStdio({ config, env: { KEY_OF_TEST: SECRET } });
    await hangar.invoke("p", "echo");
    await waitFor("the GET", () => server.of("GET").length === 1);
    await hangar.close();
    expect(new Set(server.received.map(({ http }) => http))).toEqual(
      new Set(["POST", "GET", "DELETE"]),
    );
    for (const received of server.received) {
      expect(received.headers).toMatchObject({
        authorization: `Bearer ${SECRET}`,
        "x-plain": "a b",
      });
    }
  });

  test("are in no log, detail or error, even when the server repeats them", async () => {
    const repeats = ({ headers, response }: Received): unknown =>
      response
        .writeHead(mode, { "www-authenticate": `Bearer error="${headers.authorization}"` })
        .end(`you sent ${headers.authorization} and ${String(headers["x-api-key"])}`);
    let mode = 500;
    const server = await startRemote(
      (received) => (mode === 0 ? false : repeats(received)),
      legacy(),
    );
    const headers = { Authorization: `Bearer ${SECRET}`, "X-Api-Key": `key-${SECRET}` };
    const hangar = await startStdio({
      config: remoteConfig(server, { headers }),
      args: ["--log-level", "debug"],
    });
    const start = () => hangar.callTool("registry_start", { provider: "p" });
    for (const status of [500, 401, 200, 0]) {
      mode = status;
      await start();
      await hangar.details("p");
    }
    for (const status of [500, 403, 200]) {
      mode = status;
      expect((await hangar.invoke("p", "echo")).isError).toBe(true);
      await hangar.details("p");
    }
    await hangar.close();
    expect(server.of("tools/call")[0]?.headers.authorization).toContain(SECRET);
    expect(hangar.lines.join("\n")).not.toContain(SECRET);
    expect(hangar.lines.join("\n")).toContain("[redacted]");
    expect(hangar.stderr).toContain("HTTP 500");
    expect(hangar.stderr).not.toContain(SECRET);
  });

  test("that Hangar sets itself are refused by the configuration, and so are those that are none", async () => {
    const names = [
      "Host",
      "content-length",
      "Mcp-Session-Id",
      "MCP-Protocol-Version",
      "Accept",
      "a b",
    ];
    const headers = Object.fromEntries([...names, "X-Fine"].map((name) => [name, "x"]));
    const config = remoteConfig("http://127.0.0.1:9/mcp", { headers });
    const { code, stdout } = await runCli(["config", "check", "--config", config]);
    expect(code).toBe(78);
    for (const name of names) expect(stdout).toContain(name);
    expect(stdout).not.toContain("X-Fine");
  });
});

describe("an answer", () => {
  const answers: Record<string, (received: Received) => unknown> = {
    garbage: ({ response }) => response.writeHead(200).end("<html>"),
    page: ({ response }) =>
      response.writeHead(200, { "content-type": "text/html" }).end("<h1>hi</h1>"),
    nothing: ({ response }) => response.writeHead(202).end(),
    empty: ({ response }) => response.writeHead(200).end(),
    other: (received) => json(received.response, { jsonrpc: "2.0", id: 4711, result: {} }),
    events: ({ response }) => {
      openEvents(response);
      response.end("data: garbage\n\n");
    },
  };

  test.each(Object.keys(answers))(
    "that is %s is an error that says so, and the next call works",
    async (kind) => {
      const tools = { odd: (_: Json, received: Received) => void answers[kind]?.(received) };
      const server = await startRemote(legacy({ tools }));
      const hangar = await startWith(server);
      expect(await failure(hangar.invoke("odd"))).toMatchObject({
        code: "remote_failed",
        sent: true,
      });
      expect((await hangar.invoke("echo", { n: 1 })).structuredContent).toEqual({ n: 1 });
    },
  );

  test("that never ends is ended by the deadline, and its connection closed", async () => {
    let open = 0;
    const endless = (_: Json, { response }: Received) => {
      open++;
      response.writeHead(200, { "content-type": "application/json" });
      const timer = setInterval(() => response.write(" ".repeat(1000)), 10);
      response.once("close", () => {
        clearInterval(timer);
        open--;
      });
      return undefined;
    };
    const server = await startRemote(modern({ tools: { endless } }));
    const hangar = await startWith(server);
    expect(await failure(hangar.invoke("endless", {}, 0.5))).toMatchObject({
      code: "timeout",
    });
    await waitFor("the connection to end", () => open === 0);
  });

  test.each([false, true])("over max_message_bytes is refused (as events: %s)", async (sse) => {
    const big = ({ bytes }: Json) => structured({ text: "x".repeat(bytes) });
    const server = await startRemote(legacy({ sse, tools: { big } }));
    const hangar = await startWith(server, {}, { max_message_bytes: 10_000 });
    const result = await hangar.invoke("big", { bytes: 4000 });
    expect(result.structuredContent.text).toHaveLength(4000);
    const error = await failure(hangar.invoke("big", { bytes: 6000 }));
    expect(error).toMatchObject({ code: "remote_failed", sent: true });
    expect(error.error).toContain("max_message_bytes");
    expect((await hangar.invoke("echo", { n: 1 })).structuredContent).toEqual({ n: 1 });
  });

  test.each(["\n", "\r", "\r\n"])(
    "of events with the line break %j is read, split anywhere",
    async (end) => {
      const odd = async (_: Json, { message, response }: Received) => {
        const answer = { jsonrpc: "2.0", id: message.id, result: structured({ text: "é€😀" }) };
        const [head, tail] = JSON.stringify(answer).split(/(?<=,)(?="result")/);
        const lines = [`: hi`, `event: message`, `data:${head}`, `data: ${tail}`];
        response.writeHead(200, { "content-type": "text/event-stream; charset=utf-8" });
        response.socket?.setNoDelay(true);
        for (const byte of Buffer.from(
          `${lines.map((line) => line.trim()).join(end)}${end}${end}`,
        )) {
          response.write(Buffer.from([byte]));
          if (byte > 127) await sleep(1);
        }
        response.end();
        return undefined;
      };
      const server = await startRemote(legacy({ tools: { odd } }));
      const hangar = await startWith(server);
      expect((await hangar.invoke("odd")).structuredContent).toEqual({ text: "é€😀" });
    },
  );
});

describe("over time", () => {
  test("a stream that is taken and dropped at once is opened less and less often", async () => {
    const server = await startRemote(({ http, response }) => {
      if (http !== "GET") return false;
      openEvents(response);
      return response.end(": welcome\n\n");
    }, legacy());
    const hangar = await startWith(server);
    await hangar.invoke("echo");
    await waitFor("the third", () => server.of("GET").length >= 3);
    await sleep(1500);
    // After 0, 0.25–0.5, 0.5–1, 1–2, 2–4 s.
    expect(server.of("GET").length).toBeLessThanOrEqual(5);
    const [first = 0, second = 0, third = 0] = server.of("GET").map(({ at }) => at);
    expect(second - first).toBeGreaterThanOrEqual(240);
    expect(third - second).toBeGreaterThanOrEqual(490);
  });

  test("a stream that brings something is opened again soon, however often it breaks", async () => {
    const server = await startRemote(({ http, response }) => {
      if (http !== "GET") return false;
      note(response, "notifications/message", { level: "info", data: "useful" });
      return response.end();
    }, legacy());
    const hangar = await startWith(server);
    await hangar.invoke("echo");
    await waitFor("six", () => server.of("GET").length >= 6, 4000);
    const times = server.of("GET").map(({ at }) => at);
    for (let n = 1; n < 6; n++) {
      expect((times[n] ?? 0) - (times[n - 1] ?? 0)).toBeGreaterThanOrEqual(240);
    }
  });

  test.each(["legacy", "modern"])(
    "a %s server is checked, and stopped when nobody uses it",
    async (era) => {
      const sessions = new Set<string>();
      const server = await startRemote(era === "legacy" ? legacy({}, sessions) : modern());
      const hangar = await startWith(server, { health_check_interval_s: 0.2, idle_ttl_s: 1.2 });
      await hangar.invoke("echo");
      await hangar.waitForState("cold");
      const checks = server.of(era === "legacy" ? "ping" : "server/discover");
      expect(checks.length).toBeGreaterThanOrEqual(3);
      await waitFor("the connections to end", () => server.sockets.size === 0);
      expect(sessions.size).toBe(0);
      expect((await hangar.invoke("echo", { n: 1 })).structuredContent).toEqual({ n: 1 });
    },
  );

  test("a server that stops answering its checks is degraded until it does", async () => {
    let deaf = false;
    const server = await startRemote(
      on("ping", (received) => {
        if (!deaf) reply(received, {});
        else received.response.writeHead(500).end();
      }),
      legacy(),
    );
    const hangar = await startWith(server, {
      health_check_interval_s: 0.2,
      max_consecutive_failures: 2,
    });
    await hangar.invoke("echo");
    deaf = true;
    await hangar.waitForState("degraded");
    deaf = false;
    await hangar.waitForState("ready");
  });

  test("its tools follow what it says of them", async () => {
    const streams: Received[] = [];
    const tools: Record<string, () => Json> = {};
    const server = await startRemote(withStream(streams), legacy({ tools }));
    const hangar = await startWith(server);
    expect(await toolNames(hangar)).toEqual(["echo"]);
    tools["later"] = () => structured({ later: true });
    const { response } = await waitFor("the stream", () => streams[0]);
    note(response, "notifications/tools/list_changed");
    await waitFor("the new tool", async () => (await toolNames(hangar)).includes("later"));
  });
});
