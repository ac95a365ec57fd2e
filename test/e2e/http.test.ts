/** Hangar as an HTTP server: both eras, who may come in, what a body may be, where it listens, and how it ends. */
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import {
  Agent,
  type IncomingHttpHeaders,
  request as httpRequest,
  type RequestOptions,
} from "node:http";
import { type AddressInfo, connect, createServer } from "node:net";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { text as textOf } from "node:stream/consumers";
import { beforeAll, describe, expect, test } from "vitest";
import {
  configOf,
  ENVELOPE,
  fixture,
  HttpHangar,
  type HttpReply,
  type Json,
  runCli,
  startedPids,
  startHttp,
  StdioHangar,
  tempDir,
  waitFor,
} from "../harness.ts";
import { watchPort } from "../leaks.ts";
import { isAlive } from "../processes.ts";

const TOKEN = "correct-horse-battery-staple";
const BEARER = { authorization: `Bearer ${TOKEN}` };
const PROXIED = { "x-forwarded-for": "203.0.113.7" };
const ORIGIN = "https://app.example.com";
const MAX_BYTES = 10_000;
const JSON_TYPE = { "content-type": "application/json" };
const STREAMS = { accept: "application/json, text/event-stream" };

/** A request that needs nothing but to be let in. */
const DISCOVER = { jsonrpc: "2.0", id: 1, method: "server/discover", params: { _meta: ENVELOPE } };
const DISCOVER_HEADERS = {
  ...JSON_TYPE,
  "mcp-protocol-version": "2026-07-28",
  "mcp-method": "server/discover",
};
const PING = { jsonrpc: "2.0", id: 1, method: "ping" };

/** Two that most tests share: the same, seen by a client of each era. */
let legacy: HttpHangar;
let modern: HttpHangar;

beforeAll(async () => {
  const providers = { p: { command: fixture("slow") }, counts: { command: fixture("progress") } };
  const options = {
    config: configOf(providers, { allowed_origins: [ORIGIN], max_message_bytes: MAX_BYTES }),
    env: { MCP_HANGAR_TOKEN: TOKEN },
  };
  [legacy, modern] = await Promise.all([
    startHttp(options),
    startHttp({ ...options, era: "modern" }),
  ]);
});

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  /** The client's port of the connection it came over. */
  readonly from: number;
}

/** One HTTP request of which the test keeps hold. */
function begin(options: RequestOptions, body?: string | Buffer) {
  const request = httpRequest({ host: "127.0.0.1", path: "/mcp", agent: false, ...options });
  const answer = new Promise<Answer>((resolve, reject) => {
    request.on("error", reject);
    request.on("response", (response) => {
      const from = response.socket.localPort ?? 0;
      const { statusCode: status = 0, headers } = response;
      textOf(response).then((text) => resolve({ status, headers, text, from }), reject);
    });
  });
  answer.catch(() => undefined); // some tests hang up themselves
  if (body !== undefined) request.end(body);
  return { request, answer };
}

/** Asks for server/discover, with more headers or others. */
function discover(headers: Record<string, string> = {}): Promise<HttpReply> {
  return modern.post(DISCOVER, { ...DISCOVER_HEADERS, ...headers });
}

async function openSession(hangar: HttpHangar): Promise<Record<string, string>> {
  const before = hangar.session;
  await hangar.initialize();
  const headers = hangar.headersFor({});
  hangar.session = before;
  return headers;
}

/** What the provider `p` knows: the ids of all calls of `sleep`, and those it was told to cancel. */
async function known(hangar: HttpHangar): Promise<{ seen: number[]; cancelled: number[] }> {
  return (await hangar.invoke("p", "cancelled")).structuredContent;
}

/** A call of `sleep` that has reached the provider when this returns, under the provider's own id `providerId`. */
async function beginSleep(
  hangar: HttpHangar,
  ms: number,
  { id = "sleep", headers = {} }: { id?: string; headers?: Record<string, string> } = {},
) {
  const { seen } = await known(hangar);
  const params = {
    name: "registry_invoke",
    arguments: { provider: "p", tool: "sleep", arguments: { ms } },
    ...(hangar.era === "modern" ? { _meta: ENVELOPE } : {}),
  };
  const message = { jsonrpc: "2.0", id, method: "tools/call", params };
  const all = { ...JSON_TYPE, ...STREAMS, ...hangar.headersFor(message), ...headers };
  const exchange = begin(
    { port: hangar.port, method: "POST", headers: all },
    JSON.stringify(message),
  );
  const ids = await waitFor("the call", async () => {
    const now = (await known(hangar)).seen;
    return now.length > seen.length ? now : undefined;
  });
  return { ...exchange, message, providerId: ids.at(-1) as number };
}

function waitForCancel(hangar: HttpHangar, id: number): Promise<unknown> {
  return waitFor("the cancel", async () => (await known(hangar)).cancelled.includes(id));
}

/** Waits until nothing is under way in `p`. */
function waitForRest(hangar: HttpHangar): Promise<unknown> {
  return waitFor("the calls to end", async () => (await hangar.details("p")).in_flight === 0);
}

