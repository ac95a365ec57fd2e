/**
 * What the end-to-end tests share: temp folders, configurations, and the real CLI over stdio and HTTP.
 * Whatever is started here during a test is stopped after it; what is started in a beforeAll, after the file.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request as httpRequest, type IncomingHttpHeaders } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeEach } from "vitest";
import { fileMarker, watchPort } from "./leaks.ts";

/** What JSON.parse gives; tests look at it with `expect`. */
export type Json = any;

/** The CLI under test; HANGAR_BIN names another one than this tree's. */
export const BIN =
  process.env["HANGAR_BIN"] ?? fileURLToPath(new URL("../dist/cli/bin.js", import.meta.url));

/** A `_meta` that makes a request one of revision 2026-07-28. */
export const ENVELOPE = {
  "io.modelcontextprotocol/protocolVersion": "2026-07-28",
  "io.modelcontextprotocol/clientCapabilities": {},
  "io.modelcontextprotocol/clientInfo": { name: "test", version: "1.0.0" },
};

const SERVERS = fileURLToPath(new URL("fixtures/servers/", import.meta.url));
const READY_MS = 10_000;
const REPLY_MS = 15_000;
const STOP_MS = 5000;

type Cleanup = () => void | Promise<void>;
const fileCleanups: Cleanup[] = [];
let cleanups = fileCleanups;

beforeEach(() => {
  cleanups = [];
});

afterEach(async () => {
  const due = cleanups;
  cleanups = fileCleanups;
  await runCleanups(due);
});

afterAll(() => runCleanups(fileCleanups));

async function runCleanups(due: Cleanup[]): Promise<void> {
  for (const cleanup of due.splice(0).toReversed()) await cleanup();
}

