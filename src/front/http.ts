import { once } from "node:events";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { type AddressInfo, Server as NetServer, type Socket } from "node:net";
import { ERRORS, HangarError, toHangarError } from "../errors.ts";
import { isEndless } from "../routing/deadline.ts";
import { atEnd, type CallHandler, type Outcome, type Running, type Target } from "../target.ts";
import {
  isProgress,
  membersOf,
  type Message,
  scanMessage,
  textOf,
  wholeOf,
} from "../wire/envelope.ts";
import { LEGACY_VERSION, LEGACY_VERSIONS, MODERN_VERSIONS, modernVersionOf } from "../wire/eras.ts";
import { requireAgreement } from "../wire/headers.ts";
import { decodeText, encodingOf, LARGE_CHARS, lengthOf } from "../wire/lines.ts";
import { eraOf, requireEnvelope } from "./endpoint.ts";
import { cutOff, type Front, type FrontOptions, LAST_BYTES_MS, takesNoMore } from "./front.ts";
import {
  admit,
  admitToStatus,
  type GuardOptions,
  isAllowedOrigin,
  isProxied,
  type Principal,
} from "./guard.ts";
import { portHolder } from "./port-holder.ts";
import { responseParts, responseText } from "./response.ts";
import { type Session, Sessions } from "./sessions.ts";
import { serveSse } from "./sse.ts";
import { EventStream } from "./streams.ts";

/** Not imported by name: that would run all of the module's getters, one of which loads a whole HTTP client. */
const { createServer } = process.getBuiltinModule("node:http");

/** Open connections; more are refused. */
const MAX_CONNECTIONS = 4_096;
/** Time a client may take to send a request's headers, and all of it, in milliseconds. */
const HEADERS_TIMEOUT_MS = 10_000;
const REQUEST_TIMEOUT_MS = 30_000;
/** Life of a connection without a request, in milliseconds. */
const KEEP_ALIVE_MS = 65_000;
/** How long browsers may remember the answer to a preflight request, in seconds. */
const PREFLIGHT_MAX_AGE_S = 600;

/** How often calls under way are looked at, and what happens to one that takes longer than that, in milliseconds. */
const LOOK_MS = 50;
/** A legacy client gets an event stream now, which it can take up again should it lose it. */
const RESUMABLE_AFTER_MS = 1_000;
/** Something must pass, or proxies take the connection for dead. */
const KEEP_ALIVE_EVENT_MS = 15_000;

export interface HttpOptions extends FrontOptions, GuardOptions {
  readonly host: string;
  /** 0 takes any free port. */
  readonly port: number;
}

/** An HTTP front, and the URL under which it can be reached from this machine. */
export interface HttpFront extends Front {
  readonly url: string;
}

/** What clients see, by what follows `/mcp/` in the path; "" is Hangar itself. */
export type Faces = ReadonlyMap<string, Target>;

/** One call under way over HTTP. */
interface Exchange {
  readonly running: Running;
  readonly endless: boolean;
  /** Looks at how long it has taken. */
  look(now: number): void;
}

/** What operators ask: does it run, may it get calls, has it come up. */
const STATUS_PATHS = ["/health", "/health/live", "/health/ready", "/ready", "/health/startup"];
const READINESS_PATHS = ["/health/ready", "/ready"];

/**
 * Serves Streamable HTTP of both eras at `/mcp` and `/mcp/<name>`, the older HTTP+SSE at `/sse`, and Hangar's own
 * status at `/health` and `/ready`. Throws `port_in_use`.
 */
