/** Programs that we did not write, on both sides of Hangar: published servers, the official SDKs, the Inspector. */
import { spawn } from "node:child_process";
import { readFileSync, realpathSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import {
  Client as ClientV2,
  StreamableHTTPClientTransport as HttpV2,
} from "@modelcontextprotocol/client";
import { StdioClientTransport as StdioV2 } from "@modelcontextprotocol/client/stdio";
import { AjvJsonSchemaValidator as ValidatorV2 } from "@modelcontextprotocol/client/validators/ajv";
import { Client as ClientV1 } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport as StdioV1 } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport as HttpV1 } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { AjvJsonSchemaValidator as ValidatorV1 } from "@modelcontextprotocol/sdk/validation/ajv";
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from "vitest";
import {
  BIN,
  configOf,
  fixture,
  type HttpHangar,
  type Json,
  startHttp,
  tempDir,
  waitFor,
} from "../harness.ts";
import { fileMarker } from "../leaks.ts";
import { findProcesses, isAlive } from "../processes.ts";

const require = createRequire(import.meta.url);
const { execPath } = process;
const EVERYTHING = [
  execPath,
  require.resolve("@modelcontextprotocol/server-everything/dist/index.js"),
];
const FILESYSTEM = [
  execPath,
  require.resolve("@modelcontextprotocol/server-filesystem/dist/index.js"),
];
const MEMORY = [execPath, require.resolve("@modelcontextprotocol/server-memory/dist/index.js")];
const INSPECTOR = join(
  require.resolve("@modelcontextprotocol/inspector/package.json"),
  "../clients/launcher/build/index.js",
);

const REGISTRY_TOOLS = [
  "registry_list",
  "registry_start",
  "registry_stop",
  "registry_invoke",
  "registry_tools",
  "registry_details",
  "registry_health",
];

type Sdk = "v1" | "v2";
type Era = "legacy" | "modern";
type Front = "stdio" | "HTTP";

/** Every official client there is: SDK, era it is told to speak, front it uses. */
const CLIENTS = (["stdio", "HTTP"] as const).flatMap((front): [Sdk, Era, Front][] => [
  ["v1", "legacy", front],
  ["v2", "legacy", front],
  ["v2", "modern", front],
]);

interface Options {
  readonly signal?: AbortSignal;
  readonly onprogress?: (progress: Json) => void;
}

/** A client of one of the SDKs, connected; the same words for both. */
interface Outsider {
  readonly sdk: Sdk;
  /** The protocol revision that was agreed on. */
  readonly version: string | undefined;
  readonly serverName: string | undefined;
  /** The process that the client started, if it did. */
  readonly pid: number | undefined;
  /** tools/list, through the SDK. */
  listTools(): Promise<Json[]>;
  /** Every message as it arrived since the connection stands, with what the SDK leaves out or drops. */
  received(): Json[];
  /** tools/call, through the SDK, which checks the result against the output schema it has listed. */
  call(name: string, args?: Json, options?: Options): Promise<Json>;
  invoke(provider: string, tool: string, args?: Json, options?: Options): Promise<Json>;
  details(provider: string): Promise<Json>;
  /** Ends the HTTP session, if there is one, as the SDK does it. */
  endSession(): Promise<void>;
  close(): Promise<void>;
}

/** The environment of what a client starts: beside the marker, what the SDKs hand on by themselves. */
function environment(): Record<string, string> {
  const [name = "", value = ""] = fileMarker().split("=");
  return { [name]: value, HOME: tempDir() };
}

/** The command of a Hangar on stdio. */
function hangarCommand(config: string): string[] {
  return [execPath, BIN, "serve", "--config", config, "--state-dir", tempDir()];
}

/** Connects a client of that SDK to the server that `to` starts, or that listens at the URL `to`. */
/** What Hangar declares to providers that many clients share: some list other tools to clients that can do less. */
const CAPABILITIES = {
  roots: { listChanged: true },
  sampling: { context: {}, tools: {} },
  elicitation: { form: {}, url: {} },
};