/** A new empty folder that is removed afterwards. */
export function tempDir(): string {
  const dir = mkdtempSync(join(tmpdir(), "hangar-test-"));
  cleanups.push(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** The command that runs the fixture server of that name. */
export function fixture(name: string, ...args: string[]): string[] {
  const file = join(SERVERS, `${name}.ts`);
  if (!existsSync(file)) throw new Error(`no fixture ${name}`);
  return [process.execPath, file, ...args];
}

/** The command that runs the shipped chaos server with these flags. */
export function chaos(...flags: string[]): string[] {
  return [process.execPath, BIN, "chaos-server", ...flags];
}

/** Writes a config.yaml (as JSON, which YAML includes) whose providers carry the file's marker; returns its path. */
export function writeConfig(dir: string, config: Json): string {
  const marked = (provider: Json): Json => ({
    ...provider,
    inherit_env: [...(provider.inherit_env ?? []), "HANGAR_TEST"],
  });
  const providers = Object.entries<Json>(config.providers ?? {}).map(([id, provider]) => [
    id,
    provider.mode === "remote" ? provider : marked(provider),
  ]);
  const file = join(dir, "config.yaml");
  const text = JSON.stringify({ ...config, providers: Object.fromEntries(providers) }, null, 2);
  writeFileSync(file, text);
  return file;
}

/** A configuration with one provider per fixture name, or per entry of what it takes to run one. */
export function configOf(providers: Record<string, Json>, rest: Json = {}): string {
  return writeConfig(tempDir(), { ...rest, providers });
}

/** The process ids that fixtures have written to a START_LOG file, oldest first. */
export function startedPids(log: string): number[] {
  if (!existsSync(log)) return [];
  return readFileSync(log, "utf8").trim().split("\n").filter(Boolean).map(Number);
}

/** Waits until `check` returns something truthy, and returns that. */
export async function waitFor<T>(
  what: string,
  check: () => T | Promise<T>,
  timeoutMs = 8000,
): Promise<NonNullable<T>> {
  const end = performance.now() + timeoutMs;
  for (;;) {
    const value = await check();
    if (value) return value;
    if (performance.now() > end) throw new Error(`waited ${timeoutMs} ms in vain for ${what}`);
    await sleep(25);
  }
}

interface StartOptions {
  /** Starts the chaos server with these flags, in place of Hangar. */
  readonly chaos?: readonly string[];
  /** Path of the configuration; without one, Hangar looks for its own. */
  readonly config?: string;
  readonly args?: readonly string[];
  readonly env?: Record<string, string>;
  readonly cwd?: string;
  readonly stateDir?: string;
  /** What runs Hangar: a command that replaces itself with its last arguments. */
  readonly under?: readonly string[];
  /** The era the client speaks; legacy unless told. */
  readonly era?: "legacy" | "modern";
}

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** A JSON-RPC answer, with the text it came as. */
export interface Reply {
  readonly raw: string;
  readonly id: Json;
  readonly result?: Json;
  readonly error?: Json;
}

/** The environment of everything started here: what a login shell has at least, and the file's marker. */
function environmentOf(extra: Record<string, string> = {}): Record<string, string> {
  const [name = "", value = ""] = fileMarker().split("=");
  return { PATH: process.env["PATH"] ?? "", HOME: tempDir(), [name]: value, ...extra };
}

/** A running Hangar, whichever front it serves. */
abstract class Hangar {
  readonly child: ChildProcess;
  readonly exit: Promise<Exit>;
  readonly era: "legacy" | "modern";
  readonly stateDir: string;
  stderr = "";
  #lastId = 0;

  constructor(options: StartOptions, front: readonly string[]) {
    this.era = options.era ?? "legacy";
    this.stateDir = options.stateDir ?? tempDir();
    const serve = [
      "serve",
      ...front,
      ...(options.config === undefined ? [] : ["--config", options.config]),
      "--state-dir",
      this.stateDir,
      ...(options.args ?? []),
    ];
    const args = options.chaos === undefined ? serve : ["chaos-server", ...options.chaos];
    const [program, ...before] = [...(options.under ?? []), process.execPath, BIN];
    this.child = spawn(program, [...before, ...args], {
      cwd: options.cwd ?? tempDir(),
      env: environmentOf(options.env),
      stdio: "pipe",
    });
    this.child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.stderr += text;
    });
    this.child.stdin?.on("error", () => undefined); // a Hangar that has exited reads nothing more
    this.exit = new Promise((resolve) => {
      this.child.once("close", (code, signal) => resolve({ code, signal }));
    });
    cleanups.push(() => this.#stop());
  }

  get pid(): number {
    if (this.child.pid === undefined) throw new Error("Hangar did not start");
    return this.child.pid;
  }

  protected nextId(): number {
    return ++this.#lastId;
  }

  protected paramsOf(params: Json): Json {
    if (this.era === "legacy") return params;
    return { ...params, _meta: { ...ENVELOPE, ...params._meta } };
  }

  /** Sends a request and waits for its answer; a JSON-RPC error is an answer too. */
  abstract request(method: string, params?: Json): Promise<Reply>;

  /** tools/call on Hangar itself; fails on a JSON-RPC error. */
  async callTool(name: string, args: Json = {}, meta?: Json): Promise<Json> {
    const params = { name, arguments: args, ...(meta === undefined ? {} : { _meta: meta }) };
    const reply = await this.request("tools/call", params);
    if (reply.error !== undefined) throw new Error(`tools/call ${name}: ${reply.raw}`);
    return reply.result;
  }

  /** registry_invoke: calls a provider's tool. */
  invoke(provider: string, tool: string, args: Json = {}, timeout?: number): Promise<Json> {
    const limit = timeout === undefined ? {} : { timeout };
    return this.callTool("registry_invoke", { provider, tool, arguments: args, ...limit });
  }

  /** The structured content of registry_details. */
  async details(provider: string): Promise<Json> {
    return (await this.callTool("registry_details", { provider })).structuredContent;
  }

  async waitForState(provider: string, state: string, timeoutMs?: number): Promise<Json> {
    let last: Json;
    const check = async () => {
      last = await this.details(provider);
      return last.state === state;
    };
    await waitFor(`${provider} to be ${state}`, check, timeoutMs).catch((error: unknown) => {
      throw new Error(`${String(error)}; last seen: ${JSON.stringify(last)}`);
    });
    return last;
  }

  kill(signal: NodeJS.Signals): void {
    this.child.kill(signal);
  }

  async #stop(): Promise<void> {
    this.child.stdin?.end();
    if (this.child.pid === undefined) return;
    // A second SIGTERM waits for no call.
    for (const signal of ["SIGTERM", "SIGTERM", "SIGKILL"] as const) {
      this.child.kill(signal);
      const ended = await Promise.race([
        this.exit.then(() => true),
        sleep(STOP_MS, false, { ref: false }),
      ]);
      if (ended) break;
    }
    // A grandchild may hold these open; we do not need them any more.
    this.child.stdin?.destroy();
    this.child.stdout?.destroy();
    this.child.stderr?.destroy();
  }
}

