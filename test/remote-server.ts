/** MCP servers over HTTP in the test's own process, for what a remote provider may be, do and suffer. */
import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  request as httpRequest,
  type ServerResponse,
} from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { onTestFinished } from "vitest";
import { ENVELOPE, type Json } from "./harness.ts";

/** One HTTP request as it arrived. */
export interface Received {
  readonly http: string;
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  /** The JSON-RPC message in the body. */
  readonly message: Json;
  readonly at: number;
  readonly response: ServerResponse;
}

/** Answers a request; what returns false leaves that to the next. */
type Handler = (received: Received, response: ServerResponse) => unknown;

/** One server; it keeps its port when it goes away and comes back. */
export class RemoteServer {
  readonly received: Received[] = [];
  readonly sockets = new Set<Socket>();
  connections = 0;
  handler: Handler;
  port = 0;
  #server: ReturnType<typeof createServer> | undefined;

  constructor(handler: Handler) {
    this.handler = handler;
  }

  get origin(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  get url(): string {
    return `${this.origin}/mcp`;
  }

  /** The requests with that JSON-RPC method, or with that HTTP method. */
  of(method: string): Received[] {
    return this.received.filter(
      ({ http, message }) => http === method || message?.method === method,
    );
  }

  async open(): Promise<void> {
    const server = createServer((request, response) => void this.#serve(request, response));
    server.on("connection", (socket) => {
      this.connections++;
      this.sockets.add(socket);
      socket.once("close", () => this.sockets.delete(socket));
    });
    this.#server = server;
    await new Promise<void>((resolve) => server.listen(this.port, "127.0.0.1", resolve));
    this.port = (server.address() as AddressInfo).port;
  }

  /** Goes away, with every connection. */
  async close(): Promise<void> {
    const server = this.#server;
    if (server === undefined) return;
    this.#server = undefined;
    const closed = new Promise((resolve) => server.close(resolve));
    for (const socket of this.sockets) socket.resetAndDestroy();
    await closed;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    request.on("error", () => undefined);
    response.on("error", () => undefined);
    try {
      for await (const chunk of request) chunks.push(chunk as Buffer);
    } catch {
      return; // the client has gone
    }
    const text = Buffer.concat(chunks).toString("utf8");
    const { method: http = "", url: path = "", headers } = request;
    const message = text === "" ? undefined : JSON.parse(text);
    const at = performance.now();
    const received: Received = { http, path, headers, text, message, at, response };
    this.received.push(received);
    await this.handler(received, response);
  }
}

/** A server that gives each request to the first of `handlers` that takes it; ends with the test. */
export async function startRemote(...handlers: Handler[]): Promise<RemoteServer> {
  const server = waiting.shift() ?? new RemoteServer(() => undefined);
  server.handler = (received, response) => {
    for (const handler of handlers) if (handler(received, response) !== false) return;
    response.writeHead(404).end();
  };
  if (server.port === 0) await server.open();
  onTestFinished(() => server.close());
  return server;
}

/** Servers that have their port already, so that one Hangar can know them all. */
const waiting: RemoteServer[] = [];

/** Opens `count` servers for `startRemote` to hand out, one after the other; returns them. */
export async function openRemotes(count: number): Promise<readonly RemoteServer[]> {
  const servers = Array.from({ length: count }, () => new RemoteServer(() => undefined));
  await Promise.all(servers.map((server) => server.open()));
  waiting.push(...servers);
  return servers;
}

/** Returns the result of a tool, or undefined when it answers by itself. */
type ToolCall = (args: Json, received: Received) => Json;

interface ServerOptions {
  readonly tools?: Record<string, ToolCall>;
  /** How tools/list describes those that need more than a name. */
  readonly schemas?: Record<string, Json>;
  /** Answers come as events. */
  readonly sse?: boolean;
  readonly capabilities?: Json;
}

/** A tool result whose structured content is `value`. */
export function structured(value: Json): Json {
  return { content: [{ type: "text", text: JSON.stringify(value) }], structuredContent: value };
}

export function json(
  response: ServerResponse,
  value: Json,
  status = 200,
  headers: Json = {},
): void {
  const all = { "content-type": "application/json", ...headers };
  response.writeHead(status, all).end(JSON.stringify(value));
}

export function reply({ message, response }: Received, result: Json, headers: Json = {}): void {
  json(response, { jsonrpc: "2.0", id: message.id, result }, 200, headers);
}

export function refuse({ message, response }: Received, error: Json, status = 200): void {
  json(response, { jsonrpc: "2.0", id: message.id, error }, status);
}

/** Begins an answer of events; a second call on the same answer changes nothing. */
export function openEvents(response: ServerResponse): void {
  if (response.headersSent) return;
  response.writeHead(200, { "content-type": "text/event-stream" });
  response.flushHeaders();
}

/** Sends a message as an event. */
export function event(response: ServerResponse, message: Json, id?: string): void {
  openEvents(response);
  const head = id === undefined ? "" : `id: ${id}\n`;
  response.write(`${head}data: ${JSON.stringify({ jsonrpc: "2.0", ...message })}\n\n`);
}

export function note(response: ServerResponse, method: string, params: Json = {}): void {
  event(response, { method, params });
}

/** Streamable HTTP of 2025-11-25 with sessions; `sessions` are those it has not forgotten. */
export function legacy(options: ServerOptions = {}, sessions = new Set<string>()): Handler {
  let last = 0;
  return (received, response) => {
    const { http, headers, message } = received;
    const session = String(headers["mcp-session-id"] ?? "");
    if (http === "POST" && message.method === "initialize") {
      const id = `session-${++last}`;
      sessions.add(id);
      const { capabilities = { tools: { listChanged: true } } } = options;
      const serverInfo = { name: "remote", version: "1" };
      const result = { protocolVersion: "2025-11-25", capabilities, serverInfo };
      return reply(received, result, { "mcp-session-id": id });
    }
    if (session === "") return json(response, { error: "no session" }, 400);
    if (!sessions.has(session)) return response.writeHead(404).end();
    if (http === "DELETE") {
      sessions.delete(session);
      return response.writeHead(204).end();
    }
    if (http === "GET") return response.writeHead(405).end();
    if (message.id === undefined || message.method === undefined) {
      return response.writeHead(202).end();
    }
    if (message.method === "ping") return reply(received, {});
    return common(options, received);
  };
}

/** Streamable HTTP of 2026-07-28. */
export function modern(options: ServerOptions = {}): Handler {
  return (received, response) => {
    const { http, message } = received;
    if (http !== "POST") return response.writeHead(405).end();
    if (message.params?._meta?.["io.modelcontextprotocol/protocolVersion"] === undefined) {
      return refuse(received, { code: -32602, message: "no envelope" }, 400);
    }
    if (message.method === "server/discover") {
      const { capabilities = { tools: {} } } = options;
      const cache = { ttlMs: 0, cacheScope: "private", resultType: "complete" };
      return reply(received, { supportedVersions: ["2026-07-28"], capabilities, ...cache });
    }
    return common(options, received, { resultType: "complete" });
  };
}

async function common(options: ServerOptions, received: Received, also: Json = {}): Promise<void> {
  const { message, response } = received;
  const tools: Record<string, ToolCall> = { echo: (args) => structured(args), ...options.tools };
  if (message.method === "tools/list") {
    const all = Object.keys(tools).map((name) => ({
      name,
      inputSchema: options.schemas?.[name] ?? { type: "object" },
    }));
    return reply(received, { tools: all, ...also });
  }
  const tool = message.method === "tools/call" ? tools[message.params.name] : undefined;
  if (tool === undefined) {
    return refuse(received, { code: -32601, message: "Method not found" }, 404);
  }
  const result = await tool(message.params.arguments ?? {}, received);
  if (result === undefined || response.destroyed) return;
  if (options.sse !== true && !response.headersSent) return reply(received, { ...result, ...also });
  event(response, { id: message.id, result: { ...result, ...also } });
  response.end();
}

/** What a streaming HTTP client has got so far. */
export interface Events {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly messages: Json[];
  /** Every whole line as it came. */
  readonly lines: string[];
  ended: boolean;
  close(): void;
}

/** Sends a request and reads its answer, JSON or events, as it comes. */
export function openStream(
  url: string,
  headers: Record<string, string>,
  message?: Json,
): Promise<Events> {
  return new Promise((resolve, reject) => {
    const method = message === undefined ? "GET" : "POST";
    const all = {
      accept: "application/json, text/event-stream",
      ...(message === undefined ? {} : { "content-type": "application/json" }),
      ...headers,
    };
    const request = httpRequest(url, { method, headers: all, agent: false }, (response) => {
      const events: Events = {
        status: response.statusCode ?? 0,
        headers: response.headers,
        messages: [],
        lines: [],
        ended: false,
        close: () => request.destroy(),
      };
      let text = "";
      response.setEncoding("utf8").on("data", (chunk: string) => {
        text += chunk;
        const lines = text.split("\n");
        text = lines.pop() ?? "";
        for (const line of lines) take(line);
      });
      function take(line: string): void {
        events.lines.push(line);
        const data = line.startsWith("data: ") ? line.slice(6) : line;
        if (data.startsWith("{")) events.messages.push(JSON.parse(data));
      }
      response.on("error", () => undefined);
      response.on("close", () => {
        take(text);
        events.ended = true;
      });
      resolve(events);
    });
    onTestFinished(() => void request.destroy());
    request.on("error", reject);
    request.end(message === undefined ? undefined : JSON.stringify(message));
  });
}

/** One legacy client of an HTTP front, at `url`. */
export class HttpClient {
  readonly url: string;
  session = "";
  #lastId = 0;

  constructor(url: string) {
    this.url = url;
  }

  get headers(): Record<string, string> {
    return { "mcp-session-id": this.session, "mcp-protocol-version": "2025-11-25" };
  }

  async initialize(capabilities: Json = {}): Promise<Json> {
    const params = {
      protocolVersion: "2025-11-25",
      capabilities,
      clientInfo: { name: "test", version: "1" },
    };
    const events = await openStream(this.url, {}, { ...this.message("initialize", params) });
    const answer = await answerIn(events);
    this.session = String(events.headers["mcp-session-id"] ?? "");
    await this.post({ jsonrpc: "2.0", method: "notifications/initialized" });
    return answer;
  }

  message(method: string, params: Json): Json {
    return { jsonrpc: "2.0", id: ++this.#lastId, method, params };
  }

  post(message: Json): Promise<Events> {
    return openStream(this.url, this.headers, message);
  }

  /** A call whose messages can be read while it runs. */
  call(name: string, args: Json = {}, _meta?: Json): Promise<Events> {
    return this.post(this.message("tools/call", { name, arguments: args, _meta }));
  }

  async result(name: string, args: Json = {}): Promise<Json> {
    const answer = await answerIn(await this.call(name, args));
    return answer.result ?? answer;
  }

  listen(): Promise<Events> {
    return openStream(this.url, this.headers);
  }

  async end(): Promise<void> {
    const request = httpRequest(this.url, {
      method: "DELETE",
      headers: this.headers,
      agent: false,
    });
    await new Promise((resolve, reject) => {
      request.on("response", (response) => response.resume().on("end", resolve));
      request.on("error", reject);
      request.end();
    });
  }
}

/** Waits for the message that satisfies `which`. */
export async function messageIn(events: Events, which: (message: Json) => boolean): Promise<Json> {
  const end = performance.now() + 8000;
  for (;;) {
    const found = events.messages.find((message) => which(message));
    if (found !== undefined) return found;
    if (events.ended || performance.now() > end) {
      throw new Error(`no such message in ${JSON.stringify(events.messages)}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 15));
  }
}

export function answerIn(events: Events): Promise<Json> {
  return messageIn(events, (message) => message.method === undefined);
}

/** The params of a modern request. */
export function enveloped(params: Json = {}): Json {
  return { ...params, _meta: { ...ENVELOPE, ...params._meta } };
}
