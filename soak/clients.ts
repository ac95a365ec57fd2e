/** The clients of the soak. All of them use the same ids, 1, 2, 3 and so on, so that a mixed-up answer would look right. */
import { Agent, request } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import type { Child } from "../bench/children.ts";
import { LEGACY_VERSION, META, MODERN_VERSIONS } from "../src/wire/eras.ts";
import { splitLines } from "../src/wire/lines.ts";
import type { Json, Order } from "./judge.ts";

/** A call without any end so long is lost, in milliseconds. */
const LOST_MS = 60_000;
const MAX_LINE_BYTES = 16 * 1024 * 1024;
const CLIENT_INFO = { name: "soak", version: "1.0.0" };

/** How one call went: the message that answers it, or none when the client had left, and how long that took. */
export interface Heard {
  readonly message: Json;
  readonly ms: number;
}

export interface Client {
  readonly name: string;
  readonly era: "legacy" | "modern";
  readonly ways: readonly Order["way"][];
  /** Rejects when the call got no answer, more than one, or somebody else's. */
  call(order: Order): Promise<Heard>;
  /** Calls one of Hangar's own tools; resolves with its structured content. */
  ask(tool: string, args: object): Promise<Json>;
  /** Closes what idles, so that only what Hangar keeps for itself is open. */
  rest(): void;
}

function toolParams(order: Order): object {
  const { provider, tool, args, way, timeoutMs } = order;
  if (way === "direct") return { name: tool, arguments: args };
  const timeout = timeoutMs === undefined ? {} : { timeout: timeoutMs / 1_000 };
  return {
    name: "registry_invoke",
    arguments: { provider, tool, arguments: args, ...timeout },
  };
}

const INITIALIZE = {
  protocolVersion: LEGACY_VERSION,
  capabilities: {},
  clientInfo: CLIENT_INFO,
};

const ENVELOPE = {
  [META.protocolVersion]: MODERN_VERSIONS[0],
  [META.clientCapabilities]: {},
  [META.clientInfo]: CLIENT_INFO,
};

interface Answered {
  readonly message: Json;
  readonly session: string | undefined;
}

/** A client of Streamable HTTP at `/mcp` and `/mcp/<name>`; a legacy one has a session at each. */
export function httpClient(port: number, era: "legacy" | "modern", name: string): Client {
  const agent = new Agent({ keepAlive: true });
  const sessions = new Map<string, Promise<Answered>>();
  let lastId = 0;

  /** Resolves with the one answer; undefined for a notification, or when it left. */
  function post(
    path: string,
    message: Json,
    session: string | undefined,
    leaveAfterMs?: number,
  ): Promise<Answered | undefined> {
    const headers: Record<string, string> = {
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
    };
    if (session !== undefined) headers["mcp-session-id"] = session;
    if (era === "modern") {
      headers["mcp-protocol-version"] = MODERN_VERSIONS[0] as string;
      headers["mcp-method"] = message.method;
      headers["mcp-name"] = message.params.name;
    } else if (session !== undefined) headers["mcp-protocol-version"] = LEGACY_VERSION;
    const what = `${name}: ${message.method} at ${path}`;
    return new Promise((resolve, reject) => {
      const options = { host: "127.0.0.1", port, path, method: "POST", agent, headers };
      const posted = request(options, (response) => {
        const { statusCode, headers: got } = response;
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.once("error", fail);
        response.once("end", () => {
          stopTimers();
          if (message.id === undefined) return resolve(undefined);
          const text = Buffer.concat(chunks).toString("utf8");
          try {
            const answer = oneAnswer(message.id, messagesIn(got["content-type"] ?? "", text));
            const given = got["mcp-session-id"];
            // An error to `initialize` may come late, on a stream whose headers named a session.
            const opened = answer.error === undefined && typeof given === "string";
            resolve({ message: answer, session: opened ? given : undefined });
          } catch (error) {
            const why = `${(error as Error).message}; HTTP ${statusCode}: ${text.slice(0, 500)}`;
            reject(new Error(`${what}: ${why}`));
          }
        });
      });
      posted.once("error", fail);
      posted.end(JSON.stringify(message));
      const lost = setTimeout(() => {
        posted.destroy(new Error(`no answer within ${LOST_MS} ms`));
      }, LOST_MS);
      const leaving =
        leaveAfterMs === undefined
          ? undefined
          : setTimeout(() => {
              clearTimeout(lost);
              resolve(undefined);
              posted.destroy();
            }, leaveAfterMs);
      function stopTimers(): void {
        clearTimeout(lost);
        clearTimeout(leaving);
      }
      function fail(error: Error): void {
        stopTimers();
        reject(new Error(`${what}: ${error.message}`));
      }
    });
  }

  /** The session at `path`; without one, `message` says why. */
  async function sessionAt(path: string): Promise<Answered> {
    const open = sessions.get(path) ?? openSession(path);
    sessions.set(path, open);
    const opened = await open;
    if (opened.session === undefined) sessions.delete(path);
    return opened;
  }

  async function openSession(path: string): Promise<Answered> {
    const message = { jsonrpc: "2.0", id: ++lastId, method: "initialize", params: INITIALIZE };
    const opened = (await post(path, message, undefined)) as Answered;
    if (opened.session === undefined) return opened;
    const method = "notifications/initialized";
    await post(path, { jsonrpc: "2.0", method }, opened.session);
    return opened;
  }

  async function send(path: string, params: object, leave?: Order["leave"]): Promise<Heard> {
    const opened = era === "legacy" ? await sessionAt(path) : undefined;
    if (opened !== undefined && opened.session === undefined) {
      return { message: opened.message, ms: 0 };
    }
    const session = opened?.session;
    const id = ++lastId;
    const whole = era === "legacy" ? params : { ...params, _meta: ENVELOPE };
    const message = { jsonrpc: "2.0", id, method: "tools/call", params: whole };
    const since = performance.now();
    // In the modern era, to cancel is to close the connection.
    const cancels = era === "legacy" && leave?.how === "cancel";
    const answer = post(path, message, session, cancels ? undefined : leave?.afterMs);
    if (cancels) {
      const over = Promise.allSettled([answer]);
      await Promise.race([over, sleep(leave.afterMs)]);
      const method = "notifications/cancelled";
      await post(path, { jsonrpc: "2.0", method, params: { requestId: id } }, session);
    }
    return { message: (await answer)?.message, ms: performance.now() - since };
  }

  return {
    name,
    era,
    ways: ["registry", "direct"],
    call: (order) => {
      const path = order.way === "direct" ? `/mcp/${order.provider}` : "/mcp";
      return send(path, toolParams(order), order.leave);
    },
    ask: async (tool, args) => {
      const { message } = await send("/mcp", { name: tool, arguments: args });
      return message.result?.structuredContent;
    },
    rest: () => agent.destroy(),
  };
}