async function connect(sdk: Sdk, era: Era, to: readonly string[] | string): Promise<Outsider> {
  const info = { name: `sdk-${sdk}`, version: "1.0.0" };
  const stdio = { command: to[0] ?? "", args: to.slice(1) as string[], env: environment() };
  const options = { ...stdio, stderr: "ignore" as const, cwd: tempDir() };
  let transport: Json;
  let client: Json;
  if (sdk === "v1") {
    transport = typeof to === "string" ? new HttpV1(new URL(to)) : new StdioV1(options);
    client = new ClientV1(info, { capabilities: CAPABILITIES });
  } else {
    const mode = era === "legacy" ? "legacy" : { pin: "2026-07-28" };
    transport = typeof to === "string" ? new HttpV2(new URL(to)) : new StdioV2(options);
    client = new ClientV2(info, { versionNegotiation: { mode }, capabilities: CAPABILITIES });
  }
  // SDK v1 tells the revision that was agreed on to its transport only.
  let version: string | undefined;
  const setVersion = transport.setProtocolVersion?.bind(transport);
  transport.setProtocolVersion = (agreed: string) => {
    version = agreed;
    setVersion?.(agreed);
  };
  await client.connect(transport);
  const spy = vi.spyOn(transport, "onmessage");
  const call = (name: string, args: Json = {}, more: Options = {}): Promise<Json> => {
    const params = { name, arguments: args };
    return sdk === "v1" ? client.callTool(params, undefined, more) : client.callTool(params, more);
  };
  return {
    sdk,
    version,
    serverName: client.getServerVersion()?.name,
    pid: transport.pid ?? undefined,
    listTools: async () => (await client.listTools()).tools,
    received: () => spy.mock.calls.map(([message]: Json[]) => message),
    call,
    invoke: (provider, tool, args = {}, more = {}) =>
      call("registry_invoke", { provider, tool, arguments: args }, more),
    details: async (provider) => (await call("registry_details", { provider })).structuredContent,
    endSession: async () => transport.terminateSession?.(),
    close: () => client.close(),
  };
}

interface Site {
  readonly config: string;
  readonly files: string;
  readonly memoryFile: string;
}

/** A configuration of all the providers here, with folders of their own. */
function site(): Site {
  const files = realpathSync(tempDir());
  const memoryFile = join(tempDir(), "memory.jsonl");
  const config = configOf({
    everything: { command: EVERYTHING, description: "Everything there is to test." },
    filesystem: { command: [...FILESYSTEM, files] },
    memory: { command: MEMORY, env: { MEMORY_FILE_PATH: memoryFile } },
    modern: { command: fixture("official", "modern") },
    legacy: { command: fixture("official"), protocol: "legacy" },
    small: { command: fixture("add") },
  });
  return { config, files, memoryFile };
}

const PROVIDERS = ["everything", "filesystem", "memory", "modern", "legacy"];

/** What each provider lists to a client that is connected to it directly. */
const direct = new Map<string, Json[]>();
/** One Hangar for all clients over HTTP; over stdio each starts its own. */
let http: HttpHangar;
let httpPlace: Site;

beforeAll(async () => {
  httpPlace = site();
  http = await startHttp({ config: httpPlace.config, era: "modern" });
  const commands: [string, Sdk, Era, string[]][] = [
    ["everything", "v1", "legacy", EVERYTHING],
    ["filesystem", "v1", "legacy", [...FILESYSTEM, realpathSync(tempDir())]],
    ["memory", "v1", "legacy", MEMORY],
    ["modern", "v2", "modern", fixture("official", "modern")],
    ["legacy", "v2", "legacy", fixture("official")],
  ];
  await Promise.all(
    commands.map(async ([name, sdk, era, command]) => {
      const client = await connect(sdk, era, command);
      await client.listTools();
      direct.set(
        name,
        client.received().flatMap(({ result }) => result?.tools ?? []),
      );
      await client.close();
    }),
  );
  // Six large programs start at once here.
}, 60_000);

