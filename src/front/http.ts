import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { isUtf8 } from "node:buffer";
import type { AddressInfo, Socket } from "node:net";
import { ERRORS, HangarError, toHangarError } from "../errors.ts";
import type { CallHandler, Outcome, Running, Target } from "../target.ts";
import { type Message, scanMessage, stringAt } from "../wire/envelope.ts";
import { LEGACY_VERSIONS, MODERN_VERSIONS, modernVersionOf } from "../wire/eras.ts";
import { sseEvent } from "../wire/sse.ts";
import { endpoint, eraOf, requireEnvelope } from "./endpoint.ts";
import type { Front, FrontOptions } from "./front.ts";
import { admit, type GuardOptions, isAllowedOrigin, isProxied, type Principal } from "./guard.ts";
import { portHolder } from "./port-holder.ts";
import { errorText, responseText } from "./response.ts";
import { Sessions } from "./sessions.ts";

/** Open connections; more are refused. */
const MAX_CONNECTIONS = 4_096;
/** Time a client may take to send a request's headers, and all of it, in milliseconds. */
const HEADERS_TIMEOUT_MS = 10_000;
const REQUEST_TIMEOUT_MS = 30_000;
/** Life of a connection without a request, in milliseconds. */
const KEEP_ALIVE_MS = 65_000;
/** How long browsers may remember the answer to a preflight request, in seconds. */
const PREFLIGHT_MAX_AGE_S = 600;

const PATH = "/mcp";

export interface HttpOptions extends FrontOptions, GuardOptions {
  readonly host: string;
  /** 0 takes any free port. */
  readonly port: number;
}

/** An HTTP front, and the URL under which it can be reached from this machine. */
export interface HttpFront extends Front {
  readonly url: string;
}

/** Serves Streamable HTTP of both eras at `/mcp`. Throws `port_in_use`. */
export async function serveHttp(target: Target, options: HttpOptions): Promise<HttpFront> {
  const face = endpoint(target, options.tell);
  const sessions = new Sessions();
  const sockets = new Set<Socket>();
  const underWay = new Set<Running>();
  let idle: (() => void) | undefined;
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

  /** Requests meet the checks in this order: origin and identity, path, verb, body. */
  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { origin } = request.headers;
    const crossOrigin = origin !== undefined && isAllowedOrigin(origin, options);
    if (origin !== undefined) response.setHeader("Vary", "Origin");
    if (crossOrigin) {
      response.setHeader("Access-Control-Allow-Origin", origin);
      response.setHeader("Access-Control-Expose-Headers", "Mcp-Session-Id, WWW-Authenticate");
      if (request.method === "OPTIONS") return preflight(request, response);
    }
    const principal = admit(
      {
        address: request.socket.remoteAddress,
        host: request.headers.host,
        origin,
        authorization: request.headers.authorization,
        proxied: isProxied(request.headers),
      },
      options,
    );
    const path = request.url?.split("?", 1)[0];
    if (path !== PATH && path !== `${PATH}/`) {
      return refuse(
        response,
        new HangarError("method_not_found", `Nothing here; MCP is at ${PATH}`),
      );
    }
    switch (request.method) {
      case "POST":
        return post(request, response, principal);
      case "DELETE": {
        const id = header(request, "mcp-session-id");
        if (id === undefined) return notAllowed(response);
        sessions.end(sessions.use(id, principal));
        response.writeHead(204).end();
        return;
      }
      default:
        notAllowed(response);
    }
  }

  async function post(
    request: IncomingMessage,
    response: ServerResponse,
    principal: Principal,
  ): Promise<void> {
    if (draining) throw new HangarError("shutting_down", "Hangar is shutting down");
    requireJson(request);
    const message = scanMessage(await readBody(request, options.maxMessageBytes));
    if (message.kind !== "request") {
      take(request, message, principal);
      response.writeHead(202).end();
      return;
    }
    const id = message.id as string;
    try {
      const named = header(request, "mcp-protocol-version");
      // The header alone also makes a request modern, so that a missing envelope is said to be missing.
      const era = MODERN_VERSIONS.includes(named ?? "") ? "modern" : eraOf(message);
      const call = { message, caller: { principal, era } };
      if (era === "modern") {
        requireEnvelope(message);
        requireAgreement(request, message);
        return respond(request, response, id, true, (handler) => face.dispatch(call, handler));
      }
      const session =
        message.method === "initialize"
          ? sessions.open(principal)
          : sessions.use(header(request, "mcp-session-id"), principal);
      requireLegacyVersion(named);
      if (message.method === "initialize") response.setHeader("Mcp-Session-Id", session.id);
      respond(request, response, id, false, (handler) =>
        session.calls.dispatch(face, call, handler),
      );
    } catch (error) {
      const failure = toHangarError(error);
      send(response, ERRORS[failure.code].http, responseText(id, failure));
    }
  }

  /** Takes what gets no answer. The session it names must exist, as for requests; modern clients have none. */
  function take(request: IncomingMessage, message: Message, principal: Principal): void {
    const id = header(request, "mcp-session-id");
    const modern = MODERN_VERSIONS.includes(header(request, "mcp-protocol-version") ?? "");
    if (id === undefined || modern) return;
    const { calls } = sessions.use(id, principal);
    if (message.method === "notifications/cancelled") calls.cancel(message);
  }

  /** Answers with plain JSON, or with an event stream once something comes before the reply. */
  function respond(
    request: IncomingMessage,
    response: ServerResponse,
    id: string,
    modern: boolean,
    dispatch: (handler: CallHandler) => Running,
  ): void {
    const streams = request.headers.accept?.includes("text/event-stream") === true;
    const handler: CallHandler = {
      note(text) {
        if (!streams) return;
        if (!response.headersSent) {
          response.writeHead(200, {
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-cache",
            "X-Accel-Buffering": "no",
          });
        }
        response.write(sseEvent(text));
      },
      end(outcome) {
        underWay.delete(running);
        const text = responseText(id, outcome);
        if (response.headersSent) response.end(sseEvent(text));
        else send(response, modern ? modernStatus(outcome) : 200, text);
        if (underWay.size === 0) idle?.();
      },
    };
    const running = dispatch(handler);
    underWay.add(running);
    // In the modern era a client cancels by going away; a legacy client may only have lost its connection.
    if (modern) {
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

  await listen(server, options);
  const { port } = server.address() as AddressInfo;
  const host = isAnyAddress(options.host) ? "localhost" : options.host;

  return {
    url: `http://${host.includes(":") ? `[${host}]` : host}:${port}${PATH}`,
    closed: new Promise(() => {}),
    async drain(graceMs) {
      draining = true;
      const closed = once(server, "close");
      server.close();
      server.closeIdleConnections();
      if (underWay.size > 0) {
        const { promise, resolve } = Promise.withResolvers<void>();
        idle = resolve;
        const late = setTimeout(resolve, graceMs);
        await promise;
        clearTimeout(late);
      }
      const reason = new HangarError("shutting_down", "Hangar is shutting down");
      for (const running of underWay) running.cancel(reason);
      // What was just answered may still be on its way out.
      const cut = setTimeout(() => server.closeAllConnections(), LAST_BYTES_MS);
      server.closeIdleConnections();
      await closed;
      clearTimeout(cut);
    },
  };
}

/** Time for the last answers to leave when the server closes, in milliseconds. */
const LAST_BYTES_MS = 500;

async function listen(server: Server, { host, port }: HttpOptions): Promise<void> {
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
      const body = chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks);
      if (isUtf8(body)) resolve(body.toString("utf8"));
      else reject(new HangarError("parse_error", "The message is not valid UTF-8"));
    });
    request.once("error", reject);
    request.once("close", () => reject(new HangarError("cancelled", "the client went away")));
  });
}