export async function serveHttp(faces: Faces, options: HttpOptions): Promise<HttpFront> {
  const sessions = new Sessions();
  const sse = serveSse();
  const sockets = new Set<Socket>();
  const underWay = new Set<Exchange>();
  let rest: (() => void) | undefined;
  let draining = false;

  const server = createServer((request, response) => {
    serve(request, response).catch((error: unknown) => {
      const failure = toHangarError(error);
      if (failure.code === "internal") options.tell({ type: "defect", error });
      refuse(response, failure);
    });
  });
  server.maxConnections = MAX_CONNECTIONS;
  server.headersTimeout = HEADERS_TIMEOUT_MS;
  server.requestTimeout = REQUEST_TIMEOUT_MS;
  server.keepAliveTimeout = KEEP_ALIVE_MS;
  server.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
  });
  const looking = setInterval(() => {
    const now = performance.now();
    for (const exchange of underWay) exchange.look(now);
  }, LOOK_MS).unref();
  const keepingAlive = setInterval(() => {
    for (const session of sessions) session.keepAlive();
    sse.keepAlive();
  }, KEEP_ALIVE_EVENT_MS).unref();

  /** Requests meet the checks in this order: origin and identity, path, verb, body. The status is for everybody. */
  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { origin } = request.headers;
    const crossOrigin = origin !== undefined && isAllowedOrigin(origin, options);
    if (origin !== undefined) response.setHeader("Vary", "Origin");
    if (crossOrigin) {
      response.setHeader("Access-Control-Allow-Origin", origin);
      response.setHeader("Access-Control-Expose-Headers", "Mcp-Session-Id, WWW-Authenticate");
      if (request.method === "OPTIONS") return preflight(request, response);
    }
    const { url = "/" } = request;
    const query = url.indexOf("?");
    const path = query === -1 ? url : url.slice(0, query);
    const visitor = {
      address: request.socket.remoteAddress,
      host: request.headers.host,
      origin,
      authorization: request.headers.authorization,
      proxied: isProxied(request.headers),
    };
    if (STATUS_PATHS.includes(path)) {
      admitToStatus(visitor, options);
      showStatus(request, response, path);
      return;
    }
    const principal = admit(visitor, options);
    const [, kind = "", name = "", ...rest] = path.split("/");
    if (kind === "messages" && name === "" && request.method === "POST") {
      requireJson(request);
      const session = new URLSearchParams(query === -1 ? "" : url.slice(query)).get("sessionId");
      const text = await readBody(request, options.maxMessageBytes);
      sse.receive(session ?? "", principal, text);
      response.writeHead(202).end();
      return;
    }
    if ((kind !== "mcp" && kind !== "sse") || rest.length > 0) {
      const why = "Nothing here; MCP is at /mcp, one provider alone at /mcp/<name>";
      throw new HangarError("method_not_found", why);
    }
    const face = faces.get(name);
    if (face === undefined) {
      const why = `There is no provider ${name.slice(0, 64)}; Hangar itself is at /mcp`;
      throw new HangarError("provider_not_found", why);
    }
    if (kind === "sse") {
      if (request.method !== "GET") return notAllowed(response, "GET");
      requireOpen();
      sse.open(face, principal, response);
      return;
    }
    switch (request.method) {
      case "POST":
        return post(request, response, face, principal);
      case "GET":
        return listen(request, response, face, principal);
      case "DELETE": {
        const id = header(request, "mcp-session-id");
        if (id === undefined) return notAllowed(response);
        sessions.end(sessions.use(id, face, principal));
        response.writeHead(204).end();
        return;
      }
      default:
        notAllowed(response);
    }
  }

  /** Never anything about providers: calls start what is cold, so Hangar is ready without any. */
  function showStatus(request: IncomingMessage, response: ServerResponse, path: string): void {
    if (request.method !== "GET" && request.method !== "HEAD") {
      return notAllowed(response, "GET, HEAD");
    }
    const unready = draining && READINESS_PATHS.includes(path);
    response.setHeader("Cache-Control", "no-store");
    send(response, unready ? 503 : 200, [`{"status":"${unready ? "shutting_down" : "ok"}"}`]);
  }

  function requireOpen(): void {
    if (draining) throw takesNoMore();
  }

  async function post(
    request: IncomingMessage,
    response: ServerResponse,
    face: Target,
    principal: Principal,
  ): Promise<void> {
    requireJson(request);
    const message = scanMessage(await readBody(request, options.maxMessageBytes));
    const sessionId = header(request, "mcp-session-id");
    if (message.kind !== "request") {
      // The session it names must exist, as for requests; modern clients have none.
      const modern = MODERN_VERSIONS.includes(header(request, "mcp-protocol-version") ?? "");
      if (sessionId !== undefined && !modern) {
        const { client } = sessions.use(sessionId, face, principal);
        if (message.kind === "response") client.answered(message);
        else client.noted(message);
      }
      response.writeHead(202).end();
      return;
    }
    const id = message.id as string;
    try {
      requireOpen();
      const named = header(request, "mcp-protocol-version");
      // The header alone also makes a request modern, so that a missing envelope is said to be missing.
      const era = MODERN_VERSIONS.includes(named ?? "") ? "modern" : eraOf(message);
      if (era === "modern") {
        if (modernVersionOf(message) !== undefined) {
          requireAgreement(message, (name) => header(request, name));
        }
        requireEnvelope(message);
        if (isEndless(message) && !takesEvents(request)) {
          throw new HangarError("not_acceptable", "Accept must list text/event-stream");
        }
        const caller = { principal, client: principal, era, capabilities: "{}" } as const;
        const call = { message, caller, headers: headersToPass(request) };
        respond(request, response, message, undefined, (handler) => face.dispatch(call, handler));
        return;
      }
      const isFirst = message.method === "initialize";
      if (isFirst) requireLegacyVersion(named);
      const session = isFirst
        ? sessions.open(face, principal)
        : sessions.use(sessionId, face, principal);
      requireLegacyVersion(named);
      if (isFirst) response.setHeader("Mcp-Session-Id", session.id);
      const { client } = session;
      const headers = traceHeaders(request);
      const call = { message, caller: client.caller, ...(headers && { headers }) };
      respond(request, response, message, session, (handler) =>
        client.dispatch(
          call,
          isFirst ? sessionOnlyIfGreeted(handler, session, response) : handler,
          session.alone,
        ),
      );
    } catch (error) {
      refuse(response, toHangarError(error), id);
    }
  }

  /** A client whose `initialize` failed has no session. */
  function sessionOnlyIfGreeted(
    handler: CallHandler,
    session: Session,
    response: ServerResponse,
  ): CallHandler {
    return atEnd(handler, (outcome) => {
      const failed = outcome.kind === "failure" || outcome.isError;
      if (failed && !response.headersSent) response.removeHeader("Mcp-Session-Id");
      // The answer first: a session takes its streams with it.
      handler.end(outcome);
      if (failed) sessions.end(session);
    });
  }

  /** A legacy client's GET: takes up a stream it has lost, or listens to what belongs to no call. */
  function listen(
    request: IncomingMessage,
    response: ServerResponse,
    face: Target,
    principal: Principal,
  ): void {
    const named = header(request, "mcp-protocol-version");
    const sessionId = header(request, "mcp-session-id");
    if (sessionId === undefined || MODERN_VERSIONS.includes(named ?? "")) {
      return notAllowed(response);
    }
    const session = sessions.use(sessionId, face, principal);
    requireLegacyVersion(named);
    if (!takesEvents(request)) {
      throw new HangarError("not_acceptable", "Accept must list text/event-stream");
    }
    const last = header(request, "last-event-id");
    const found = last === undefined ? undefined : session.streams.find(last);
    // One that was lost may yet bring the answer to a call.
    if (found === undefined) requireOpen();
    request.socket.setNoDelay(true);
    response.once("close", () => session.touch());
    if (found === undefined) session.standalone.attach(response, {});
    else found.stream.attach(response, { seq: found.seq });
  }

  /** Answers with plain JSON, or with an event stream once something comes before the reply. */
  function respond(
    request: IncomingMessage,
    response: ServerResponse,
    message: Message,
    session: Session | undefined,
    dispatch: (handler: CallHandler) => Running,
  ): void {
    const id = message.id as string;
    const { accept = "" } = request.headers;
    const streams = takesEvents(request);
    let stream: EventStream | undefined;
    let lookedAt = performance.now();
    const began = lookedAt;
    let ended = false;

    function upgrade(): EventStream {
      if (stream !== undefined) return stream;
      stream = session === undefined ? new EventStream(0) : session.streams.open();
      stream.attach(response, { primed: session !== undefined && mayPrime(request) });
      return stream;
    }

    const handler: CallHandler = {
      note(text) {
        if (streams) upgrade().send(text, isProgress(text));
      },
      ask(question) {
        if (session === undefined)
          throw new HangarError("internal", "a question in the modern era");
        return session.client.ask(question, (text) => {
          // What is said of a question after the call's end has no other place to go.
          if (streams && !ended) upgrade().send(text);
          else if (streams || session.standalone.attached) session.standalone.send(text);
          else return false;
          return true;
        });
      },
      pause() {
        if (streams && session !== undefined && mayPrime(request)) upgrade().pause();
      },
      end(outcome) {
        ended = true;
        underWay.delete(exchange);
        if (stream !== undefined) stream.end(responseText(id, outcome));
        else {
          const status = session === undefined ? modernStatus(outcome) : 200;
          if (draining) response.setHeader("Connection", "close");
          send(response, status, responseParts(id, outcome));
        }
        if (underWay.size === 0) rest?.();
      },
    };
    const running = dispatch(handler);
    const exchange: Exchange = {
      running,
      endless: isEndless(message),
      look(now) {
        if (!streams) return;
        if (stream === undefined) {
          const patience = session === undefined ? KEEP_ALIVE_EVENT_MS : RESUMABLE_AFTER_MS;
          if (now - began >= patience && !response.destroyed) upgrade();
        } else if (now - lookedAt >= KEEP_ALIVE_EVENT_MS) {
          lookedAt = now;
          stream.keepAlive();
        }
      },
    };
    underWay.add(exchange);
    // A client that names event streams first would rather have one.
    if (session !== undefined && /^\s*text\/event-stream\b/.test(accept)) upgrade();
    // In the modern era a client cancels by going away; a legacy client may only have lost its connection.
    if (session === undefined) {
      response.once("close", () => {
        if (response.writableFinished) return;
        running.cancel(new HangarError("cancelled", "the client closed the connection"));
      });
    }
  }

  function preflight(request: IncomingMessage, response: ServerResponse): void {
    response.setHeader("Vary", "Origin, Access-Control-Request-Headers");
    const headers = request.headers["access-control-request-headers"];
    response
      .writeHead(204, {
        "Access-Control-Allow-Methods": "GET, POST, DELETE, OPTIONS",
        ...(headers === undefined ? {} : { "Access-Control-Allow-Headers": headers }),
        "Access-Control-Max-Age": PREFLIGHT_MAX_AGE_S,
      })
      .end();
  }

  /** Settles when no call is under way any more, at the latest after `graceMs`. */
  async function atRest(graceMs: number): Promise<void> {
    if (underWay.size === 0) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    rest = resolve;
    const late = setTimeout(resolve, graceMs);
    await promise;
    clearTimeout(late);
  }

  await startListening(server, options);
  const { port } = server.address() as AddressInfo;
  const host = isAnyAddress(options.host) ? "localhost" : options.host;

  return {
    url: `http://${host.includes(":") ? `[${host}]` : host}:${port}/mcp`,
    closed: new Promise(() => {}),
    async drain(graceMs) {
      draining = true;
      const until = performance.now() + graceMs;
      const closed = once(server, "close");
      // Not the HTTP server's own close: it cuts off connections without a request, over which clients send what
      // calls under way ask of them, and hear that Hangar is not ready.
      NetServer.prototype.close.call(server);
      const reason = cutOff();
      for (const { endless, running } of underWay) if (endless) running.cancel(reason);
      await Promise.all([atRest(graceMs), sse.drain(graceMs, reason)]);
      for (const { running } of underWay) running.cancel(reason);
      sse.close(reason);
      sessions.closeAll(reason);
      clearInterval(looking);
      clearInterval(keepingAlive);
      // Answers may still be on their way out: to clients that read on, for as long as there is time.
      for (const socket of sockets) socket.setTimeout(LAST_BYTES_MS).destroySoon();
      const leftMs = Math.max(until - performance.now(), LAST_BYTES_MS);
      const cut = setTimeout(() => server.closeAllConnections(), leftMs);
      await closed;
      clearTimeout(cut);
      server.close();
    },
  };
}