/** The ids of the processes of this file, Hangars and providers. */
function ownPids(): number[] {
  return findProcesses(fileMarker()).map(({ pid }) => pid);
}

function startAll(client: Outsider, providers: readonly string[]): Promise<Json[]> {
  return Promise.all(providers.map((provider) => client.call("registry_start", { provider })));
}

describe.each(CLIENTS)("SDK %s, %s, over %s", (sdk, era, front) => {
  let client: Outsider;
  let place: Site;
  let others: number[];

  beforeAll(async () => {
    others = ownPids();
    place = front === "stdio" ? site() : httpPlace;
    client = await connect(sdk, era, front === "stdio" ? hangarCommand(place.config) : http.url);
  });

  afterAll(() => client.close());

  test("agrees on the newest revision of its era", () => {
    expect(client.serverName).toBe("mcp-hangar");
    expect(client.version).toBe(era === "modern" ? "2026-07-28" : "2025-11-25");
  });

  test("lists the seven registry tools, each with a schema it can use", async () => {
    const tools = await client.listTools();
    expect(tools.map(({ name }) => name)).toEqual(REGISTRY_TOOLS);
    for (const tool of tools) {
      expect(tool.inputSchema.type).toBe("object");
      expect(tool.description.length).toBeGreaterThan(20);
    }
  });

  test("starts all providers at once, and sees them ready in registry_list", async () => {
    const started = await startAll(client, PROVIDERS);
    for (const [n, { structuredContent }] of started.entries()) {
      const names = direct.get(PROVIDERS[n] ?? "")?.map(({ name }) => name);
      expect(structuredContent).toMatchObject({ provider: PROVIDERS[n], state: "ready" });
      expect(structuredContent.tools).toEqual(names);
    }
    const { providers } = (await client.call("registry_list")).structuredContent;
    expect(providers.map(({ provider }: Json) => provider)).toEqual([...PROVIDERS, "small"]);
    for (const { state } of providers.slice(0, PROVIDERS.length)) expect(state).toBe("ready");
    const eras = await Promise.all(
      PROVIDERS.map(async (provider) => (await client.details(provider)).meta.protocol),
    );
    expect(eras).toEqual(["legacy", "legacy", "legacy", "modern", "legacy"]);
  });

  test.each(PROVIDERS)("sees the tools of %s as a client of its own does", async (provider) => {
    const { structuredContent } = await client.call("registry_tools", { provider });
    expect(direct.get(provider)?.length).toBeGreaterThan(3);
    expect(structuredContent.tools).toEqual(direct.get(provider));
  });

  test("calls server-everything", async () => {
    const echo = await client.invoke("everything", "echo", { message: "Grüße ✓" });
    expect(echo.content).toEqual([{ type: "text", text: "Echo: Grüße ✓" }]);
    const sum = await client.invoke("everything", "get-sum", { a: 5, b: 3 });
    expect(sum.content).toEqual([{ type: "text", text: "The sum of 5 and 3 is 8." }]);
    const weather = await client.invoke("everything", "get-structured-content", {
      location: "New York",
    });
    expect(weather.structuredContent).toEqual({
      temperature: 33,
      conditions: "Cloudy",
      humidity: 82,
    });
    const image = await client.invoke("everything", "get-tiny-image");
    const { data } = image.content.find(({ type }: Json) => type === "image");
    expect(Buffer.from(data, "base64").subarray(1, 4).toString()).toBe("PNG");
  });

  test("writes, reads and lists a file through server-filesystem", async () => {
    const name = `${sdk}-${era}.txt`;
    const path = join(place.files, name);
    const content = 'two\nlines, "quoted" \u0001 \u{1F680}';
    const written = await client.invoke("filesystem", "write_file", { path, content });
    expect(written.isError).not.toBe(true);
    expect(readFileSync(path, "utf8")).toBe(content);
    const read = await client.invoke("filesystem", "read_text_file", { path });
    expect(read.structuredContent).toEqual({ content });
    const listed = await client.invoke("filesystem", "list_directory", { path: place.files });
    expect(listed.content[0].text.split("\n")).toContain(`[FILE] ${name}`);
  });

  test("keeps entities in server-memory", async () => {
    const name = `client ${sdk} ${era}`;
    const entities = [{ name, entityType: "program", observations: ["calls", "ünïcode"] }];
    const created = await client.invoke("memory", "create_entities", { entities });
    expect(created.structuredContent).toEqual({ entities });
    const opened = await client.invoke("memory", "open_nodes", { names: [name] });
    expect(opened.structuredContent).toEqual({ entities, relations: [] });
    expect(readFileSync(place.memoryFile, "utf8")).toContain(`"name":"${name}"`);
  });

  test.each(["modern", "legacy"])("calls a %s provider of the official SDK", async (provider) => {
    const { structuredContent, content } = await client.invoke(provider, "add", { a: 5, b: 3 });
    expect(structuredContent).toEqual({ sum: 8 });
    expect(content).toEqual([{ type: "text", text: '{"sum":8}' }]);
  });

  test("gets the provider's own failures as they are", async () => {
    const path = "/etc/hostname";
    const denied = await client.invoke("filesystem", "read_text_file", { path });
    expect(denied.isError).toBe(true);
    expect(denied.content[0].text).toContain("Access denied");
    for (const provider of ["modern", "legacy"]) {
      const refused = await client.invoke(provider, "add", { a: "five", b: 3 });
      expect(refused.isError).toBe(true);
      expect(refused.content[0].text).toContain("expected number");
    }
  });

  test("gets Hangar's failures as results that it can read", async () => {
    const unknown = await client.invoke("everything", "no-such-tool");
    expect(unknown.isError).toBe(true);
    expect(unknown.structuredContent).toMatchObject({
      code: "tool_not_found",
      type: "ToolNotFoundError",
    });
    await expect(client.call("registry_nothing")).rejects.toMatchObject({
      code: -32602,
      data: { code: "invalid_params" },
    });
  });

  test("finds every result of a registry tool, failures too, true to its output schema", async () => {
    const schemas = new Map((await client.listTools()).map((tool) => [tool.name, tool]));
    const validator = sdk === "v1" ? new ValidatorV1() : new ValidatorV2();
    const calls: [string, Json, string?][] = [
      ["registry_list", {}],
      ["registry_list", { state_filter: "ready" }],
      ["registry_list", { state_filter: "asleep" }, "invalid_arguments"],
      ["registry_details", { provider: "everything" }],
      ["registry_details", { provider: "nobody" }, "provider_not_found"],
      ["registry_tools", { provider: "modern" }],
      ["registry_tools", { provider: "nobody" }, "provider_not_found"],
      ["registry_stop", { provider: "small" }],
      ["registry_stop", { provider: "nobody" }, "provider_not_found"],
      ["registry_details", { provider: "small" }],
      ["registry_start", { provider: "small" }],
      ["registry_start", {}, "invalid_arguments"],
      ["registry_health", {}],
      ["registry_health", { provider: "small" }, "invalid_arguments"],
    ];
    for (const [name, args, code] of calls) {
      const result = await client.call(name, args);
      const check = validator.getValidator(schemas.get(name)?.outputSchema);
      expect(check(result.structuredContent), `${name} ${JSON.stringify(args)}`).toMatchObject({
        valid: true,
      });
      expect(result.structuredContent.code).toBe(code);
      expect(result.isError === true).toBe(code !== undefined);
      expect(JSON.parse(result.content[0].text)).toEqual(result.structuredContent);
    }
    const validated = REGISTRY_TOOLS.filter((name) => schemas.get(name)?.outputSchema);
    expect(validated).toEqual(REGISTRY_TOOLS.filter((name) => name !== "registry_invoke"));
  });

  test("makes many calls at once, and each gets its own answer", async () => {
    const calls = Array.from({ length: 25 }, (_, n) => [
      client.invoke("everything", "get-sum", { a: n, b: 1000 }),
      client.invoke("modern", "add", { a: n, b: 1000 }),
      client.invoke("legacy", "add", { a: n, b: 1000 }),
    ]);
    for (const [n, [published, modern, legacy]] of (
      await Promise.all(calls.map((three) => Promise.all(three)))
    ).entries()) {
      expect(published.content[0].text).toBe(`The sum of ${n} and 1000 is ${n + 1000}.`);
      expect(modern.structuredContent).toEqual({ sum: n + 1000 });
      expect(legacy.structuredContent).toEqual({ sum: n + 1000 });
    }
  });

  test.each([
    ["everything", "trigger-long-running-operation", { duration: 0.2, steps: 4 }],
    ["modern", "count", { n: 4 }],
    ["legacy", "count", { n: 4 }],
  ])("is told the progress of %s", async (provider, tool, args) => {
    const steps = [1, 2, 3, 4];
    const seen: Json[] = [];
    const before = client.received().length;
    const onprogress = ({ progress, total }: Json) => seen.push({ progress, total });
    const result = await client.invoke(provider, tool, args, { onprogress });
    expect(result.isError).not.toBe(true);
    const arrived = client.received().slice(before);
    expect(arrived.map(({ params }) => params?.progress)).toEqual([...steps, undefined]);
    // The SDKs drop what they read together with the answer.
    const told = steps.slice(0, Math.max(1, seen.length));
    expect(seen).toEqual(told.map((progress) => ({ progress, total: 4 })));
  });

  test.each(["modern", "legacy"])("cancels a call, and %s is told", async (provider) => {
    const abort = new AbortController();
    const { signal } = abort;
    const [mine, other] = [`mine, ${sdk} ${era}`, `other, ${sdk} ${era}`];
    const call = client.invoke(provider, "wait", { name: mine, ms: 30_000 }, { signal });
    const otherCall = client.invoke(provider, "wait", { name: other, ms: 200 });
    await waitFor("the call", async () => (await client.details(provider)).in_flight > 0);
    abort.abort("changed my mind");
    await expect(call).rejects.toThrow("changed my mind");
    expect((await otherCall).structuredContent).toEqual({ waited: 200 });
    await waitFor("the cancellation", async () => {
      const { structuredContent } = await client.invoke(provider, "cancelled");
      expect(structuredContent.cancelled).not.toContain(other);
      return structuredContent.cancelled.includes(mine);
    });
  });

  if (front === "stdio") {
    test("takes Hangar and every provider with it", async () => {
      await startAll(client, [...PROVIDERS, "small"]);
      const started = ownPids().filter((pid) => !others.includes(pid));
      expect(started).toHaveLength(7);
      expect(started).toContain(client.pid);
      const began = performance.now();
      await client.close();
      // The SDKs wait two seconds before they use a signal, and two more before they kill.
      expect(performance.now() - began).toBeLessThan(1900);
      expect(started.filter(isAlive)).toEqual([]);
    });
  } else {
    test("cancels a call of server-everything, and Hangar waits for it no longer", async () => {
      const abort = new AbortController();
      const args = { duration: 30, steps: 1 };
      const { signal } = abort;
      const call = client.invoke("everything", "trigger-long-running-operation", args, { signal });
      await waitFor("the call", async () => (await client.details("everything")).in_flight === 1);
      abort.abort("changed my mind");
      await expect(call).rejects.toThrow("changed my mind");
      await waitFor("its end", async () => (await client.details("everything")).in_flight === 0);
      expect((await client.details("everything")).state).toBe("ready");
    });

    test("ends its own calls by going away, and no others", async () => {
      const leaving = await connect(sdk, era, http.url);
      onTestFinished(() => leaving.close());
      const name = `leaving, ${sdk} ${era}`;
      const call = leaving.invoke("modern", "wait", { name, ms: 30_000 });
      const failed = expect(call).rejects.toThrow();
      const staying = client.invoke("modern", "wait", { name: "staying", ms: 300 });
      await waitFor("the call", async () => (await client.details("modern")).in_flight > 0);
      await leaving.endSession();
      await leaving.close();
      await failed;
      expect((await staying).structuredContent).toEqual({ waited: 300 });
      const { cancelled } = (await client.invoke("modern", "cancelled")).structuredContent;
      expect(cancelled).toContain(name);
    });
  }
});