/** Hangar on stdio, seen by a client. */
export class StdioHangar extends Hangar {
  /** Every line of stdout as it came. */
  readonly lines: string[] = [];
  /** Messages from Hangar that answer nothing. */
  readonly notifications: Json[] = [];
  readonly #waiting = new Map<string, (reply: Reply) => void>();

  constructor(options: StartOptions) {
    super(options, []);
    const pieces: string[] = [];
    this.child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      const [first = "", ...lines] = text.split("\n");
      pieces.push(first);
      for (const line of lines) {
        this.#receive(pieces.splice(0).join(""));
        pieces.push(line);
      }
    });
  }

  /** Writes one message; a string goes as it is. */
  send(message: Json): void {
    const text = typeof message === "string" ? message : JSON.stringify(message);
    this.child.stdin?.write(`${text}\n`);
  }

  notify(method: string, params: Json = {}): void {
    this.send({ jsonrpc: "2.0", method, params: this.paramsOf(params) });
  }

  override request(method: string, params: Json = {}, id: Json = this.nextId()): Promise<Reply> {
    const reply = this.replyTo(id, method);
    this.send({ jsonrpc: "2.0", id, method, params: this.paramsOf(params) });
    return reply;
  }

  /** Waits for the answer to a request that is sent by hand. */
  replyTo(id: Json, what = "a request"): Promise<Reply> {
    const key = JSON.stringify(id);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(new Error(`no answer to ${what} (id ${key}); stderr:\n${this.stderr}`));
      }, REPLY_MS);
      this.#waiting.set(key, (reply) => {
        clearTimeout(timer);
        resolve(reply);
      });
    });
  }

  /** The legacy handshake. */
  async initialize(protocolVersion = "2025-11-25", capabilities: Json = {}): Promise<Json> {
    const clientInfo = { name: "test", version: "1.0.0" };
    const { result } = await this.request("initialize", {
      protocolVersion,
      capabilities,
      clientInfo,
    });
    this.notify("notifications/initialized");
    return result;
  }

  /** Ends stdin, as a client does that goes away, and waits for the exit. */
  async close(): Promise<Exit> {
    this.child.stdin?.end();
    return await this.exit;
  }

  #receive(line: string): void {
    this.lines.push(line);
    let message: Json;
    try {
      message = JSON.parse(line);
    } catch {
      return; // the test looks at the lines
    }
    const key = JSON.stringify(message?.id);
    const waiting = message?.method === undefined ? this.#waiting.get(key) : undefined;
    if (waiting === undefined) {
      this.notifications.push(message);
      return;
    }
    this.#waiting.delete(key);
    waiting({ ...message, raw: line });
  }
}

/** Starts Hangar on stdio; legacy clients are past their handshake when this returns. */
export async function startStdio(options: StartOptions = {}): Promise<StdioHangar> {
  const hangar = new StdioHangar(options);
  if (hangar.era === "legacy") await hangar.initialize();
  return hangar;
}

/** One HTTP exchange. */
export interface HttpReply {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
  /** The JSON-RPC messages of the body, from JSON or from an event stream. */
  readonly messages: Json[];
}

/** Hangar on HTTP, seen by a client. */
export class HttpHangar extends Hangar {
  port = 0;
  session: string | undefined;

  constructor(options: StartOptions) {
    super(options, ["--http", "--host", "127.0.0.1", "--port", "0"]);
  }