async function accepts(host: string, port: number): Promise<boolean> {
  const socket = connect({ host, port });
  const open = await new Promise<boolean>((resolve) => {
    socket.once("connect", () => resolve(true));
    socket.once("error", () => resolve(false));
  });
  socket.destroy();
  return open;
}

/** A port of 127.0.0.1 that nobody listens on just now. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => {
    server.close(resolve);
  });
  return port;
}

/** Hangar with no option but those given, once it says where it serves. */
async function serveWith(args: string[], env: Record<string, string> = {}) {
  const hangar = new StdioHangar({ args, env });
  const url = await waitFor("the address on stderr", () =>
    /serves (http:\S+)/.exec(hangar.stderr)?.at(1),
  );
  const port = Number(new URL(url).port);
  watchPort(port);
  return { hangar, url, port };
}

describe("a legacy client", () => {
  test("gets the revision it asks for, and a session of its own each time", async () => {
    const sessions = new Set<string>();
    for (const version of ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"]) {
      const params = { protocolVersion: version, capabilities: {}, clientInfo: { name: "t" } };
      const message = { jsonrpc: "2.0", id: 0, method: "initialize", params };
      const { status, headers, messages } = await legacy.post(message);
      expect(status).toBe(200);
      expect(headers["content-type"]).toBe("application/json");
      expect(messages).toMatchObject([{ id: 0, result: { protocolVersion: version } }]);
      expect(headers["mcp-session-id"]).toMatch(/^[\x21-\x7e]{20,}$/);
      sessions.add(String(headers["mcp-session-id"]));
    }
    expect(sessions.size).toBe(4);
  });

  test("can ping, list and call in its session", async () => {
    expect((await legacy.request("ping")).result).toEqual({});
    const { tools } = (await legacy.request("tools/list")).result;
    expect(tools.map(({ name }: Json) => name)).toContain("registry_invoke");
    const result = await legacy.invoke("p", "echo", { n: 1 });
    expect(result.structuredContent).toEqual({ n: 1 });
    expect(result).not.toHaveProperty("resultType");
  });

  test("need not name its revision, but may not name an unknown one", async () => {
    const session = { "mcp-session-id": legacy.session ?? "" };
    expect((await legacy.post(PING, session)).messages).toMatchObject([{ result: {} }]);
    const other = { ...session, "mcp-protocol-version": "1999-01-01" };
    const { status, messages } = await legacy.post(PING, other);
    expect(status).toBe(400);
    expect(messages[0].error.data.supported).toContain("2025-11-25");
  });

  test("without a session gets 400 and the word initialize", async () => {
    const { status, messages } = await legacy.post(PING);
    expect(status).toBe(400);
    expect(messages).toMatchObject([{ id: 1, error: { data: { code: "session_required" } } }]);
    expect(messages[0].error.message).toContain("initialize");
  });

  test.each([
    ["request", PING],
    ["notification", { jsonrpc: "2.0", method: "notifications/initialized" }],
  ])(
    "whose session is unknown gets 404 for a %s, and so knows to begin anew",
    async (_, message) => {
      const { status, messages } = await legacy.post(message, {
        "mcp-session-id": "no-such-session",
      });
      expect(status).toBe(404);
      expect(messages[0].error.data.code).toBe("session_not_found");
    },
  );

  test("ends its session by DELETE, and no other", async () => {
    const session = await openSession(legacy);
    expect((await legacy.send("DELETE", "/mcp", session)).status).toBe(204);
    expect((await legacy.post(PING, session)).status).toBe(404);
    expect((await legacy.send("DELETE", "/mcp", session)).status).toBe(404);
    expect((await legacy.request("ping")).result).toEqual({});
  });

  test("R7: ends the calls under way in its session by DELETE", async () => {
    const session = await openSession(legacy);
    const { answer, providerId } = await beginSleep(legacy, 60_000, { headers: session });
    await legacy.send("DELETE", "/mcp", session);
    await waitForCancel(legacy, providerId);
    expect((await answer).status).toBe(200);
    expect(JSON.parse((await answer).text)).toMatchObject({ id: "sleep" });
  });

  test("cannot use the session of somebody who came in another way", async () => {
    const session = legacy.headersFor({});
    expect((await legacy.post(PING, { ...session, ...BEARER })).status).toBe(404);
    expect((await legacy.send("DELETE", "/mcp", { ...session, ...BEARER })).status).toBe(404);
    expect((await legacy.post(PING, session)).status).toBe(200);
  });

  test("gets -32601 with 200 for a method that Hangar does not have", async () => {
    const message = { jsonrpc: "2.0", id: "x", method: "nothing/here" };
    const { status, messages } = await legacy.post(message, legacy.headersFor(message));
    expect(status).toBe(200);
    expect(messages).toMatchObject([{ id: "x", error: { code: -32601 } }]);
  });

  test("that loses its connection does not lose its call", async () => {
    const { request, answer, providerId } = await beginSleep(legacy, 700);
    request.destroy();
    await expect(answer).rejects.toThrow();
    await waitForRest(legacy);
    expect((await known(legacy)).cancelled).not.toContain(providerId);
  });

  test("cancels by notification, but only calls of its own session", async () => {
    const other = await openSession(legacy);
    const mine = await beginSleep(legacy, 60_000, { id: "same" });
    const theirs = await beginSleep(legacy, 60_000, { id: "same", headers: other });
    const cancel = {
      jsonrpc: "2.0",
      method: "notifications/cancelled",
      params: { requestId: "same", reason: "changed my mind" },
    };
    const { status, text } = await legacy.post(cancel, legacy.headersFor(cancel));
    expect([status, text]).toEqual([202, ""]);
    await waitForCancel(legacy, mine.providerId);
    await mine.answer; // the exchange does not stay open
    expect((await known(legacy)).cancelled).not.toContain(theirs.providerId);
    await legacy.post(cancel, other);
    await waitForCancel(legacy, theirs.providerId);
    await theirs.answer;
  });

  test("may use an id again only when its request has ended", async () => {
    const { message, request } = await beginSleep(legacy, 500);
    const headers = legacy.headersFor(message);
    const { status, messages } = await legacy.post(message, headers);
    expect(status).toBe(400);
    expect(messages).toMatchObject([{ id: "sleep", error: { code: -32600 } }]);
    await waitForRest(legacy);
    request.destroy();
    expect((await legacy.post({ ...PING, id: "sleep" }, headers)).status).toBe(200);
  });
});