describe.each([
  ["legacy", "stdio"],
  ["legacy", "HTTP"],
  ["modern", "stdio"],
  ["modern", "HTTP"],
] as const)("the Inspector's CLI, %s, over %s", (era, front) => {
  let target: string[];
  let home: string;

  beforeAll(() => {
    home = tempDir();
    // Behind `--` is what belongs to the command.
    target =
      front === "stdio"
        ? ["-e", fileMarker(), "--", ...hangarCommand(site().config)]
        : ["--transport", "http", "--server-url", http.url];
  });

  /** Runs the Inspector once; the result is what it printed on stdout. */
  function inspect(...args: string[]): Promise<{ code: number | null; result: Json }> {
    const flags = ["--cli", "--quiet", "--format", "json", "--protocol-era", era, ...args];
    const { PATH = "" } = process.env;
    const [name = "", value = ""] = fileMarker().split("=");
    const child = spawn(execPath, [INSPECTOR, ...flags, ...target], {
      cwd: home,
      env: { PATH, HOME: home, [name]: value },
      stdio: ["ignore", "pipe", "pipe"],
    });
    onTestFinished(() => void child.kill("SIGKILL"));
    let out = "";
    let errors = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => (out += text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => (errors += text));
    return new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code) => {
        if (out === "") reject(new Error(`the Inspector printed nothing:\n${errors}`));
        else resolve({ code, result: JSON.parse(out).result });
      });
    });
  }

  const call = (tool: string, args: Json) =>
    inspect(
      "--method",
      "tools/call",
      "--tool-name",
      tool,
      "--tool-args-json",
      JSON.stringify(args),
    );

  test("lists the registry tools, and finds nothing wrong with their schemas", async () => {
    const { code, result } = await inspect("--method", "tools/list", "--strict");
    expect(result.tools.map(({ name }: Json) => name)).toEqual(REGISTRY_TOOLS);
    expect(code).toBe(0);
  });

  test("calls a published provider", async () => {
    const args = { provider: "everything", tool: "get-sum", arguments: { a: 5, b: 3 } };
    const { code, result } = await call("registry_invoke", args);
    expect(result.content).toEqual([{ type: "text", text: "The sum of 5 and 3 is 8." }]);
    expect(code).toBe(0);
  });

  if (front === "HTTP") {
    test("is told of a failure", async () => {
      const { code, result } = await call("registry_tools", { provider: "nobody" });
      expect(result.structuredContent).toMatchObject({ code: "provider_not_found" });
      expect(code).not.toBe(0);
    });
  }
});

test("SIGTERM to Hangar over HTTP ends every provider that these clients have used", async () => {
  await Promise.all(PROVIDERS.map((provider) => http.callTool("registry_start", { provider })));
  const started = ownPids();
  expect(started.length).toBeGreaterThan(PROVIDERS.length);
  expect(await http.close()).toEqual({ code: 0, signal: null });
  expect(started.filter(isAlive)).toEqual([]);
});
