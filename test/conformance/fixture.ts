/**
 * The conformance server as a program:
 *
 *   node fixture.ts stdio [--era legacy|modern|dual]
 *   node fixture.ts http --port N [--era legacy|modern|dual]     at http://localhost:N/mcp; 0 picks a free port
 *
 * Over HTTP it writes its address to stdout once it listens, and ends on SIGTERM.
 */
import { randomUUID } from "node:crypto";
import {
  createServer as createHttpServer,
  type IncomingMessage,
  type ServerResponse,
} from "node:http";
import type { AddressInfo } from "node:net";
import { parseArgs } from "node:util";
import {
  localhostHostValidation,
  localhostOriginValidation,
  NodeStreamableHTTPServerTransport,
  toNodeHandler,
  toWebRequest,
} from "@modelcontextprotocol/node";
import {
  createMcpHandler,
  type EventStore,
  isLegacyRequest,
  type JSONRPCMessage,
} from "@modelcontextprotocol/server";
import { StdioServerTransport, serveStdio } from "@modelcontextprotocol/server/stdio";
import { createServer } from "./server.ts";

/** Soon, so that the suite does not wait long for the rest of a stream. */
const RETRY_MS = 100;

type Era = "legacy" | "modern" | "dual";
/** A request that the SDK's types accept: a server's request always has a method. */
type HttpRequest = IncomingMessage & { method: string; url: string };
/** `body` is the parsed one, if somebody has read it already. */
type Handler = (request: HttpRequest, response: ServerResponse, body?: unknown) => Promise<void>;

/** The messages of one session, for clients that come back for the rest of a stream. */
class SessionEvents implements EventStore {
  readonly #events: { readonly stream: string; readonly message: JSONRPCMessage }[] = [];

  storeEvent(stream: string, message: JSONRPCMessage): Promise<string> {
    this.#events.push({ stream, message });
    return Promise.resolve(String(this.#events.length - 1));
  }

  async replayEventsAfter(
    lastEventId: string,
    { send }: { send: (eventId: string, message: JSONRPCMessage) => Promise<void> },
  ): Promise<string> {
    const last = Number(lastEventId);
    const stream = this.#events[last]?.stream;
    if (stream === undefined) throw new Error(`no event ${lastEventId}`);
    for (const [id, event] of this.#events.entries()) {
      // The event that opens a stream holds no message.
      if (id <= last || event.stream !== stream || Object.keys(event.message).length === 0)
        continue;
      await send(String(id), event.message);
    }
    return stream;
  }
}

async function runStdio(era: Era): Promise<void> {
  if (era === "legacy") await createServer().connect(new StdioServerTransport());
  else serveStdio(() => createServer(), { legacy: era === "dual" ? "serve" : "reject" });
}

/** Sessions with streams that can be taken up again: the legacy era. */
function createLegacyHandler(): Handler {
  const sessions = new Map<string, NodeStreamableHTTPServerTransport>();
  const openSession = async () => {
    const transport = new NodeStreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      eventStore: new SessionEvents(),
      retryInterval: RETRY_MS,
      onsessioninitialized: (id) => {
        sessions.set(id, transport);
      },
      onsessionclosed: (id) => {
        sessions.delete(id);
      },
    });
    await createServer().connect(transport);
    return transport;
  };
  return async (request, response, body) => {
    const id = request.headers["mcp-session-id"];
    const transport = typeof id === "string" ? sessions.get(id) : await openSession();
    if (transport === undefined) response.writeHead(404).end();
    else await transport.handleRequest(request, response, body);
  };
}

function createModernHandler(): Handler {
  const handler = createMcpHandler(() => createServer(handler.notify), { legacy: "reject" });
  return toNodeHandler(handler);
}

/** Both eras at one address; each message says which one it is of. */
function createDualHandler(): Handler {
  const legacy = createLegacyHandler();
  const modern = createModernHandler();
  return async (request, response) => {
    if (request.method !== "POST") return await legacy(request, response);
    const copy = await toWebRequest(request);
    const isLegacy = await isLegacyRequest(copy);
    const body: unknown = await copy.json().catch(() => undefined);
    await (isLegacy ? legacy : modern)(request, response, body);
  };
}

const handlers = {
  legacy: createLegacyHandler,
  modern: createModernHandler,
  dual: createDualHandler,
};

function runHttp(era: Era, port: number): void {
  const handle = handlers[era]();
  const hostIsLocal = localhostHostValidation();
  const originIsLocal = localhostOriginValidation();
  const http = createHttpServer((request, response) => {
    if (!hostIsLocal(request, response) || !originIsLocal(request, response)) return;
    if (request.url !== "/mcp") {
      response.writeHead(404).end();
      return;
    }
    handle(request as HttpRequest, response).catch((error: unknown) => {
      process.stderr.write(`${String(error)}\n`);
      response.destroy();
    });
  });
  http.listen(port, "127.0.0.1", () => {
    process.stdout.write(`http://localhost:${(http.address() as AddressInfo).port}/mcp\n`);
  });
  process.once("SIGTERM", () => {
    process.exit();
  });
}

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { era: { type: "string", default: "dual" }, port: { type: "string", default: "0" } },
});
const era = values.era;
if (era !== "legacy" && era !== "modern" && era !== "dual") throw new Error(`no era ${era}`);
if (positionals[0] === "stdio") await runStdio(era);
else if (positionals[0] === "http") runHttp(era, Number(values.port));
else throw new Error("stdio or http?");