describe("a modern client", () => {
  test("discovers, lists and calls without a session", async () => {
    const { status, headers, messages } = await discover();
    expect(status).toBe(200);
    expect(headers).not.toHaveProperty("mcp-session-id");
    expect(messages[0].result).toMatchObject({
      resultType: "complete",
      supportedVersions: ["2026-07-28"],
      capabilities: { tools: {} },
    });
    const { tools } = (await modern.request("tools/list")).result;
    expect(tools.map(({ name }: Json) => name)).toContain("registry_invoke");
    const result = await modern.invoke("p", "echo", { n: 1 });
    expect(result).toMatchObject({ resultType: "complete", structuredContent: { n: 1 } });
  });

  test("is not asked about a session that it names all the same", async () => {
    expect((await discover({ "mcp-session-id": "left-over" })).status).toBe(200);
  });

  const list = {
    jsonrpc: "2.0",
    id: "list",
    method: "tools/call",
    params: { name: "registry_list", arguments: {}, _meta: ENVELOPE },
  };

  test.each([
    ["MCP-Protocol-Version", ""],
    ["MCP-Protocol-Version", "2025-11-25"],
    ["Mcp-Method", ""],
    ["Mcp-Method", "tools/list"],
    ["Mcp-Method", "Tools/Call"],
    ["Mcp-Name", ""],
    ["Mcp-Name", "registry_stop"],
    ["Mcp-Name", `=?base64?${Buffer.from("registry_stop").toString("base64")}?=`],
    ["Mcp-Name", "=?base64?not base64?="],
  ])("whose %s is '%s', unlike the body, gets 400 and -32020", async (name, value) => {
    const headers = { ...modern.headersFor(list), [name.toLowerCase()]: value };
    const { status, messages } = await modern.post(list, headers);
    expect(status).toBe(400);
    expect(messages).toMatchObject([
      { id: "list", error: { code: -32020, data: { code: "header_mismatch" } } },
    ]);
    expect(messages[0].error.message).toContain(name);
  });

  test.each(["registry_list", "caf\u00e9 \u2603", "=?base64?eA==?=", " padded "])(
    "may encode the name '%s' in base64",
    async (name) => {
      const message = { ...list, params: { ...list.params, name } };
      const encoded = `=?base64?${Buffer.from(name).toString("base64")}?=`;
      const headers = { ...modern.headersFor(list), "mcp-name": encoded };
      const { status, messages } = await modern.post(message, headers);
      expect(status).toBe(200);
      if (name === "registry_list") expect(messages[0].result.isError).not.toBe(true);
      else expect(messages[0].error.code).toBe(-32602); // known to be unknown, so the header was right
    },
  );

  test("of an unknown revision gets 400, -32022 and the revisions that discover names", async () => {
    const _meta = { ...ENVELOPE, "io.modelcontextprotocol/protocolVersion": "2030-01-01" };
    const message = { ...DISCOVER, id: "v", params: { _meta } };
    const headers = { ...DISCOVER_HEADERS, "mcp-protocol-version": "2030-01-01" };
    const { status, messages } = await modern.post(message, headers);
    expect(status).toBe(400);
    const { supportedVersions } = (await discover()).messages[0].result;
    expect(messages).toMatchObject([
      {
        id: "v",
        error: { code: -32022, data: { supported: supportedVersions, requested: "2030-01-01" } },
      },
    ]);
  });

  test.each([
    ["no envelope", {}],
    ["no capabilities", { _meta: { "io.modelcontextprotocol/protocolVersion": "2026-07-28" } }],
  ])("that sends %s with the header of its revision gets 400 and -32602", async (_, params) => {
    const message = { jsonrpc: "2.0", id: 5, method: "tools/list", params };
    const { status, messages } = await modern.post(message, modern.headersFor(message));
    expect(status).toBe(400);
    expect(messages).toMatchObject([{ id: 5, error: { code: -32602 } }]);
    expect(messages[0].error.message).toContain("_meta");
  });

  test.each(["nothing/here", "ping", "initialize", "resources/list"])(
    "gets 404 with -32601 in the body for the method %s",
    async (method) => {
      const message = { jsonrpc: "2.0", id: "m", method, params: { _meta: ENVELOPE } };
      const { status, headers, messages } = await modern.post(message, modern.headersFor(message));
      expect(status).toBe(404);
      expect(headers["content-type"]).toBe("application/json");
      expect(messages).toMatchObject([
        { id: "m", error: { code: -32601, data: { code: "method_not_found" } } },
      ]);
    },
  );

  test("cancels its call at the provider by hanging up", async () => {
    const { request, providerId } = await beginSleep(modern, 60_000);
    request.destroy();
    await waitForCancel(modern, providerId);
    await waitForRest(modern);
  });

  test("cancels no call by notification, because requests know nothing of each other", async () => {
    const { answer, providerId } = await beginSleep(modern, 400);
    const params = { requestId: "sleep", _meta: ENVELOPE };
    const cancel = { jsonrpc: "2.0", method: "notifications/cancelled", params };
    expect((await modern.post(cancel, modern.headersFor(cancel))).status).toBe(202);
    expect(JSON.parse((await answer).text).result.structuredContent).toEqual({ slept: 400 });
    expect((await known(modern)).cancelled).not.toContain(providerId);
  });
});