/** Headers of a modern client that go on to the provider. */
function headersToPass(request: IncomingMessage): Record<string, string> {
  const passed: Record<string, string> = traceHeaders(request) ?? {};
  for (const name in request.headers) {
    if (name.startsWith("mcp-param-")) passed[name] = header(request, name) as string;
  }
  return passed;
}

const TRACE_HEADERS = ["traceparent", "tracestate", "baggage"] as const;

function traceHeaders(request: IncomingMessage): Record<string, string> | undefined {
  if (request.headers["traceparent"] === undefined) return undefined;
  return Object.fromEntries(
    TRACE_HEADERS.map((name) => [name, header(request, name)] as const).filter(
      (entry): entry is [(typeof TRACE_HEADERS)[number], string] => entry[1] !== undefined,
    ),
  );
}

function takesEvents(request: IncomingMessage): boolean {
  return request.headers.accept?.includes("text/event-stream") === true;
}

/** Clients of earlier revisions stumble over an event without a message. */
function mayPrime(request: IncomingMessage): boolean {
  return header(request, "mcp-protocol-version") === LEGACY_VERSION;
}

async function startListening(server: Server, { host, port }: HttpOptions): Promise<void> {
  try {
    const listening = once(server, "listening");
    server.listen(port, host);
    await listening;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code !== "EADDRINUSE") {
      throw new HangarError("config_invalid", `Cannot listen on ${host}:${port}: ${message}`);
    }
    const holder = portHolder(port);
    throw new HangarError(
      "port_in_use",
      `Port ${port} is in use${holder === undefined ? "" : ` by ${holder}`}. Stop that program, or choose another port with --port or MCP_HTTP_PORT.`,
    );
  }
}

