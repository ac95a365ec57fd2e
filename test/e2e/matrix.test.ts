/**
 * Official clients at official servers, directly and with Hangar in between: SDK v1 and v2 on both sides, stdio and HTTP
 * on both sides, client and server of one era. Whatever a client can see must be the same.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import {
  Client as ClientV2,
  StreamableHTTPClientTransport as HttpV2,
} from "@modelcontextprotocol/client";
import { StdioClientTransport as StdioV2 } from "@modelcontextprotocol/client/stdio";
import { Client as ClientV1 } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport as StdioV1 } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport as HttpV1 } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import {
  CreateMessageRequestSchema,
  ElicitRequestSchema,
} from "@modelcontextprotocol/sdk/types.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  BIN,
  configOf,
  type HttpHangar,
  type Json,
  startHttp,
  tempDir,
  waitFor,
} from "../harness.ts";
import { fileMarker, watchPort } from "../leaks.ts";

const { execPath } = process;
const require = createRequire(import.meta.url);
const EVERYTHING = require.resolve("@modelcontextprotocol/server-everything/dist/index.js");
const SUITE = fileURLToPath(new URL("../conformance/fixture.ts", import.meta.url));
/** server-everything takes no port but one that is named; high, so that hardly anybody else has it. */
const EVERYTHING_PORT = 46_217;

type Era = "legacy" | "modern";
type Server = "everything" | "suite";

interface Kind {
  readonly era: Era;
  readonly server: Server;
  /** How a program reaches it directly: a command, or a URL. */
  readonly direct: () => readonly string[] | string;
}

const urls = new Map<string, string>();
const KINDS: Readonly<Record<string, Kind>> = {
  "v1-stdio": { era: "legacy", server: "everything", direct: () => [execPath, EVERYTHING] },
  "v1-http": { era: "legacy", server: "everything", direct: () => urls.get("v1-http") ?? "" },
  "v2-stdio": {
    era: "legacy",
    server: "suite",
    direct: () => [execPath, SUITE, "stdio", "--era", "legacy"],
  },
  "v2-http": { era: "legacy", server: "suite", direct: () => urls.get("v2-http") ?? "" },
  "v2-stdio-modern": {
    era: "modern",
    server: "suite",
    direct: () => [execPath, SUITE, "stdio", "--era", "modern"],
  },
  "v2-http-modern": {
    era: "modern",
    server: "suite",
    direct: () => urls.get("v2-http-modern") ?? "",
  },
};

const CLIENTS = [
  ["v1", "legacy"],
  ["v2", "legacy"],
  ["v2", "modern"],
] as const;

const started: ChildProcess[] = [];
let hangar: HttpHangar;
let config: string;

function environment(): Record<string, string> {
  const [name = "", value = ""] = fileMarker().split("=");
  return { [name]: value, HOME: tempDir(), PATH: process.env["PATH"] ?? "" };
}

/** Starts an HTTP server; settles with the URL once `pattern` finds a port in what it writes. */
async function startServer(args: readonly string[], env: Json, pattern: RegExp): Promise<string> {
  const child = spawn(execPath, args, { env: { ...environment(), ...env }, stdio: "pipe" });
  started.push(child);
  let said = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      said += text;
    });
  }
  const port = await waitFor("a port", () => pattern.exec(said)?.[1], 30_000);
  watchPort(Number(port));
  return `http://localhost:${port}/mcp`;
}

beforeAll(async () => {
  const suite = (era: Era) =>
    startServer([SUITE, "http", "--port", "0", "--era", era], {}, /localhost:(\d+)/);
  const port = String(EVERYTHING_PORT);
  const all = {
    "v1-http": startServer([EVERYTHING, "streamableHttp"], { PORT: port }, /port (\d+)/),
    "v2-http": suite("legacy"),
    "v2-http-modern": suite("modern"),
  };
  for (const [name, url] of Object.entries(all)) urls.set(name, await url);
  const providers = Object.entries(KINDS).map(([name, { direct }]) => {
    const to = direct();
    return [name, typeof to === "string" ? { mode: "remote", endpoint: to } : { command: to }];
  });
  config = configOf(Object.fromEntries(providers));
  hangar = await startHttp({ config, era: "modern" });
}, 60_000);

afterAll(async () => {
  for (const child of started) {
    const ended = new Promise((resolve) => child.once("close", resolve));
    child.kill("SIGTERM");
    await ended;
  }
});