describe("progress", () => {
  const callOf = (meta: Json): Json => ({
    jsonrpc: "2.0",
    id: "counting",
    method: "tools/call",
    params: {
      name: "registry_invoke",
      arguments: { provider: "counts", tool: "count", arguments: { n: 3 } },
      ...(meta === undefined ? {} : { _meta: meta }),
    },
  });

  test.each(["legacy", "modern"] as const)(
    "goes to a %s client as events, and then the reply as the last one",
    async (era) => {
      const hangar = era === "legacy" ? legacy : modern;
      const envelope = era === "legacy" ? {} : ENVELOPE;
      const message = callOf({ ...envelope, progressToken: "mine" });
      const reply = await hangar.post(message, hangar.headersFor(message));
      expect(reply.status).toBe(200);
      expect(reply.headers).toMatchObject({
        "content-type": "text/event-stream",
        "cache-control": "no-cache, no-transform",
        "x-accel-buffering": "no",
      });
      expect(reply.text).toMatch(
        /^(?:id: [\d-]+\nretry: \d+\ndata: \n\n)?(?:(?:id: [\d-]+\n)?event: message\ndata: \{[^\n]*\}\n\n){4}$/,
      );
      const notes = reply.messages.slice(0, 3);
      expect(notes.map(({ params }) => [params.progressToken, params.progress])).toEqual([
        ["mine", 1],
        ["mine", 2],
        ["mine", 3],
      ]);
      expect(reply.messages[3]).toMatchObject({ id: "counting", result: { content: [{}] } });
    },
  );

  test.each([
    ["accepts no events", { progressToken: "mine" }, { accept: "application/json" }],
    ["asks for none", undefined, {}],
  ])("is left out for a client that %s, which gets its reply as JSON", async (_, meta, headers) => {
    const message = callOf(meta);
    const reply = await legacy.post(message, { ...legacy.headersFor(message), ...headers });
    expect(reply.headers["content-type"]).toBe("application/json");
    expect(reply.messages).toMatchObject([{ id: "counting", result: { content: [{}] } }]);
  });
});

describe("a message that asks for nothing", () => {
  test("such as a notification gets 202 and an empty body", async () => {
    const message = { jsonrpc: "2.0", method: "notifications/roots/list_changed" };
    for (const hangar of [legacy, modern]) {
      const { status, text } = await hangar.post(message, hangar.headersFor(message));
      expect([status, text]).toEqual([202, ""]);
    }
  });

  test("such as a response gets 202 and an empty body", async () => {
    const message = { jsonrpc: "2.0", id: 1, result: {} };
    const { status, text } = await legacy.post(message, legacy.headersFor(message));
    expect([status, text]).toEqual([202, ""]);
  });

  test("from a modern client is not asked about a session", async () => {
    const message = { jsonrpc: "2.0", method: "notifications/roots/list_changed" };
    const headers = { ...modern.headersFor(message), "mcp-session-id": "left-over" };
    expect((await modern.post(message, headers)).status).toBe(202);
  });
});