function isAnyAddress(host: string): boolean {
  return host === "0.0.0.0" || host === "::";
}

function header(request: IncomingMessage, name: string): string | undefined {
  const value = request.headers[name];
  return Array.isArray(value) ? value.join(", ") : value;
}

function requireJson(request: IncomingMessage): void {
  const type = request.headers["content-type"]?.split(";", 1)[0]?.trim().toLowerCase();
  if (type !== "application/json") {
    throw new HangarError(
      "unsupported_media_type",
      `Content-Type must be application/json, found ${type ?? "none"}`,
    );
  }
  const { accept } = request.headers;
  if (accept !== undefined && !/application\/(json|\*)|\*\/\*|text\/event-stream/i.test(accept)) {
    throw new HangarError(
      "not_acceptable",
      `Accept must list application/json and text/event-stream, found ${accept}`,
    );
  }
}

/** The body as text. Throws `message_too_large` as soon as it is, and `parse_error`. */
function readBody(request: IncomingMessage, maxBytes: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let length = 0;
    function tooLarge(): void {
      request.removeAllListeners("data").resume();
      const why = `The message is larger than ${maxBytes} bytes (max_message_bytes)`;
      reject(new HangarError("message_too_large", why));
    }
    if (Number(request.headers["content-length"] ?? 0) > maxBytes) return tooLarge();
    request.on("data", (chunk: Buffer) => {
      length += chunk.length;
      if (length > maxBytes) tooLarge();
      else chunks.push(chunk);
    });
    request.once("end", () => {
      const text = decodeText(chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks));
      if (text !== undefined) resolve(text);
      else reject(new HangarError("parse_error", "The message is not valid UTF-8"));
    });
    request.once("error", reject);
    request.once("close", () => {
      if (!request.complete) reject(new HangarError("cancelled", "the client went away"));
    });
  });
}

