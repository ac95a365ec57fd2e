import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { HangarError, jsonRpcError, toHangarError } from "../errors.ts";
import { type Message, scanMessage } from "../wire/envelope.ts";
import { modernVersionOf } from "../wire/eras.ts";
import { requireAgreement } from "../wire/headers.ts";
import { decodeText, oneLine } from "../wire/lines.ts";
import { answerText } from "./answers.ts";
import { type Faults, strikes } from "./flags.ts";
import { createOutput, type Output } from "./output.ts";
import type { ChaosServer, Conversation, Exchange } from "./server.ts";

const HOST = "127.0.0.1";
const PATH = "/mcp";
const MAX_BODY_BYTES = 256 * 1024 * 1024;
/** Notifications that belong to no request are left out while so many pieces are unwritten. */
const MAX_WAITING = 1000;

/** A legacy client's session. */
interface Session {
  readonly conversation: Conversation;
  /** Its GET stream, while it has one. */
  stream?: Output;
  messages: number;
}

/** Serves Streamable HTTP on `port` of the loopback interface, for ever. */
export async function serveHttp(server: ChaosServer, faults: Faults, port: number): Promise<void> {
  const sessions = new Map<string, Session>();
  const http = createServer((request, response) => {
    serve(request, response).catch((error: unknown) => {
      if (!response.headersSent) refuse(response, 400, error);
      response.destroy();
    });
  });
  if (faults.httpClose === true) http.on("connection", (socket) => socket.destroy());
  http.listen(port, HOST);
  try {
    await once(http, "listening");
  } catch (error) {
    const why = `cannot listen on port ${port}: ${(error as Error).message}`;
    throw new HangarError("invalid_arguments", why);
  }
  const { port: bound } = http.address() as AddressInfo;
  process.stderr.write(`the chaos server serves http://${HOST}:${bound}${PATH}\n`);
  await once(http, "close");

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (!isLocal(request)) return void response.writeHead(403).end();
    if (request.url !== PATH) return void response.writeHead(404).end();
    if (request.method === "POST") return await receive(request, response);
    const id = header(request, "mcp-session-id") ?? "";
    const session = sessions.get(id);
    if (faults.era === "modern" || (request.method !== "GET" && request.method !== "DELETE")) {
      response.writeHead(405, { allow: "POST" }).end();
    } else if (session === undefined) {
      response.writeHead(404).end();
    } else if (request.method === "GET") {
      openStream(response);
      session.stream = createOutput(response, faults);
    } else {
      end(id, session);
      response.writeHead(204).end();
    }
  }

  function end(id: string, session: Session): void {
    sessions.delete(id);
    session.conversation.close();
  }

  async function receive(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const message = scanMessage(await readBody(request));
    const struck = strikes(faults, message.method);
    if (struck && faults.httpStatus !== undefined) {
      const wait = faults.httpRetryAfter;
      if (wait !== undefined) response.setHeader("retry-after", wait);
      return void response.writeHead(faults.httpStatus).end();
    }
    if (struck && faults.httpEof === true) {
      openStream(response);
      return void response.end();
    }
    const conversation = conversationOf(request, response, message);
    if (conversation === undefined) return;
    const receiving = conversation.receive(message, exchangeOn(response, faults));
    if (message.kind !== "request") response.writeHead(202).end();
    await receiving;
  }

  /** Where the message belongs; undefined when it was refused. */
  function conversationOf(
    request: IncomingMessage,
    response: ServerResponse,
    message: Message,
  ): Conversation | undefined {
    const { era = "both" } = faults;
    const isModern = modernVersionOf(message) !== undefined;
    if (era === "modern" || (era === "both" && isModern)) {
      const disagreement = isModern ? disagreementOf(request, message) : undefined;
      if (disagreement !== undefined) {
        refuse(response, 400, disagreement, message.id);
        return undefined;
      }
      // The request is the conversation: it ends when its stream does.
      const conversation = server.open(() => undefined);
      response.once("close", () => conversation.close());
      return conversation;
    }
    if (message.method === "initialize") return begin(response);
    const id = header(request, "mcp-session-id");
    const session = sessions.get(id ?? "");
    if (id !== undefined && session !== undefined) {
      session.messages += 1;
      if (session.messages <= (faults.httpForgetSessionsAfter ?? Infinity)) {
        return session.conversation;
      }
      end(id, session);
    }
    const why = id === undefined ? "the header Mcp-Session-Id is missing" : "no such session";
    const error = new HangarError("invalid_message", why);
    refuse(response, id === undefined ? 400 : 404, error, message.id);
    return undefined;
  }

  function begin(response: ServerResponse): Conversation {
    const id = randomUUID();
    const conversation = server.open((text) => {
      const { stream } = sessions.get(id) ?? {};
      if (stream !== undefined && stream.waiting < MAX_WAITING) stream.write(event(text));
    });
    sessions.set(id, { conversation, messages: 0 });
    response.setHeader("mcp-session-id", id);
    return conversation;
  }
}

/** Answers in JSON, or on an event stream when there is more than one message. */
function exchangeOn(response: ServerResponse, faults: Faults): Exchange {
  const output = createOutput(response, faults);
  return {
    note(text) {
      if (!response.headersSent) openStream(response);
      output.write(event(text));
    },
    answer({ messages, status }) {
      const [first, ...more] = messages;
      if (first !== undefined && more.length === 0 && !response.headersSent) {
        response.writeHead(status, { "content-type": "application/json" });
        output.write(first);
      } else {
        if (!response.headersSent) openStream(response);
        for (const message of messages) output.write(event(message));
      }
      void output.flushed().then(() => response.end());
    },
  };
}

function openStream(response: ServerResponse): void {
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" });
  response.flushHeaders();
}

/** One message as an event; its bytes may be what no text is. */
function event(message: Buffer | string): Buffer {
  const data = typeof message === "string" ? Buffer.from(oneLine(message)) : message;
  return Buffer.concat([Buffer.from("event: message\ndata: "), data, Buffer.from("\n\n")]);
}

function disagreementOf(request: IncomingMessage, message: Message): unknown {
  try {
    requireAgreement(message, (name) => header(request, name));
    return undefined;
  } catch (error) {
    return error;
  }
}

function refuse(response: ServerResponse, status: number, error: unknown, id = "null"): void {
  const text = answerText(id, `"error":${jsonRpcError(toHangarError(error))}`);
  response.writeHead(status, { "content-type": "application/json" }).end(text);
}

/** A web page cannot come in: neither by its own name for 127.0.0.1, nor from elsewhere. */
function isLocal(request: IncomingMessage): boolean {
  const name = /^(?:localhost|127\.0\.0\.1)(?::\d+)?$/;
  const origin = header(request, "origin");
  const isLocalOrigin = origin === undefined || name.test(origin.replace(/^https?:\/\//, ""));
  return name.test(header(request, "host") ?? "") && isLocalOrigin;
}

function header(request: IncomingMessage, name: string): string | undefined {
  const value = request.headers[name];
  return Array.isArray(value) ? value.join(", ") : value;
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > MAX_BODY_BYTES)
      throw new HangarError("message_too_large", "the body is too large");
    chunks.push(chunk);
  }
  const text = decodeText(Buffer.concat(chunks));
  if (text === undefined) throw new HangarError("parse_error", "the body is not valid UTF-8");
  return text;
}
