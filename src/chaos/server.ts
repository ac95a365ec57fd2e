/** The MCP server behind `mcp-hangar chaos-server`: both eras, no transport; it misbehaves as its flags say. */
import { appendFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import {
  LEGACY_VERSION,
  LEGACY_VERSIONS,
  META,
  MODERN_VERSIONS,
  modernVersionOf,
} from "../wire/eras.ts";
import { type Message, stringAt, textOf } from "../wire/envelope.ts";
import { VERSION } from "../version.ts";
import { type Answer, answerText, faultyAnswers } from "./answers.ts";
import { type Faults, strikes } from "./flags.ts";
import { describeTool, INVALID_PARAMS, RequestError, runTool, TOOLS } from "./tools.ts";

/** Where what belongs to one request goes. */
export interface Exchange {
  note(message: string): void;
  /** At most once; a request that hangs is never answered. */
  answer(answer: Answer): void;
}

/** What one client sends on one connection, or in one session or, without those, in one request. */
export interface Conversation {
  /** Settles when the message needs nothing more. */
  receive(message: Message, exchange: Exchange): Promise<void>;
  /** Stops what is under way. */
  close(): void;
}

export interface ChaosServer {
  /** `unasked` gets the notifications that belong to no request. */
  open(unasked: (message: string) => void): Conversation;
}

/** Tells one conversation, or one subscription, that the list of tools has changed. */
type ListChanged = () => void;

const CRASH_EXIT_CODE = 3;
const PROBE_EXIT_CODE = 1;
const METHOD_NOT_FOUND = -32601;
const UNSUPPORTED_PROTOCOL_VERSION = -32022;
const BAD_REQUEST = 400;
const NOT_FOUND = 404;
const STORM_TICK_MS = 10;
const STDERR_CHUNK_BYTES = 64 * 1024;
const SERVER_INFO = { name: "mcp-hangar-chaos-server", version: VERSION };
const CAPABILITIES = { tools: { listChanged: true } };

/** Builds the server; `children` are the processes it has started. */
export function createServer(faults: Faults, children: readonly number[]): ChaosServer {
  const random = randomNumbers(faults.seed ?? process.pid);
  const listeners = new Set<ListChanged>();
  const dummies = Array.from({ length: faults.tools ?? 0 }, (_, index) => `dummy_${index + 1}`);
  let calls = 0;
  let changes = 0;
  if (faults.listChangedPerS !== undefined) storm(faults.listChangedPerS);

  function storm(perSecond: number): void {
    let owed = 0;
    setInterval(() => {
      if (listeners.size === 0) return;
      for (owed += (perSecond * STORM_TICK_MS) / 1000; owed >= 1; owed -= 1) {
        if (changes === faults.listChangedTimes) return;
        changes += 1;
        for (const listener of listeners) listener();
      }
    }, STORM_TICK_MS).unref();
  }

  function toolNames(): string[] {
    const changing = faults.listChangedReal === true ? [`changing_${changes}`] : [];
    return [...Object.keys(TOOLS), ...dummies, ...changing];
  }

  function record(tool: string, key: string): void {
    if (faults.ledger === undefined) return;
    appendFileSync(faults.ledger, `${JSON.stringify({ tool, key, pid: process.pid })}\n`);
  }

  function crashIfDue(call: number): void {
    const due = faults.crashAfter !== undefined && call >= faults.crashAfter;
    if (due || random() < (faults.crashRate ?? 0)) process.exit(CRASH_EXIT_CODE);
  }

  /** The result of one request, the text of an object; undefined for one that stays open. */
  async function resultOf(
    message: Message,
    modern: boolean,
    run: Run,
  ): Promise<string | undefined> {
    const { method, text, body } = message;
    if (method === "tools/list") return JSON.stringify({ tools: toolNames().map(describeTool) });
    if (method === "tools/call") {
      const name = stringAt(text, body.get("name")) ?? "";
      if (!toolNames().includes(name)) {
        throw new RequestError(INVALID_PARAMS, `there is no tool ${JSON.stringify(name)}`);
      }
      const args = body.get("arguments");
      const raw = args === undefined ? "{}" : textOf(text, args);
      return await runTool(name, { ...run, raw, record, children });
    }
    if (modern && method === "server/discover") {
      return JSON.stringify({ supportedVersions: MODERN_VERSIONS, capabilities: CAPABILITIES });
    }
    if (modern && method === "subscriptions/listen") return undefined;
    if (!modern && method === "ping") return "{}";
    if (!modern && method === "initialize") {
      const asked = stringAt(text, body.get("protocolVersion")) ?? "";
      const protocolVersion = LEGACY_VERSIONS.includes(asked) ? asked : LEGACY_VERSION;
      return JSON.stringify({
        protocolVersion,
        capabilities: CAPABILITIES,
        serverInfo: SERVER_INFO,
      });
    }
    const status = modern ? NOT_FOUND : undefined;
    throw new RequestError(METHOD_NOT_FOUND, "Method not found", status);
  }

  return {
    open(unasked) {
      const running = new Map<string, AbortController>();
      let initialized = false;
      const unaskedChange = (): void => unasked(notification("tools/list_changed", "{}"));

      /** Tells of changed lists until the request ends. */
      function listen(id: string, exchange: Exchange, signal: AbortSignal): void {
        const meta = `"_meta":{"${META.subscriptionId}":${id}}`;
        const honoured = '"notifications":{"toolsListChanged":true}';
        exchange.note(notification("subscriptions/acknowledged", `{${honoured},${meta}}`));
        const listener = (): void => exchange.note(notification("tools/list_changed", `{${meta}}`));
        listeners.add(listener);
        signal.addEventListener("abort", () => listeners.delete(listener));
      }

      async function answer(message: Message, id: string, exchange: Exchange): Promise<void> {
        const { method } = message;
        const abort = new AbortController();
        const signal =
          faults.replyAfterCancel === true ? new AbortController().signal : abort.signal;
        running.set(id, abort);
        const call = method === "tools/call" ? ++calls : undefined;
        const found = await outcomeOf(message, id, exchange, signal);
        const hangs = faults.hang?.includes(method as string) === true;
        if (found === undefined) {
          if (!hangs) listen(id, exchange, abort.signal);
          return;
        }
        if (call !== undefined) {
          crashIfDue(call);
          if (faults.stderrBytesPerCall !== undefined) await floodStderr(faults.stderrBytesPerCall);
        }
        // Nothing is waited for in vain: the answer is out before the next call may crash.
        if (faults.delayMs !== undefined) {
          await sleep(faults.delayMs, undefined, { signal }).catch(() => undefined);
        }
        running.delete(id);
        if (!hangs && !signal.aborted) exchange.answer(found);
      }

      async function outcomeOf(
        message: Message,
        id: string,
        exchange: Exchange,
        signal: AbortSignal,
      ): Promise<Answer | undefined> {
        const struck = strikes(faults, message.method);
        try {
          const modern = isModern(message, faults);
          const progress = progressOf(message, exchange);
          const result = await resultOf(message, modern, { signal, progress });
          if (result === undefined) return undefined;
          const whole = modern ? modernResult(message.method as string, result) : result;
          const messages = struck
            ? faultyAnswers(id, whole, faults)
            : [Buffer.from(answerText(id, `"result":${whole}`))];
          return { messages, status: 200, struck };
        } catch (error) {
          if (!(error instanceof RequestError)) throw error;
          const { code, status, data } = error;
          const text = JSON.stringify({ code, message: error.message, data });
          return { messages: [Buffer.from(answerText(id, `"error":${text}`))], status, struck };
        }
      }

      return {
        async receive(message, exchange) {
          if (faults.hang?.includes("spawn") === true) return;
          const { kind, method, id, text, body } = message;
          if (method === "notifications/cancelled") {
            const named = body.get("requestId");
            if (named !== undefined) running.get(textOf(text, named))?.abort();
          }
          if (method === "notifications/initialized") listeners.add(unaskedChange);
          if (kind !== "request" || id === undefined) return;
          if (method === "initialize") initialized = true;
          if (faults.exitOnProbe === true && !initialized) process.exit(PROBE_EXIT_CODE);
          await answer(message, id, exchange);
        },
        close() {
          listeners.delete(unaskedChange);
          for (const abort of running.values()) abort.abort();
        },
      };
    },
  };
}

/** What a call gets beside its arguments. */
interface Run {
  readonly signal: AbortSignal;
  readonly progress: (done: number, total: number) => void;
}

/** The era of a request. Throws when the server does not speak it. */
function isModern(message: Message, { era = "both" }: Faults): boolean {
  const requested = modernVersionOf(message);
  if (era === "legacy") return false;
  if (requested === undefined) {
    if (era === "both") return false;
    if (message.method !== "initialize") {
      const what = `\`_meta\` lacks "${META.protocolVersion}"`;
      throw new RequestError(INVALID_PARAMS, what, BAD_REQUEST);
    }
  }
  if (requested === undefined || !MODERN_VERSIONS.includes(requested)) {
    const asked = requested ?? stringAt(message.text, message.body.get("protocolVersion"));
    const data = { supported: MODERN_VERSIONS, requested: asked };
    const what = "Unsupported protocol version";
    throw new RequestError(UNSUPPORTED_PROTOCOL_VERSION, what, BAD_REQUEST, data);
  }
  if (!message.meta.has(META.clientCapabilities)) {
    const what = `\`_meta\` lacks "${META.clientCapabilities}"`;
    throw new RequestError(INVALID_PARAMS, what, BAD_REQUEST);
  }
  return true;
}

/** `result` with what the modern era wants in every one. */
function modernResult(method: string, result: string): string {
  const cache = method === "tools/call" ? "" : ',"ttlMs":0,"cacheScope":"private"';
  const identity = `"_meta":{"${META.serverInfo}":${JSON.stringify(SERVER_INFO)}}`;
  return `{"resultType":"complete",${identity}${cache},${result.slice(1)}`;
}

function progressOf({ text, meta }: Message, exchange: Exchange): Run["progress"] {
  const token = meta.get("progressToken");
  if (token === undefined) return () => undefined;
  const told = textOf(text, token);
  return (done, total) => {
    const params = `{"progressToken":${told},"progress":${done},"total":${total}}`;
    exchange.note(notification("progress", params));
  };
}

function notification(name: string, params: string): string {
  return `{"jsonrpc":"2.0","method":"notifications/${name}","params":${params}}`;
}

/** Writes that many bytes to stderr, in lines; waits as long as nobody reads them. */
export async function floodStderr(bytes: number): Promise<void> {
  const chunk = `${"chaos ".repeat(10)}\n`
    .repeat(STDERR_CHUNK_BYTES / 64)
    .slice(0, STDERR_CHUNK_BYTES);
  for (let left = bytes; left > 0; left -= chunk.length) {
    const piece = chunk.slice(0, left);
    await new Promise((resolve) => process.stderr.write(piece, resolve));
  }
}

/** Numbers from 0 to 1, the same ones for the same seed (mulberry32). */
function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