describe("a verb or path", () => {
  test.each(["GET", "HEAD", "PUT", "PATCH", "OPTIONS", "DELETE"])(
    "that is not served, %s without a session or an origin, gets 405 and what is",
    async (verb) => {
      const { status, headers } = await legacy.send(verb, "/mcp", STREAMS);
      expect(status).toBe(405);
      expect(headers.allow).toBe("POST, OPTIONS");
    },
  );

  test.each(["/", "/mcpx", "/mcp/x", "/mcp/x/y", "/sse/x", "/../mcp"])(
    "%s gets 404 and the way to /mcp",
    async (path) => {
      const { status, text } = await legacy.post(DISCOVER, DISCOVER_HEADERS, path);
      expect(status).toBe(404);
      expect(JSON.parse(text).error.message).toContain("/mcp");
    },
  );

  test.each(["/mcp", "/mcp/", "/mcp?x=1"])("%s is served", async (path) => {
    expect((await legacy.post(DISCOVER, DISCOVER_HEADERS, path)).status).toBe(200);
  });
});

describe("a web page", () => {
  test.each([
    ORIGIN,
    "http://localhost:5173",
    "https://127.0.0.1",
    "http://[::1]:3000",
    "http://localhost",
  ])("of %s may use Hangar, and read what it needs of the answer", async (origin) => {
    const { status, headers } = await discover({ origin });
    expect(status).toBe(200);
    expect(headers["access-control-allow-origin"]).toBe(origin);
    expect(headers["access-control-expose-headers"]?.split(", ")).toEqual(
      expect.arrayContaining(["Mcp-Session-Id", "WWW-Authenticate"]),
    );
    expect(headers.vary).toContain("Origin");
  });

  test("is told before it asks what it may send, whatever that is and without a token", async () => {
    const asked = "content-type,mcp-protocol-version,mcp-param-x,authorization";
    const { status, headers, text } = await modern.send("OPTIONS", "/mcp", {
      origin: ORIGIN,
      "access-control-request-method": "POST",
      "access-control-request-headers": asked,
      ...PROXIED,
    });
    expect([status, text]).toEqual([204, ""]);
    expect(headers["access-control-allow-origin"]).toBe(ORIGIN);
    expect(headers["access-control-allow-headers"]).toBe(asked);
    expect(headers["access-control-allow-methods"]).toMatch(/POST.*DELETE/);
    expect(headers.vary).toContain("Origin");
    expect(headers.vary).toContain("Access-Control-Request-Headers");
  });

  test("can read that it needs a token", async () => {
    const { status, headers } = await discover({ origin: ORIGIN, ...PROXIED });
    expect(status).toBe(401);
    expect(headers["access-control-allow-origin"]).toBe(ORIGIN);
    expect(headers["www-authenticate"]).toContain("Bearer");
  });

  test.each([
    "https://evil.example",
    "null",
    "http://app.example.com",
    `${ORIGIN}:8443`,
    `${ORIGIN}.evil.example`,
    "http://localhost.evil.example",
    "http://evil.example/localhost",
    "http://localhost@evil.example",
    "chrome-extension://localhost",
  ])("of %s gets 403, before it asks and when it asks", async (origin) => {
    const asking = await discover({ origin });
    const preflight = await modern.send("OPTIONS", "/mcp", {
      origin,
      "access-control-request-method": "POST",
    });
    for (const { status, headers, text } of [asking, preflight]) {
      expect(status).toBe(403);
      expect(headers).not.toHaveProperty("access-control-allow-origin");
      expect(JSON.parse(text).error.message).toContain("allowed_origins");
    }
  });

  test.each([
    "evil.example",
    "evil.example:80",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
  ])("that points the name %s at this machine gets 403", async (host) => {
    const { status, text } = await discover({ host });
    expect(status).toBe(403);
    expect(JSON.parse(text).error).toMatchObject({
      message: expect.stringContaining(host),
      data: { code: "forbidden" },
    });
  });

  test.each(["localhost", "LocalHost:1234", "127.0.0.1:80", "[::1]:8000"])(
    "that says %s has asked this machine",
    async (host) => {
      expect((await discover({ host })).status).toBe(200);
    },
  );

  test("with the token may come from anywhere and by any name", async () => {
    const headers = { host: "hangar.example", origin: "https://elsewhere.example", ...BEARER };
    expect((await discover(headers)).status).toBe(200);
  });
});

describe("a client that is not on this machine", () => {
  test.each([
    ["X-Forwarded-For", "127.0.0.1"],
    ["X-Forwarded-Host", "localhost"],
    ["Forwarded", "for=127.0.0.1"],
    ["Via", "1.1 proxy"],
    ["X-Real-IP", "127.0.0.1"],
  ])("as %s shows, gets 401 and help, and with the token 200", async (name, value) => {
    const { status, headers, messages } = await discover({ [name]: value });
    expect(status).toBe(401);
    expect(headers["www-authenticate"]).toBe("Bearer");
    expect(messages).toMatchObject([{ error: { data: { code: "unauthorized" } } }]);
    expect(messages[0].error.message).toMatch(/token.*MCP_HANGAR_TOKEN/);
    expect((await discover({ [name]: value, ...BEARER })).status).toBe(200);
    expect((await discover({ [name]: value, authorization: `bearer ${TOKEN}` })).status).toBe(200);
  });

  test("is not told what is behind a path it may not see", async () => {
    expect((await modern.send("GET", "/anything", PROXIED)).status).toBe(401);
  });

  test("reaches the default address, and is refused there without the token", async () => {
    const { port } = await serveWith(["--http", "--port", "0"], { MCP_HANGAR_TOKEN: TOKEN });
    const own = Object.values(networkInterfaces())
      .flat()
      .find((found) => found?.family === "IPv4" && !found.internal);
    const host = own?.address ?? "127.0.0.1";
    const headers = { ...DISCOVER_HEADERS, ...(own === undefined ? PROXIED : {}) };
    for (const [more, status] of [
      [{}, 401],
      [{ host: "localhost" }, 401],
      [BEARER, 200],
    ] as const) {
      const options = { host, port, method: "POST", headers: { ...headers, ...more } };
      expect((await begin(options, JSON.stringify(DISCOVER)).answer).status).toBe(status);
    }
  });
});