  get origin(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  get url(): string {
    return `${this.origin}/mcp`;
  }

  /** Waits for the address on stderr. */
  async waitForUrl(): Promise<void> {
    let exited = false;
    void this.exit.then(() => {
      exited = true;
    });
    const port = await waitFor(
      "the address on stderr",
      () => {
        const found = /http:\/\/(?:127\.0\.0\.1|localhost):(\d+)\/mcp/.exec(this.stderr)?.[1];
        if (found === undefined && exited) throw new Error(`Hangar exited:\n${this.stderr}`);
        return found;
      },
      READY_MS,
    );
    this.port = Number(port);
    watchPort(this.port);
  }

  /** One HTTP request, as given; nothing is added. */
  send(
    method: string,
    path: string,
    headers: Record<string, string> = {},
    body?: string | Buffer,
  ): Promise<HttpReply> {
    return exchange(this.port, method, path, headers, body);
  }

  /** POSTs a message to /mcp with the headers every client sends; `headers` with an empty value removes one. */
  post(message: Json, headers: Record<string, string> = {}, path = "/mcp"): Promise<HttpReply> {
    const text = typeof message === "string" ? message : JSON.stringify(message);
    const all = {
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
      ...headers,
    };
    const kept = Object.entries(all).filter(([, value]) => value !== "");
    return this.send("POST", path, Object.fromEntries(kept), text);
  }

  /** The headers that a client of this era sends with `message`. */
  headersFor(message: Json): Record<string, string> {
    if (this.era === "legacy") {
      if (this.session === undefined) return {};
      return { "mcp-session-id": this.session, "mcp-protocol-version": "2025-11-25" };
    }
    const name = message.params?.name ?? message.params?.uri;
    return {
      "mcp-protocol-version": "2026-07-28",
      "mcp-method": message.method,
      ...(name === undefined ? {} : { "mcp-name": name }),
    };
  }

  override async request(
    method: string,
    params: Json = {},
    headers: Record<string, string> = {},
  ): Promise<Reply> {
    const message = { jsonrpc: "2.0", id: this.nextId(), method, params: this.paramsOf(params) };
    const reply = await this.post(message, { ...this.headersFor(message), ...headers });
    const answer = reply.messages.find(({ id }) => id === message.id);
    if (answer === undefined) {
      throw new Error(`no answer to ${method}: HTTP ${reply.status}\n${reply.text}`);
    }
    return { ...answer, raw: reply.text };
  }

  /** The legacy handshake; keeps the session. */
  async initialize(protocolVersion = "2025-11-25"): Promise<Json> {
    const clientInfo = { name: "test", version: "1.0.0" };
    const params = { protocolVersion, capabilities: {}, clientInfo };
    const message = { jsonrpc: "2.0", id: this.nextId(), method: "initialize", params };
    const reply = await this.post(message);
    const session = reply.headers["mcp-session-id"];
    if (typeof session !== "string") {
      throw new Error(`initialize gave no session: HTTP ${reply.status}\n${reply.text}`);
    }
    this.session = session;
    const initialized = { jsonrpc: "2.0", method: "notifications/initialized" };
    await this.post(initialized, this.headersFor(initialized));
    return reply.messages[0].result;
  }

  /** SIGTERM, and waits for the exit. */
  async close(): Promise<Exit> {
    this.kill("SIGTERM");
    return await this.exit;
  }
}

/** Starts Hangar on a free port of 127.0.0.1; legacy clients have a session when this returns. */
export async function startHttp(options: StartOptions = {}): Promise<HttpHangar> {
  const hangar = new HttpHangar(options);
  await hangar.waitForUrl();
  if (hangar.era === "legacy") await hangar.initialize();
  return hangar;
}

function exchange(
  port: number,
  method: string,
  path: string,
  headers: Record<string, string>,
  body?: string | Buffer,
): Promise<HttpReply> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(
      { host: "127.0.0.1", port, method, path, headers, agent: false, timeout: REPLY_MS },
      (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.on("error", reject);
        response.on("end", () => {
          const text = Buffer.concat(chunks).toString("utf8");
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            text,
            messages: messagesOf(response.headers["content-type"] ?? "", text),
          });
        });
      },
    );
    request.on("timeout", () => request.destroy(new Error(`no answer to ${method} ${path}`)));
    request.on("error", reject);
    request.end(body);
  });
}

function messagesOf(contentType: string, text: string): Json[] {
  if (contentType.startsWith("application/json")) return text === "" ? [] : [JSON.parse(text)];
  if (!contentType.startsWith("text/event-stream")) return [];
  const data = text.split(/\r?\n/).filter((line) => line.startsWith("data:"));
  return data
    .map((line) => line.slice("data:".length).trim())
    .filter(Boolean)
    .map((line) => JSON.parse(line));
}

interface CliResult extends Exit {
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs one CLI command to its end. */
export async function runCli(
  args: readonly string[],
  options: {
    env?: Record<string, string>;
    cwd?: string;
    stdin?: string;
    /** What runs instead, with all its arguments. */
    program?: string;
    /** Gets the process as soon as there is one, to signal it, say. */
    started?: (child: ChildProcess) => void;
  } = {},
): Promise<CliResult> {
  const { program } = options;
  const command = program === undefined ? [BIN, ...args] : args;
  const child = spawn(program ?? process.execPath, command, {
    cwd: options.cwd ?? tempDir(),
    env: environmentOf({ MCP_HANGAR_STATE_DIR: tempDir(), ...options.env }),
    stdio: "pipe",
  });
  cleanups.push(() => {
    child.kill("SIGKILL");
  });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  options.started?.(child);
  child.stdin.on("error", () => undefined);
  child.stdin.end(options.stdin ?? "");
  return await new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
}
