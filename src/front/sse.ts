import { randomBytes } from "node:crypto";
import type { ServerResponse } from "node:http";
import { HangarError } from "../errors.ts";
import type { Target } from "../target.ts";
import { type Duplex, serveDuplex } from "./duplex.ts";
import { EventStream } from "./streams.ts";

/** Clients at once; more are refused. */
const MAX_CLIENTS = 1_000;

/** The HTTP+SSE transport of 2024-11-05: one event stream to the client, and POSTs to a URL that the stream names first. */
export interface SseFront {
  /** Opens the stream of a new client. Throws `overloaded`. */
  open(face: Target, principal: string, response: ServerResponse): void;
  /** Takes a message of the client `id`. Throws `session_not_found`. */
  receive(id: string, principal: string, text: string): void;
  keepAlive(): void;
  /** As of each client's duplex. */
  drain(graceMs: number, reason: HangarError): Promise<void>;
  close(reason: HangarError): void;
}

interface SseClient {
  readonly principal: string;
  readonly duplex: Duplex;
  readonly stream: EventStream;
}

export function serveSse(): SseFront {
  const clients = new Map<string, SseClient>();

  return {
    open(face, principal, response) {
      if (clients.size >= MAX_CLIENTS) {
        const why = `more than ${MAX_CLIENTS} clients are connected by HTTP+SSE`;
        throw new HangarError("overloaded", why, { retryAfterMs: 1_000 });
      }
      const id = randomBytes(16).toString("hex");
      const stream = new EventStream(0);
      const duplex = serveDuplex(face, principal, (text, droppable) => {
        stream.send(text, droppable);
        return stream.attached;
      });
      clients.set(id, { principal, duplex, stream });
      stream.attach(response, {});
      response.write(`event: endpoint\ndata: /messages?sessionId=${id}\n\n`);
      response.once("close", () => {
        clients.delete(id);
        duplex.close(new HangarError("cancelled", "the client closed the connection"));
      });
    },
    receive(id, principal, text) {
      const client = clients.get(id);
      if (client === undefined || client.principal !== principal) {
        throw new HangarError("session_not_found", "The session is unknown; open /sse again");
      }
      client.duplex.receive(text);
    },
    keepAlive() {
      for (const { stream } of clients.values()) stream.keepAlive();
    },
    async drain(graceMs, reason) {
      await Promise.all([...clients.values()].map(({ duplex }) => duplex.drain(graceMs, reason)));
    },
    close(reason) {
      for (const { duplex, stream } of clients.values()) {
        duplex.close(reason);
        stream.end();
      }
      clients.clear();
    },
  };
}