/** A client that can be asked everything. */
async function connect(sdk: "v1" | "v2", era: Era, to: readonly string[] | string): Promise<Json> {
  const info = { name: "matrix", version: "1.0.0" };
  const capabilities = {
    roots: {},
    sampling: { context: {}, tools: {} },
    elicitation: { form: {}, url: {} },
  };
  const sampled = async () => ({
    model: "test",
    role: "assistant" as const,
    content: { type: "text" as const, text: "sampled" },
  });
  const elicited = async () => ({
    action: "accept" as const,
    content: { username: "alice", email: "alice@example.com", confirm: true },
  });
  const options = {
    command: to[0] ?? "",
    args: typeof to === "string" ? [] : to.slice(1),
    env: environment(),
    stderr: "ignore" as const,
  };
  if (sdk === "v1") {
    const client = new ClientV1(info, { capabilities });
    client.setRequestHandler(CreateMessageRequestSchema, sampled);
    client.setRequestHandler(ElicitRequestSchema, elicited);
    const transport = typeof to === "string" ? new HttpV1(new URL(to)) : new StdioV1(options);
    await client.connect(transport);
    return client;
  }
  const mode = era === "legacy" ? "legacy" : { pin: "2026-07-28" };
  const client = new ClientV2(info, { capabilities, versionNegotiation: { mode } });
  client.setRequestHandler("sampling/createMessage", sampled);
  client.setRequestHandler("elicitation/create", elicited);
  await client.connect(typeof to === "string" ? new HttpV2(new URL(to)) : new StdioV2(options));
  return client;
}

/** What comes of `look`, or how it fails. */
async function outcome(look: () => Promise<unknown>): Promise<Json> {
  try {
    return await look();
  } catch (error) {
    const { code, message } = error as { code?: number; message: string };
    return { code, message };
  }
}

/** Everything that a client can see of a server and that should not change from one look to the next. */
async function tour(client: Json, sdk: "v1" | "v2", server: Server): Promise<Json> {
  const progress: number[] = [];
  const onprogress = (note: Json) => void progress.push(note.progress);
  const call = (name: string, args: Json = {}, options: Json = {}) =>
    outcome(() =>
      sdk === "v1"
        ? client.callTool({ name, arguments: args }, undefined, options)
        : client.callTool({ name, arguments: args }, options),
    );
  const seen: Json = {
    server: client.getServerVersion(),
    capabilities: client.getServerCapabilities(),
    instructions: client.getInstructions(),
    tools: await outcome(() => client.listTools()),
    prompts: await outcome(() => client.listPrompts()),
    resources: await outcome(() => client.listResources()),
    templates: await outcome(() => client.listResourceTemplates()),
    noTool: await call("no such tool"),
    noPrompt: await outcome(() => client.getPrompt({ name: "no such prompt" })),
    noResource: await outcome(() => client.readResource({ uri: "none://such" })),
  };
  const resource = seen.resources.resources[0].uri;
  seen.read = await outcome(() => client.readResource({ uri: resource }));
  if (server === "everything") {
    seen.sum = await call("get-sum", { a: 1.5, b: 2 });
    seen.echo = await call("echo", { message: "grüße \u2028 \ud83d\ude00" });
    seen.image = await call("get-tiny-image");
    seen.badArguments = await call("get-sum", { a: "x" });
    seen.long = await call(
      "trigger-long-running-operation",
      { duration: 0.2, steps: 3 },
      { onprogress },
    );
    seen.prompt = await outcome(() => client.getPrompt({ name: "simple-prompt" }));
    seen.sampling = await call("trigger-sampling-request", { prompt: "hello" });
  } else {
    seen.text = await call("test_simple_text");
    seen.mixed = await call("test_multiple_content_types");
    seen.failed = await call("test_error_handling");
    seen.progress = await call("test_tool_with_progress", {}, { onprogress });
    seen.prompt = await outcome(() =>
      client.getPrompt({ name: "test_prompt_with_arguments", arguments: { arg1: "a", arg2: "b" } }),
    );
    seen.sampling = await call("test_sampling", { prompt: "hello" });
    seen.elicitation = await call("test_elicitation", { message: "who?" });
    seen.asked = await call("test_input_required_result_elicitation");
  }
  // The SDKs may drop the last one, when it is read together with the answer.
  expect(progress.length).toBeGreaterThan(0);
  expect(progress).toEqual(progress.toSorted((a, b) => a - b));
  return seen;
}

describe.each(Object.entries(KINDS))("an official server, %s,", (name, { era, server, direct }) => {
  const clients = CLIENTS.filter(([, own]) => own === era);

  describe.each(clients)("seen by SDK %s, %s,", (sdk, own) => {
    test("is the same over Hangar's HTTP and stdio as directly", async () => {
      const own_stdio = [execPath, BIN, "serve", "--provider", name, "--config", config];
      const ways = {
        directly: direct(),
        http: `http://localhost:${hangar.port}/mcp/${name}`,
        stdio: [...own_stdio, "--state-dir", tempDir()],
      };
      const seen: Record<string, Json> = {};
      for (const [way, to] of Object.entries(ways)) {
        const client = await connect(sdk, own, to);
        seen[way] = await tour(client, sdk, server);
        await client.close();
      }
      const { tools, read, sampling } = seen["directly"];
      expect(tools.tools.length).toBeGreaterThan(3);
      expect(read.contents).toHaveLength(1);
      // The modern suite has no tool that asks in the legacy way.
      if (era === "legacy") expect(JSON.stringify(sampling)).toContain("sampled");
      expect(seen["http"]).toEqual(seen["directly"]);
      expect(seen["stdio"]).toEqual(seen["directly"]);
    }, 60_000);
  });
});
