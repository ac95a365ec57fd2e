/** MCP clients over HTTP, of both eras, through Hangar's own tools and at a provider's own address. */
import { Agent, request } from "node:http";

const ENVELOPE = {
  "io.modelcontextprotocol/protocolVersion": "2026-07-28",
  "io.modelcontextprotocol/clientCapabilities": {},
  "io.modelcontextprotocol/clientInfo": { name: "soak", version: "1" },
};

/** How a call ended: with the text of its answer, or because we hung up. */
export type Ended = { readonly kind: "answer"; readonly text: string } | { readonly kind: "left" };

/** One client: a session of its own in the legacy era, and connections of its own. */
export class Client {
  readonly #port: number;
  readonly #era: "legacy" | "modern";
  readonly #agent = new Agent({ keepAlive: true });
  readonly #sessions = new Map<string, string>();
  #lastId = 0;

  constructor(port: number, era: "legacy" | "modern") {
    this.#port = port;
    this.#era = era;
  }

  /** `tools/call` at `path`; hangs up after `leaveMs`, if that is given. Rejects when there is no answer within `limitMs`. */
  async call(
    path: string,
    params: object,
    limitMs: number,
    leaveMs?: number,
  ): Promise<Ended & { readonly id: number }> {
    const id = ++this.#lastId;
    const _meta = this.#era === "modern" ? { _meta: ENVELOPE } : {};
    const message = { jsonrpc: "2.0", id, method: "tools/call", params: { ...params, ..._meta } };
    const headers =
      this.#era === "modern"
        ? {
            "mcp-protocol-version": "2026-07-28",
            "mcp-method": "tools/call",
            "mcp-name": (params as { name: string }).name,
          }
        : await this.#session(path, limitMs);
    return { ...(await this.#post(path, message, headers, limitMs, leaveMs)), id };
  }

  close(): void {
    this.#agent.destroy();
  }

  async #session(path: string, limitMs: number): Promise<Record<string, string>> {
    let session = this.#sessions.get(path);
    if (session === undefined) {
      const clientInfo = { name: "soak", version: "1" };
      const params = { protocolVersion: "2025-11-25", capabilities: {}, clientInfo };
      const message = { jsonrpc: "2.0", id: 0, method: "initialize", params };
      session = "";
      await this.#post(path, message, {}, limitMs, undefined, (id) => (session = id));
      if (session !== "") this.#sessions.set(path, session);
    }
    return { "mcp-session-id": session, "mcp-protocol-version": "2025-11-25" };
  }

  #post(
    path: string,
    message: object,
    headers: Record<string, string>,
    limitMs: number,
    leaveMs?: number,
    session: (id: string) => void = () => {},
  ): Promise<Ended> {
    return new Promise((resolve, reject) => {
      let left = false;
      const sent = request(
        {
          ...{ host: "127.0.0.1", port: this.#port, path, method: "POST", agent: this.#agent },
          headers: {
            ...{ "content-type": "application/json", ...headers },
            accept: "application/json, text/event-stream",
          },
        },
        (response) => {
          const id = response.headers["mcp-session-id"];
          if (typeof id === "string") session(id);
          let text = "";
          response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
          response.on("end", () => finish(() => resolve({ kind: "answer", text })));
          response.on("error", failed);
        },
      );
      const limit = setTimeout(() => {
        sent.destroy(new Error(`no answer within ${limitMs} ms`));
      }, limitMs);
      const leave =
        leaveMs === undefined
          ? undefined
          : setTimeout(() => {
              left = true;
              sent.destroy();
            }, leaveMs);
      function finish(end: () => void): void {
        clearTimeout(limit);
        clearTimeout(leave);
        end();
      }
      function failed(error: Error): void {
        finish(() => (left ? resolve({ kind: "left" }) : reject(error)));
      }
      sent.on("error", failed);
      sent.end(JSON.stringify(message));
    });
  }
}

/** The JSON-RPC messages in an answer, whether it came as JSON or as events. */
export function messagesIn(text: string): Record<string, any>[] {
  if (text.startsWith("{")) return [JSON.parse(text) as Record<string, any>];
  return text
    .split("\n")
    .filter((line) => line.startsWith("data: {"))
    .map((line) => JSON.parse(line.slice("data: ".length)) as Record<string, any>);
}