describe("the token", () => {
  test.each([
    `Bearer ${TOKEN}x`,
    "Bearer",
    "Bearer  ",
    `Basic ${TOKEN}`,
    TOKEN,
    `Bearer x ${TOKEN}`,
  ])(
    "does not fit in '%s', and then being on this machine does not help",
    async (authorization) => {
      const { status, headers } = await discover({ authorization });
      expect(status).toBe(401);
      expect(headers["www-authenticate"]).toBe("Bearer");
    },
  );

  test("of MCP_HANGAR_TOKEN is neither printed nor kept", () => {
    expect(modern.stderr).not.toContain(TOKEN);
    expect(existsSync(join(modern.stateDir, "token"))).toBe(false);
  });

  test("that was made at the first start is kept for its owner, printed once, and good ever after", async () => {
    const stateDir = tempDir();
    const file = join(stateDir, "token");
    const first = await startHttp({ stateDir });
    const token = readFileSync(file, "utf8").trim();
    expect(token).toMatch(/^[\w-]{40,}$/);
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(first.stderr.split(token)).toHaveLength(2);
    await first.close();

    const second = await startHttp({ stateDir });
    expect(second.stderr).not.toContain(token);
    const headers = { ...DISCOVER_HEADERS, ...PROXIED };
    const authorization = `Bearer ${token}`;
    expect((await second.post(DISCOVER, { ...headers, authorization })).status).toBe(200);
    expect((await second.post(DISCOVER, { ...headers, ...BEARER })).status).toBe(401);
  });

  test("is printed at every start when the state directory cannot keep it", async () => {
    const stateDir = join(tempDir(), "file", "state");
    writeFileSync(join(stateDir, "..", "..", "file"), "");
    const hangar = await startHttp({ stateDir });
    const token = /other machines.*: ([\w-]{40,})$/m.exec(hangar.stderr)?.[1];
    const headers = { ...DISCOVER_HEADERS, ...PROXIED, authorization: `Bearer ${token}` };
    expect((await hangar.post(DISCOVER, headers)).status).toBe(200);
  });

  test("that was made before a start that failed has been printed", async () => {
    const stateDir = tempDir();
    const args = ["serve", "--http", "--host", "127.0.0.1", "--port", String(modern.port)];
    const { code, stderr } = await runCli([...args, "--state-dir", stateDir]);
    expect(code).not.toBe(0);
    expect(stderr).toContain(readFileSync(join(stateDir, "token"), "utf8").trim());
  });
});

describe("a body", () => {
  const post = (headers: Record<string, string>, body: string | Buffer) =>
    modern.send("POST", "/mcp", { ...DISCOVER_HEADERS, ...headers }, body);
  const text = JSON.stringify(DISCOVER);

  test.each([
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "application/jsonp",
  ])("of the type %s gets 415", async (type) => {
    const { status, messages } = await post({ "content-type": type }, text);
    expect(status).toBe(415);
    expect(messages[0].error.message).toContain("application/json");
  });

  test("of no type gets 415", async () => {
    const { "content-type": _, ...headers } = DISCOVER_HEADERS;
    expect((await modern.send("POST", "/mcp", headers, text)).status).toBe(415);
  });

  test("may name its charset", async () => {
    const type = "Application/JSON; charset=utf-8";
    expect((await post({ "content-type": type }, text)).status).toBe(200);
  });

  test("gets 406 from a client that accepts no form of answer", async () => {
    expect((await post({ accept: "text/html" }, text)).status).toBe(406);
    expect((await post({ accept: "*/*" }, text)).status).toBe(200);
  });

  test.each([
    ["no JSON", "{nope", -32700],
    ["nothing", "", -32700],
    ["no UTF-8", Buffer.from(text.replace("server", "s\u00e9rver"), "latin1"), -32700],
    ["a batch", `[${text}]`, -32600],
    ["an empty batch", "[]", -32600],
    ["a key twice", text.replace("{", '{"id":2,'), -32600],
  ])("that is %s gets 400 and a JSON-RPC error", async (_, body, code) => {
    const { status, messages } = await post({}, body);
    expect(status).toBe(400);
    expect(messages).toMatchObject([{ jsonrpc: "2.0", id: null, error: { code } }]);
    expect(typeof messages[0].error.data.code).toBe("string");
  });

  test("of max_message_bytes passes, and of one byte more gets 413", async () => {
    expect((await post({}, text.padEnd(MAX_BYTES))).status).toBe(200);
    const { status, messages } = await post({}, text.padEnd(MAX_BYTES + 1));
    expect(status).toBe(413);
    expect(messages[0].error.data.code).toBe("message_too_large");
    expect(messages[0].error.message).toContain("max_message_bytes");
  });

  test("that is announced as too large gets 413 before it is sent", async () => {
    const headers = { ...DISCOVER_HEADERS, "content-length": String(MAX_BYTES + 1) };
    const { request, answer } = begin({ port: modern.port, method: "POST", headers });
    request.flushHeaders();
    expect((await answer).status).toBe(413);
    request.destroy();
  });

  test("that does not say its size gets 413 as soon as it is too large", async () => {
    const headers = { ...DISCOVER_HEADERS, "transfer-encoding": "chunked" };
    const { request, answer } = begin({ port: modern.port, method: "POST", headers });
    request.write(text.padEnd(MAX_BYTES));
    request.write(" ");
    expect((await answer).status).toBe(413); // and it has not ended yet
    request.destroy();
  });

  test("in pieces that split a character is read whole", async () => {
    const headers = { ...DISCOVER_HEADERS, "transfer-encoding": "chunked" };
    const { request, answer } = begin({ port: modern.port, method: "POST", headers });
    for (const byte of Buffer.from(JSON.stringify({ ...DISCOVER, id: "\u00e9\u2603" }))) {
      request.write(Buffer.from([byte]));
    }
    request.end();
    expect(JSON.parse((await answer).text).id).toBe("\u00e9\u2603");
  });
});