/** The one message that answers; everything else on the way is a notification. */
function oneAnswer(id: number, messages: readonly Json[]): Json {
  const answers = messages.filter(({ method }) => method === undefined);
  const [answer] = answers;
  if (answers.length !== 1) throw new Error(`${answers.length} answers to one call`);
  if (answer.id !== id) throw new Error(`the answer to ${answer.id} in the place of that to ${id}`);
  return answer;
}

function messagesIn(type: string, text: string): Json[] {
  if (type.startsWith("application/json")) return [JSON.parse(text)];
  return text
    .split(/\r?\n/)
    .filter((line) => /^data:\s*\S/.test(line))
    .map((line) => JSON.parse(line.slice("data:".length)));
}

/** The one client of a Hangar on stdio; everything that comes on its stdout goes through here. */
export function stdioClient(
  hangar: Child,
  name: string,
  tellProblem: (what: string) => void,
): Client & { greet(): Promise<void> } {
  const waiting = new Map<number, (message: Json) => void>();
  /** Calls that were cancelled: each may have been answered before that arrived, once. */
  const left = new Set<number>();
  let lastId = 0;
  const lines = splitLines(MAX_LINE_BYTES, {
    line: receive,
    refused: (reason) => tellProblem(`${name}: a line that is ${reason}`),
  });
  hangar.stdout.on("data", (chunk: Buffer) => lines.push(chunk));

  function receive(line: string): void {
    const message: Json = JSON.parse(line);
    if (message.method !== undefined || left.delete(message.id)) return;
    const resolve = waiting.get(message.id);
    waiting.delete(message.id);
    if (resolve === undefined) tellProblem(`${name}: an answer nobody waits for: ${line}`);
    else resolve(message);
  }

  function write(message: object): void {
    hangar.stdin.write(`${JSON.stringify({ jsonrpc: "2.0", ...message })}\n`);
  }

  async function send(method: string, params: object, leave?: Order["leave"]): Promise<Heard> {
    const id = ++lastId;
    const since = performance.now();
    const answer = new Promise<Json>((resolve) => waiting.set(id, resolve));
    write({ id, method, params });
    const limitMs = leave?.afterMs ?? LOST_MS;
    const timer = new AbortController();
    const late = sleep(limitMs, undefined, { signal: timer.signal }).catch(() => undefined);
    const message = await Promise.race([answer, late, hangar.lost]);
    timer.abort();
    if (message === undefined) {
      if (leave === undefined) throw new Error(`${name}: no answer within ${LOST_MS} ms`);
      waiting.delete(id);
      left.add(id);
      write({ method: "notifications/cancelled", params: { requestId: id } });
    }
    return { message, ms: performance.now() - since };
  }

  return {
    name,
    era: "legacy",
    ways: ["registry"],
    call: (order: Order) => send("tools/call", toolParams(order), order.leave),
    ask: async (tool: string, args: object) => {
      const { message } = await send("tools/call", { name: tool, arguments: args });
      return message.result?.structuredContent;
    },
    rest: () => undefined,
    /** The legacy handshake. */
    async greet(): Promise<void> {
      await send("initialize", INITIALIZE);
      write({ method: "notifications/initialized" });
    },
  };
}