function requireLegacyVersion(named: string | undefined): void {
  if (named === undefined || LEGACY_VERSIONS.includes(named)) return;
  throw new HangarError("unsupported_version", `Unsupported protocol version: ${named}`, {
    details: { supported: [...LEGACY_VERSIONS, ...MODERN_VERSIONS], requested: named },
  });
}

/** The errors that also say by the HTTP status what they are (2026-07-28, "Streamable HTTP"). */
const MODERN_STATUS: ReadonlyMap<number, number> = new Map([
  [-32_601, 404],
  [-32_020, 400],
  [-32_021, 400],
  [-32_022, 400],
]);

function modernStatus(outcome: Outcome): number {
  if (outcome.kind === "failure") {
    const { jsonrpc } = ERRORS[outcome.code];
    return MODERN_STATUS.get(jsonrpc) ?? 200;
  }
  if (!outcome.isError) return 200;
  const { text } = outcome;
  const code = membersOf(text, wholeOf(text))?.get("code");
  return MODERN_STATUS.get(code === undefined ? 0 : Number(textOf(text, code))) ?? 200;
}

/** Ends an exchange with `error`; without an `id` for what could not be read far enough to know it. */
function refuse(response: ServerResponse, error: HangarError, id = "null"): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  if (error.code === "unauthorized") response.setHeader("WWW-Authenticate", "Bearer");
  if (error.code === "shutting_down") response.setHeader("Connection", "close");
  if (error.retryAfterMs !== undefined) {
    response.setHeader("Retry-After", Math.ceil(error.retryAfterMs / 1000));
  }
  // A client that is cut off while it sends does not see the answer; the request's timeout bounds this.
  response.req.resume();
  send(response, ERRORS[error.code].http, responseParts(id, error));
}

function notAllowed(response: ServerResponse, allowed?: string): void {
  response.setHeader("Allow", allowed ?? "POST, OPTIONS");
  const why =
    allowed === undefined
      ? "Only POST, OPTIONS here; GET and DELETE need the Mcp-Session-Id of a session"
      : `Only ${allowed} here`;
  send(response, 405, responseParts("null", new HangarError("method_not_found", why)));
}

function send(response: ServerResponse, status: number, parts: readonly string[]): void {
  const type = "application/json";
  if (lengthOf(parts) < LARGE_CHARS) {
    // One text leaves in one write with the headers.
    const text = parts.join("");
    const length = Buffer.byteLength(text);
    response.writeHead(status, { "Content-Type": type, "Content-Length": length }).end(text);
    return;
  }
  const length = parts.reduce((sum, part) => sum + Buffer.byteLength(part), 0);
  response.writeHead(status, { "Content-Type": type, "Content-Length": length });
  response.cork();
  for (const part of parts) response.write(part, encodingOf(part));
  response.end();
  response.uncork();
}