describe("a connection", () => {
  test("is used again, whatever the request before it got", async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const text = JSON.stringify(DISCOVER);
    const asked: [Record<string, string>, string, string, number][] = [
      [{}, "/mcp", text, 200],
      [{ "content-type": "text/plain" }, "/mcp", text, 415],
      [{}, "/mcp", "{nope", 400],
      [{}, "/mcp", text.padEnd(5 * MAX_BYTES), 413],
      [{ "transfer-encoding": "chunked" }, "/mcp", text.padEnd(5 * MAX_BYTES), 413],
      [PROXIED, "/mcp", text, 401],
      [{ origin: "https://evil.example" }, "/mcp", text, 403],
      [{}, "/elsewhere", text, 404],
      [{}, "/mcp", text, 200],
    ];
    const connections = new Set<number>();
    try {
      for (const [more, path, body, status] of asked) {
        const headers = { ...DISCOVER_HEADERS, ...more };
        const options = { port: modern.port, method: "POST", path, headers, agent };
        const answer = await begin(options, body).answer;
        expect(answer.status).toBe(status);
        connections.add(answer.from);
      }
    } finally {
      agent.destroy();
    }
    expect(connections.size).toBe(1);
  });
});

describe("the start", () => {
  test("says what to try next, and that works", async () => {
    const hangar = new HttpHangar({ era: "modern" });
    hangar.child.stdin?.end(); // as under a service manager; HTTP clients do not come from there
    await hangar.waitForUrl();
    await waitFor("the whole text", () => hangar.stderr.includes("mcpServers"));
    const tried = [...hangar.stderr.matchAll(/npx mcp-hangar (.+)/g)].map(([, line = ""]) => line);
    expect(tried).toHaveLength(2);
    const results = await Promise.all(tried.map((line) => runCli(shellWords(line))));
    expect(results.map(({ code }) => code)).toEqual([0, 0]);
    expect(JSON.parse(results[0]?.stdout ?? "")).toEqual({ result: 8 });
    expect(results[1]?.stdout).toContain("power");

    const snippet = /\{"mcpServers".*\}/.exec(hangar.stderr)?.[0] ?? "";
    expect(JSON.parse(snippet).mcpServers["mcp-hangar"]).toEqual({ url: hangar.url });
    const { structuredContent } = await hangar.invoke("math", "add", { a: 5, b: 3 });
    expect(structuredContent).toEqual({ result: 8 });
  });

  test("names the configuration in what to try next, so that it works in any folder", async () => {
    const folder = join(tempDir(), "it's here");
    const file = configOf({ mine: { command: fixture("add") } });
    const config = `${folder}.yaml`;
    writeFileSync(config, readFileSync(file));
    const hangar = new HttpHangar({ config, era: "modern" });
    await hangar.waitForUrl();
    await waitFor("the whole text", () => hangar.stderr.includes("mcpServers"));
    expect(hangar.stderr).toContain(`configuration: ${config}`);
    const [tried = "", ...more] = [...hangar.stderr.matchAll(/npx mcp-hangar (.+)/g)].map(
      ([, line = ""]) => line,
    );
    expect(more).toEqual([]);
    const { code, stdout } = await runCli(shellWords(tried));
    expect(code).toBe(0);
    expect(stdout).toContain("add");
  });

  test("by MCP_MODE takes address and port from the environment, and writes nothing to stdout", async () => {
    const port = await freePort();
    const { hangar, url } = await serveWith([], {
      MCP_MODE: "http",
      MCP_HTTP_HOST: "127.0.0.2",
      MCP_HTTP_PORT: String(port),
    });
    expect(url).toBe(`http://127.0.0.2:${port}/mcp`);
    const headers = { ...DISCOVER_HEADERS, host: "localhost" };
    const options = { host: "127.0.0.2", port, method: "POST", headers };
    expect((await begin(options, JSON.stringify(DISCOVER)).answer).status).toBe(200);
    expect(await accepts("127.0.0.1", port)).toBe(false);
    hangar.kill("SIGTERM");
    await hangar.exit;
    expect(hangar.lines).toEqual([]);
  });

  test("prefers --host and --port to the environment", async () => {
    const [port, other] = [await freePort(), await freePort()];
    const { url } = await serveWith(["--http", "--host", "127.0.0.1", "--port", String(port)], {
      MCP_HTTP_HOST: "127.0.0.2",
      MCP_HTTP_PORT: String(other),
    });
    expect(url).toBe(`http://127.0.0.1:${port}/mcp`);
    expect(await accepts("127.0.0.1", port)).toBe(true);
    expect(await accepts("127.0.0.2", port)).toBe(false);
    expect(await accepts("127.0.0.1", other)).toBe(false);
  });

  test.each([
    ["--port", ["--port", String(2 ** 16)], {}, 2],
    ["--port", ["--port", "http"], {}, 2],
    ["MCP_HTTP_PORT", [], { MCP_HTTP_PORT: "8000x" }, 78],
    ["203.0.113.1", ["--host", "203.0.113.1", "--port", "0"], {}, 78],
  ] as [string, string[], Record<string, string>, number][])(
    "fails on an address that is none, and names %s",
    async (named, args, env, code) => {
      const result = await runCli(["serve", "--http", ...args], { env });
      expect(result.code).toBe(code);
      expect(result.stderr).toContain(named);
      expect(result.stdout).toBe("");
    },
  );

  test.each([
    ["--port", (port: string) => ({ args: ["--port", port], env: {} })],
    ["MCP_HTTP_PORT", (port: string) => ({ args: [], env: { MCP_HTTP_PORT: port } })],
  ])("on a busy port of %s fails at once, naming who holds it and what to do", async (_, by) => {
    const { args, env } = by(String(modern.port));
    const began = performance.now();
    const { code, stderr, stdout } = await runCli(["serve", "--http", ...args], { env });
    expect(performance.now() - began).toBeLessThan(5000);
    expect(code).toBe(1);
    expect(stdout).toBe("");
    expect(stderr).toContain(`Port ${modern.port} is in use by pid ${modern.pid} (`);
    expect(stderr).toMatch(
      /Stop that program, or choose another port with --port or MCP_HTTP_PORT/,
    );
    expect((await discover()).status).toBe(200);
  });
});