/** Headers that mirror the body must agree with it (2026-07-28, "Standard request headers"). */
function requireAgreement(request: IncomingMessage, message: Message): void {
  const { text, body, method } = message;
  const expected: [string, string | undefined][] = [
    ["MCP-Protocol-Version", modernVersionOf(message)],
    ["Mcp-Method", method],
  ];
  if (method === "tools/call") expected.push(["Mcp-Name", stringAt(text, body.get("name"))]);
  for (const [name, value] of expected) {
    const found = header(request, name.toLowerCase());
    if (found === undefined) throw mismatch(`the header ${name} is missing`);
    if (decodeHeader(found) !== value) {
      throw mismatch(`the header ${name} is ${found}, but the body says ${value ?? "nothing"}`);
    }
  }
}

/** Values that are not plain visible ASCII come as `=?base64?...?=`. */
function decodeHeader(value: string): string {
  const encoded = /^=\?base64\?([A-Za-z0-9+/]*={0,2})\?=$/.exec(value)?.[1];
  return encoded === undefined ? value : Buffer.from(encoded, "base64").toString("utf8");
}

function mismatch(what: string): HangarError {
  return new HangarError("header_mismatch", `Header mismatch: ${what}`);
}

function requireLegacyVersion(named: string | undefined): void {
  if (named === undefined || LEGACY_VERSIONS.includes(named)) return;
  throw new HangarError("unsupported_version", `Unsupported protocol version: ${named}`, {
    details: { supported: [...LEGACY_VERSIONS, ...MODERN_VERSIONS], requested: named },
  });
}

/** Only an unknown method ends the HTTP exchange with its own status; other errors are in the body. */
function modernStatus(outcome: Outcome): number {
  if (outcome.kind === "reply" || outcome.code !== "method_not_found") return 200;
  return ERRORS[outcome.code].http;
}

function refuse(response: ServerResponse, error: HangarError): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  if (error.code === "unauthorized") response.setHeader("WWW-Authenticate", "Bearer");
  // A client that is cut off while it sends does not see the answer; the request's timeout bounds this.
  response.req.resume();
  send(response, ERRORS[error.code].http, errorText(error));
}

function notAllowed(response: ServerResponse): void {
  response.setHeader("Allow", "POST, DELETE, OPTIONS");
  const error = new HangarError(
    "method_not_found",
    "Only POST, and DELETE of a session, are served",
  );
  send(response, 405, errorText(error));
}

function send(response: ServerResponse, status: number, text: string): void {
  const body = Buffer.from(text, "utf8");
  response.writeHead(status, { "Content-Type": "application/json", "Content-Length": body.length });
  response.end(body);
}