describe("the end", () => {
  test.each(["SIGTERM", "SIGINT"] as const)(
    "by %s answers the call under way, takes no new one, and is exit code 0",
    async (signal) => {
      const log = join(tempDir(), "starts");
      const providers = { p: { command: fixture("slow"), env: { START_LOG: log } } };
      const hangar = await startHttp({ config: configOf(providers) });
      const { answer } = await beginSleep(hangar, 800);
      hangar.kill(signal);
      await waitFor("the shutdown", () => /shut/i.test(hangar.stderr));
      await waitFor("the port to close", async () => !(await accepts("127.0.0.1", hangar.port)));
      const { status, text } = await answer;
      expect(status).toBe(200);
      const [, data = ""] = /^(?:data: )?(\{.*)$/m.exec(text) ?? [];
      expect(JSON.parse(data).result.structuredContent).toEqual({ slept: 800 });
      expect(await hangar.exit).toEqual({ code: 0, signal: null });
      expect(startedPids(log)).toHaveLength(1);
      expect(startedPids(log).filter(isAlive)).toEqual([]);
    },
  );

  test("does not wait for clients that ask nothing, or never finish asking", async () => {
    const hangar = await startHttp({ era: "modern" });
    const agent = new Agent({ keepAlive: true });
    const text = JSON.stringify(DISCOVER);
    const options = { port: hangar.port, method: "POST", headers: DISCOVER_HEADERS };
    try {
      await begin({ ...options, agent }, text).answer; // and the connection stays open
      const headers = { ...DISCOVER_HEADERS, "content-length": String(text.length) };
      const unfinished = begin({ ...options, headers });
      await new Promise<void>((resolve) => {
        unfinished.request.write(text.slice(1), () => resolve());
      });
      const began = performance.now();
      expect(await hangar.close()).toEqual({ code: 0, signal: null });
      expect(performance.now() - began).toBeLessThan(3000);
    } finally {
      agent.destroy();
    }
  });
});

/** The words of a command line that quotes with ' and joins with \'. */
function shellWords(line: string): string[] {
  return [...line.matchAll(/(?:'[^']*'|\\.|[^\s'\\])+/g)].map(([word]) =>
    word.replace(
      /'([^']*)'|\\(.)/g,
      (_, quoted?: string, escaped?: string) => quoted ?? escaped ?? "",
    ),
  );
}
