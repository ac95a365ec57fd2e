/** One provider behind Hangar, as if the client were connected to it directly: the legacy era, on every front. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { type ClientRequest, type IncomingMessage, request as httpRequest } from "node:http";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import {
  configOf,
  fixture,
  type HttpHangar,
  type Json,
  startHttp,
  StdioHangar,
  tempDir,
  waitFor,
} from "../harness.ts";

const TRANSPORTS = ["Streamable HTTP", "HTTP+SSE", "stdio"] as const;
type Transport = (typeof TRANSPORTS)[number];

const TOKEN = "a-token-of-at-least-thirty-two-characters";
const EVERYTHING =
  '{"sampling":{"tools":{}},"elicitation":{"form":{},"url":{}},"roots":{"listChanged":true}}';
/** What a `say` writes to answer its own call. */
const DONE = '{"jsonrpc":"2.0","id":%id%,"result":{"content":[]}}';
const ODD_INIT =
  '{ "protocolVersion":"2025-11-25","capabilities":{"tools":{},"vendor":{"big":9007199254740993}},' +
  '"serverInfo":{"name":"caf\\u00e9","version":"1","title":"A \\/ B"},"instructions":"Say\\n\\"hi\\"","unknown":[1.0,-0,1e400]}';

/** Providers with something special about them; everything else is a plain puppet from the pool. */
const SPECIAL: Record<string, Json> = {
  odd: { env: { PUPPET_INIT: ODD_INIT } },
  older: { env: { PUPPET_INIT: ODD_INIT.replace("2025-11-25", "2025-06-18") } },
  filtered: { tools: { allow: ["s*", "t*"], deny: ["t2"] } },
  hasty: { timeout_s: 1 },
  "held-subscribe": { env: { PUPPET_HOLD: "resources/subscribe" } },
  "held-level": { env: { PUPPET_HOLD: "logging/setLevel" } },
  crashes: { command: fixture("crash-on-start") },
  refuses: { command: fixture("errors-on-initialize") },
  sleepy: { idle_ttl_s: 1 },
};
/** How long a client waits for a message. */
const WAIT_MS = 8000;
const POOL = Array.from({ length: 90 }, (_, n) => `p${n}`);

let dir: string;
let config: string;
let hangar: HttpHangar;
const unused = [...POOL];
const used: string[] = [];
const peers: Peer[] = [];

beforeAll(async () => {
  dir = tempDir();
  const entries = [...POOL, ...Object.keys(SPECIAL)].map((name) => {
    const { env, ...rest } = SPECIAL[name] ?? {};
    const files = { PUPPET_LOG: logOf(name), PUPPET_TOOLS: toolsOf(name) };
    toolsAre(name, ["say"]);
    return [name, { command: fixture("puppet"), env: { ...files, ...env }, ...rest }];
  });
  config = configOf(Object.fromEntries(entries));
  hangar = await startHttp({ config, env: { MCP_HANGAR_TOKEN: TOKEN } });
});

afterEach(async () => {
  for (const peer of peers.splice(0)) peer.close();
  await Promise.all(used.splice(0).map((provider) => stop(provider)));
});

afterAll(() => {
  for (const peer of peers.splice(0)) peer.close();
});

function logOf(provider: string): string {
  return join(dir, `${provider}.log`);
}

function toolsOf(provider: string): string {
  return join(dir, `${provider}.tools`);
}

/** From its next start or look on, the provider lists these tools, one page for each argument. */
function toolsAre(provider: string, ...pages: string[][]): void {
  const lines = pages.map((names, n) => {
    const tools = names.map((name) => ({ name, inputSchema: { type: "object" } }));
    return JSON.stringify({ tools, ...(n + 1 < pages.length ? { nextCursor: `${n + 1}` } : {}) });
  });
  writeFileSync(toolsOf(provider), lines.join("\n"));
}

/** A provider that no other test uses. */
function fresh(): string {
  const name = unused.shift();
  if (name === undefined) throw new Error("the pool of providers is too small");
  used.push(name);
  return name;
}

function special(name: string): string {
  used.push(name);
  return name;
}

async function stop(provider: string): Promise<void> {
  await hangar.callTool("registry_stop", { provider });
}

/** What the provider has received, oldest first. */
function heard(provider: string): string[] {
  const file = logOf(provider);
  return existsSync(file) ? readFileSync(file, "utf8").split("\n").filter(Boolean) : [];
}

/** The lines with this method that the provider has received. */
function heardOf(provider: string, method: string): Json[] {
  return heard(provider)
    .map((line): Json => JSON.parse(line))
    .filter((message) => message.method === method);
}

/** Waits for the provider to receive an answer to its own request. */
function heardAnswer(provider: string, id: Json): Promise<Json> {
  return waitFor(`the answer to ${id}`, () =>
    heard(provider)
      .map((line): Json => JSON.parse(line))
      .find((message) => message.id === id && message.method === undefined),
  );
}

interface Incoming {
  readonly text: string;
  readonly message: Json;
  /** `alone` for what came on the stream that belongs to no request. */
  readonly via: "request" | "alone";
}

/** One client, whatever it is connected by. */
abstract class Peer {
  readonly incoming: Incoming[] = [];
  /** Ids of requests, raw. */
  protected readonly unanswered = new Set<string>();
  /** Called at the next message. */
  readonly #looking: (() => void)[] = [];
  #lastId = 0;

  abstract open(provider: string): Promise<void>;
  /** Sends one message as it is. */
  abstract send(text: string): void;
  abstract close(): void;

  protected take(text: string, via: Incoming["via"]): void {
    this.incoming.push({ text, message: JSON.parse(text), via });
    for (const look of this.#looking.splice(0)) look();
  }

  async request(method: string, params?: string, id: Json = ++this.#lastId): Promise<Incoming> {
    const tail = params === undefined ? "" : `,"params":${params}`;
    const raw = JSON.stringify(id);
    this.unanswered.add(raw);
    this.send(`{"jsonrpc":"2.0","id":${raw},"method":${JSON.stringify(method)}${tail}}`);
    const isAnswer = (message: Json): boolean => message.id === id && !("method" in message);
    const answer = await this.waitFor(`the answer to ${method}`, isAnswer);
    this.unanswered.delete(raw);
    return answer;
  }

  /** Has the provider write `lines`; settles with the answer to the call. */
  say(lines: string[], options: { id?: Json; meta?: string; as?: string } = {}): Promise<Incoming> {
    const { id, meta, as } = options;
    const args = JSON.stringify({ lines, as });
    const _meta = meta === undefined ? "" : `,"_meta":${meta}`;
    return this.request("tools/call", `{"name":"say","arguments":${args}${_meta}}`, id);
  }

  /** The same, through registry_invoke. */
  invoke(provider: string, lines: string[], meta?: string): Promise<Incoming> {
    const args = JSON.stringify({ provider, tool: "say", arguments: { lines, as: "inner" } });
    const _meta = meta === undefined ? "" : `,"_meta":${meta}`;
    return this.request("tools/call", `{"name":"registry_invoke","arguments":${args}${_meta}}`);
  }

  notify(method: string, params: string): void {
    this.send(`{"jsonrpc":"2.0","method":"${method}","params":${params}}`);
  }

  answer(question: Incoming, member: string): void {
    this.send(`{"jsonrpc":"2.0","id":${JSON.stringify(question.message.id)},${member}}`);
  }

  async waitFor(what: string, is: (message: Json) => boolean): Promise<Incoming> {
    const late = AbortSignal.timeout(WAIT_MS);
    while (!late.aborted) {
      const found = this.incoming.find(({ message }) => is(message));
      if (found !== undefined) return found;
      await new Promise<void>((resolve) => {
        this.#looking.push(resolve);
        late.addEventListener("abort", () => resolve(), { once: true });
      });
    }
    const seen = this.incoming.map(({ text }) => text).join("\n");
    throw new Error(`waited ${WAIT_MS} ms in vain for ${what}; seen:\n${seen}`);
  }

  of(method: string): Incoming[] {
    return this.incoming.filter(({ message }) => message.method === method);
  }

  waitForMethod(method: string): Promise<Incoming> {
    return this.waitFor(method, (message) => message.method === method);
  }

  async initialize(capabilities: string, version = "2025-11-25"): Promise<Incoming> {
    const clientInfo = '{"name":"test","version":"1"}';
    const params = `{"protocolVersion":"${version}","capabilities":${capabilities},"clientInfo":${clientInfo}}`;
    const reply = await this.request("initialize", params, "hello");
    this.send('{"jsonrpc":"2.0","method":"notifications/initialized"}');
    return reply;
  }
}

class HttpPeer extends Peer {
  path = "";
  session: string | undefined;
  /** Whether the client listens to what belongs to no request. */
  listens = true;
  accept = "application/json, text/event-stream";
  token: string | undefined;
  readonly statuses: number[] = [];
  readonly #requests = new Set<ClientRequest>();

  override async open(provider: string): Promise<void> {
    this.path = provider === "" ? "/mcp" : `/mcp/${provider}`;
  }

  override async initialize(capabilities: string, version?: string): Promise<Incoming> {
    const reply = await super.initialize(capabilities, version);
    const greeted = this.session !== undefined && reply.message.error === undefined;
    if (this.listens && greeted) await this.listen();
    return reply;
  }

  listen(): Promise<void> {
    return new Promise((resolve, reject) => {
      const headers = { accept: "text/event-stream", ...this.#headers() };
      this.#exchange("GET", this.path, headers, undefined, (response) => {
        if (response.statusCode === 200) resolve();
        else reject(new Error(`GET ${this.path}: ${response.statusCode}`));
      });
    });
  }

  override send(text: string): void {
    const headers = {
      "content-type": "application/json",
      accept: this.accept,
      ...this.#headers(),
    };
    this.#exchange("POST", this.path, headers, text, (response) => {
      this.statuses.push(response.statusCode ?? 0);
      const session = response.headers["mcp-session-id"];
      if (typeof session === "string") this.session = session;
    });
  }

  /** Ends the session, as a client does that goes away for good. */
  async leave(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#exchange("DELETE", this.path, this.#headers(), undefined, () => resolve());
    });
  }

  override close(): void {
    for (const request of this.#requests) request.destroy();
  }

  #headers(): Record<string, string> {
    const { token, session } = this;
    return {
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      ...(session === undefined
        ? {}
        : { "mcp-session-id": session, "mcp-protocol-version": "2025-11-25" }),
    };
  }

  #exchange(
    method: string,
    path: string,
    headers: Record<string, string>,
    body: string | undefined,
    answered: (response: IncomingMessage) => void,
  ): void {
    const { port } = hangar;
    const options = { host: "127.0.0.1", port, method, path, headers, agent: false };
    const request = httpRequest(options, (response) => {
      answered(response);
      readMessages(response, (text) => this.take(text, method === "GET" ? "alone" : "request"));
    });
    request.on("error", () => undefined);
    request.on("close", () => this.#requests.delete(request));
    this.#requests.add(request);
    request.end(body);
  }
}

class SsePeer extends Peer {
  #stream: ClientRequest | undefined;
  #endpoint = "";

  override open(provider: string): Promise<void> {
    return new Promise((resolve) => {
      const { port } = hangar;
      const path = provider === "" ? "/sse" : `/sse/${provider}`;
      const options = { host: "127.0.0.1", port, path, agent: false };
      this.#stream = httpRequest(options, (response) => {
        readMessages(response, (text) => {
          if (this.#endpoint !== "") return this.take(text, "alone");
          this.#endpoint = text;
          resolve();
        });
      });
      this.#stream.on("error", () => undefined).end();
    });
  }

  override send(text: string): void {
    void hangar.send("POST", this.#endpoint, { "content-type": "application/json" }, text);
  }

  override close(): void {
    this.#stream?.destroy();
  }
}

class StdioPeer extends Peer {
  #hangar: StdioHangar | undefined;

  override async open(provider: string): Promise<void> {
    this.#hangar = new StdioHangar({ config, args: ["--provider", provider] });
    const pieces: string[] = [];
    this.#hangar.child.stdout?.on("data", (chunk: string) => {
      const [first = "", ...lines] = chunk.split("\n");
      pieces.push(first);
      for (const line of lines) {
        this.take(pieces.splice(0).join(""), "request");
        pieces.push(line);
      }
    });
  }

  override send(text: string): void {
    this.#hangar?.send(text);
  }

  override close(): void {
    // Hangar would wait for them.
    for (const id of this.unanswered) this.notify("notifications/cancelled", `{"requestId":${id}}`);
    this.#hangar?.child.stdin?.end();
  }
}

/** Calls `take` with each event's data, or with the whole body when it is no event stream. */
function readMessages(response: IncomingMessage, take: (text: string) => void): void {
  const isStream = response.headers["content-type"]?.startsWith("text/event-stream") === true;
  let text = "";
  response.setEncoding("utf8");
  response.on("error", () => undefined);
  response.on("data", (chunk: string) => {
    text += chunk;
    if (!isStream) return;
    const events = text.split("\n\n");
    text = events.pop() ?? "";
    for (const event of events) {
      const data = event.split("\n").filter((line) => line.startsWith("data:"));
      const joined = data.map((line) => line.slice(5).trimStart()).join("\n");
      if (joined !== "") take(joined);
    }
  });
  response.on("end", () => {
    if (!isStream && text !== "") take(text);
  });
}

function peerBy(transport: Transport): Peer {
  const peer =
    transport === "stdio"
      ? new StdioPeer()
      : transport === "HTTP+SSE"
        ? new SsePeer()
        : new HttpPeer();
  peers.push(peer);
  return peer;
}

async function connect(
  provider: string,
  transport: Transport,
  capabilities = EVERYTHING,
): Promise<Peer> {
  const peer = peerBy(transport);
  await peer.open(provider);
  await peer.initialize(capabilities);
  return peer;
}

/** A client over Streamable HTTP; `""` is Hangar itself. */
async function visit(provider: string, capabilities = EVERYTHING): Promise<HttpPeer> {
  return (await connect(provider, "Streamable HTTP", capabilities)) as HttpPeer;
}

/** A client of another identity than those without a token. */
async function visitWithToken(provider: string): Promise<HttpPeer> {
  const peer = peerBy("Streamable HTTP") as HttpPeer;
  peer.token = TOKEN;
  await peer.open(provider);
  await peer.initialize(EVERYTHING);
  return peer;
}

function question(method: string, params: Json, id: Json = "q"): string {
  return JSON.stringify({ jsonrpc: "2.0", id, method, params });
}

function note(method: string, params?: Json): string {
  return JSON.stringify({ jsonrpc: "2.0", method, params });
}

const ELICIT = { message: "Your name?", requestedSchema: { type: "object", properties: {} } };

describe.each(TRANSPORTS)("over %s", (transport) => {
  test("initialize is answered by the provider, byte for byte", async () => {
    const peer = peerBy(transport);
    await peer.open(special("odd"));
    const { text } = await peer.initialize("{}");
    expect(text).toBe(`{"jsonrpc":"2.0","id":"hello","result":${ODD_INIT}}`);
  });

  test("params and results pass byte for byte, whatever the method", async () => {
    const provider = fresh();
    const peer = await connect(provider, transport);
    const params =
      '{"big":9007199254740993, "one":1.0,"huge":1e400,"zero":-0,"e":"caf\\u00e9 \\/ \\ud800 😀","arguments":{"a":1,"a":2},' +
      '"unknown":{"x":[1.50,2E+3,{ }]},"_meta":{"vendor/x":1.0,"traceparent":"00-1-2-01"}}';
    const { text } = await peer.request("vendor/thing", params);
    expect(text).toContain(`"method":"vendor/thing","params":${params}}}}`);
    expect(heard(provider).at(-1)).toContain(`,"method":"vendor/thing","params":${params}}`);
    const result =
      '{"content":[{"type":"hologram","depth":1.0}],"structuredContent":{"twice":1,"twice":2,"n":9007199254740993},' +
      '"isError":false,"_meta":{"v":-0}, "vendor":[1e400,"\\u00e9"]}';
    const said = await peer.say([`{"jsonrpc":"2.0","result":${result},"id":%id%}`], { id: "x" });
    expect(said.text).toBe(`{"jsonrpc":"2.0","id":"x","result":${result}}`);
    const error = '{"code":-32002,"message":"caf\\u00e9","data":{"n":1.0,"n":2,"u":"x:\\/"},"v":1}';
    const failed = await peer.say([`{"jsonrpc":"2.0","id":%id%,"error":${error}}`], { id: 1.5 });
    expect(failed.text).toBe(`{"jsonrpc":"2.0","id":1.5,"error":${error}}`);
  });

  test("prompts, resources, templates, completion and empty requests pass", async () => {
    const peer = await connect(fresh(), transport);
    for (const method of [
      "prompts/list",
      "prompts/get",
      "resources/list",
      "resources/read",
      "resources/templates/list",
      "completion/complete",
    ]) {
      const params = `{"of":"${method}"}`;
      const { message } = await peer.request(method, params);
      expect(message.result.line).toMatchObject({ method, params: { of: method } });
    }
    expect((await peer.request("prompts/list")).message.result.line).not.toHaveProperty("params");
  });

  test("unknown notifications pass in both directions", async () => {
    const provider = fresh();
    const peer = await connect(provider, transport);
    const params = '{"n":9007199254740993,"a":{"b":1,"b":2}}';
    peer.notify("notifications/vendor/up", params);
    await waitFor("it to arrive", () =>
      heard(provider).includes(
        `{"jsonrpc":"2.0","method":"notifications/vendor/up","params":${params}}`,
      ),
    );
    const during = '{"jsonrpc":"2.0","method":"notifications/vendor/during","params":{"x":1.0}}';
    const after =
      '{"jsonrpc":"2.0", "method":"notifications/vendor/after","params":{"x":1.0},"top":1}';
    await peer.say([during, DONE, after]);
    expect((await peer.waitForMethod("notifications/vendor/during")).text).toBe(during);
    expect((await peer.waitForMethod("notifications/vendor/after")).text).toBe(after);
  });

  test("progress comes in order, before the answer, under the client's own token", async () => {
    const peer = await connect(fresh(), transport);
    const progress = (n: number): string =>
      `{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":${n}.0,"progressToken":%token%,"message":"caf\\u00e9"}}`;
    for (const token of ['"a\\"\\u0062"', "7", '"7"', "9007199254740993"]) {
      const before = peer.incoming.length;
      const lines = [1, 2, 3, 4, 5].map(progress);
      await peer.say([...lines, DONE], { meta: `{"progressToken":${token},"k":1.0}` });
      const texts = peer.incoming.slice(before).map(({ text }) => text);
      expect(texts.slice(0, 5)).toEqual(lines.map((line) => line.replace("%token%", () => token)));
      expect(texts).toHaveLength(6);
    }
  });

  test("progress nobody asked for, or after the end, goes nowhere", async () => {
    const peer = await connect(fresh(), transport);
    const late = note("notifications/progress", { progressToken: 0, progress: 1 });
    const under = (token: string): string => late.replace(":0,", `:${token},`);
    await peer.say([under("%id%"), DONE]);
    await peer.say([DONE, under("%token%")], { meta: '{"progressToken":"t"}' });
    await peer.say([DONE]);
    expect(peer.of("notifications/progress")).toEqual([]);
  });

  test("R7: a cancel reaches the provider with its own id and the reason, and only that call", async () => {
    const provider = fresh();
    const peer = await connect(provider, transport);
    void peer.say([], { id: "slow", as: "slow" }).catch(() => undefined);
    const other = peer.say([], { id: "other", as: "other" });
    await waitFor("both", () => heardOf(provider, "tools/call").length === 2);
    peer.notify("notifications/cancelled", '{"requestId":"slow","reason":"enough"}');
    const [cancelled] = await waitFor("the cancel", () => {
      const found = heardOf(provider, "notifications/cancelled");
      return found.length > 0 ? found : undefined;
    });
    const [call] = heardOf(provider, "tools/call").filter(
      ({ params }) => params.arguments.as === "slow",
    );
    expect(cancelled.params.requestId).toBe(call.id);
    expect(cancelled.params.reason).toContain("enough");
    await peer.say([DONE, DONE.replace("%id%", "%id:slow%"), DONE.replace("%id%", "%id:other%")]);
    expect((await other).message.result).toEqual({ content: [] });
    expect(peer.incoming.filter(({ message }) => message.id === "slow" && message.result)).toEqual(
      [],
    );
  });

  test("a ping is answered without the provider", async () => {
    const provider = fresh();
    const peer = peerBy(transport);
    await peer.open(provider);
    if (transport === "Streamable HTTP") {
      await peer.initialize("{}");
      await stop(provider);
    }
    const before = heardOf(provider, "initialize").length;
    expect((await peer.request("ping")).message.result).toEqual({});
    expect(heardOf(provider, "initialize")).toHaveLength(before);
    expect(heardOf(provider, "ping")).toHaveLength(0);
  });

  test("each page of tools/list is the provider's own", async () => {
    const provider = fresh();
    toolsAre(provider, ["say", "a"], ["b"], ["c"]);
    const peer = await connect(provider, transport);
    const pages: string[][] = [];
    let params: string | undefined;
    for (;;) {
      const { tools, nextCursor } = (await peer.request("tools/list", params)).message.result;
      pages.push(tools.map(({ name }: Json) => name));
      if (nextCursor === undefined) break;
      params = JSON.stringify({ cursor: nextCursor });
    }
    expect(pages).toEqual([["say", "a"], ["b"], ["c"]]);
  });

  test("questions during a call reach the client, and its answers the provider, byte for byte", async () => {
    const provider = fresh();
    const peer = await connect(provider, transport);
    const questions: [string, Json][] = [
      ["sampling/createMessage", { messages: [], maxTokens: 1, tools: [] }],
      ["elicitation/create", ELICIT],
      [
        "elicitation/create",
        { mode: "url", message: "Go", url: "https://x.test", elicitationId: "e" },
      ],
      ["roots/list", undefined],
      ["vendor/ask", { big: 1 }],
    ];
    const lines = questions.map(([method, params], n) => question(method, params, `q-${n}`));
    const call = peer.say(lines, { as: "call" });
    const isQuestion = ({ message }: Incoming): boolean => "method" in message && "id" in message;
    const asked = await waitFor("all questions", () => {
      const found = peer.incoming.filter(isQuestion);
      return found.length === questions.length ? found : undefined;
    });
    expect(asked.map(({ message }) => [message.method, message.params])).toEqual(questions);
    expect(new Set(asked.map(({ message }) => message.id)).size).toBe(questions.length);
    for (const [n, one] of [...asked.entries()].toReversed()) {
      const result = `{"n":9007199254740993,"of":${n}.0,"a":{"k":1,"k":2},"e":"\\u00e9"}`;
      peer.answer(one, `"result":${result}`);
      await heardAnswer(provider, `q-${n}`);
      expect(heard(provider)).toContain(`{"jsonrpc":"2.0","id":"q-${n}","result":${result}}`);
    }
    await peer.say([DONE.replace("%id%", "%id:call%"), DONE]);
    expect((await call).message.result).toEqual({ content: [] });
  });

  test("a client's error, and its progress with a question, reach the provider", async () => {
    const provider = fresh();
    const peer = await connect(provider, transport);
    const params = { ...ELICIT, _meta: { progressToken: "theirs" } };
    void peer.say([question("elicitation/create", params, 7)]).catch(() => undefined);
    const asked = await peer.waitForMethod("elicitation/create");
    const token = JSON.stringify(asked.message.params._meta.progressToken);
    peer.notify("notifications/progress", `{"progressToken":${token},"progress":1.0,"n":-0}`);
    const expected = '{"progressToken":"theirs","progress":1.0,"n":-0}';
    await waitFor("the progress", () => heard(provider).some((line) => line.includes(expected)));
    const error = '{"code":-1,"message":"no","data":{"n":1.0}}';
    peer.answer(asked, `"error":${error}`);
    await heardAnswer(provider, 7);
    expect(heard(provider)).toContain(`{"jsonrpc":"2.0","id":7,"error":${error}}`);
  });

  test("a question the provider withdraws is withdrawn from the client under its id there", async () => {
    const provider = fresh();
    const peer = await connect(provider, transport);
    void peer.say([question("elicitation/create", ELICIT, "mine")]).catch(() => undefined);
    const asked = await peer.waitForMethod("elicitation/create");
    const withdrawal = { requestId: "mine", reason: "no \u00e9 longer" };
    await peer.say([note("notifications/cancelled", withdrawal), DONE]);
    const { message } = await peer.waitForMethod("notifications/cancelled");
    expect(message.params).toEqual({ requestId: asked.message.id, reason: "no \u00e9 longer" });
    peer.answer(asked, '"result":{"late":true}');
    await peer.say([DONE]);
    expect(heard(provider).some((line) => line.includes("late"))).toBe(false);
  });

  test("a question the client did not declare is refused with -32601", async () => {
    const provider = fresh();
    const peer = await connect(provider, transport, '{"elicitation":{}}');
    void peer
      .say([
        question("sampling/createMessage", {}, "s"),
        question("roots/list", {}, "r"),
        question("elicitation/create", { mode: "url" }, "u"),
      ])
      .catch(() => undefined);
    for (const [id, missing] of [
      ["s", "sampling"],
      ["r", "roots"],
      ["u", "elicitation.url"],
    ]) {
      const { error } = await heardAnswer(provider, id);
      expect(error.code).toBe(-32_601);
      expect(error.message).toContain(missing);
    }
    expect(peer.incoming.filter(({ message }) => message.method !== undefined)).toEqual([]);
  });

  test("a question outside a call is refused with an explanation, a ping is answered", async () => {
    const provider = fresh();
    const peer = await connect(provider, transport);
    await peer.say([DONE, question("roots/list", {}), question("ping", {}, "p")]);
    const { error } = await heardAnswer(provider, "q");
    expect(error.message).toContain("no call is under way");
    expect((await heardAnswer(provider, "p")).result).toEqual({});
    expect(peer.of("roots/list")).toEqual([]);
  });

  test("tasks pass: creation, status, progress after it, get, result, list and cancel", async () => {
    const peer = await connect(fresh(), transport);
    const created = '{"task":{"taskId":"t\\u0031","status":"working","ttl":60000.0}}';
    const args = { lines: [`{"jsonrpc":"2.0","id":%id%,"result":${created}}`], as: "task" };
    const { text } = await peer.request(
      "tools/call",
      `{"name":"say","arguments":${JSON.stringify(args)},"task":{"ttl":60000.0},"_meta":{"progressToken":"mine"}}`,
    );
    expect(text).toContain(`"result":${created}}`);
    const status = note("notifications/tasks/status", { taskId: "t1", status: "completed" });
    const progress = note("notifications/progress", { progressToken: 0, progress: 5 });
    await peer.say([DONE, status, progress.replace(":0,", ":%id:task%,")]);
    expect((await peer.waitForMethod("notifications/tasks/status")).text).toBe(status);
    const { message } = await peer.waitForMethod("notifications/progress");
    expect(message.params).toEqual({ progressToken: "mine", progress: 5 });
    for (const method of ["tasks/get", "tasks/result", "tasks/list", "tasks/cancel"]) {
      const reply = await peer.request(method, '{"taskId":"t1"}');
      expect(reply.message.result.line).toMatchObject({ method, params: { taskId: "t1" } });
    }
  });

  test("hidden tools are neither listed nor callable, however they are spelled", async () => {
    const provider = special("filtered");
    toolsAre(provider, ["say", "t1", "t2"], ["u", "t2", "t3"]);
    const peer = await connect(provider, transport);
    const first = (await peer.request("tools/list")).message.result;
    expect(first.tools.map(({ name }: Json) => name)).toEqual(["say", "t1"]);
    expect(first.nextCursor).toBe("1");
    const second = (await peer.request("tools/list", '{"cursor":"1"}')).message.result;
    expect(second.tools.map(({ name }: Json) => name)).toEqual(["t3"]);
    const before = heardOf(provider, "tools/call").length;
    for (const params of [
      '{"name":"t2","arguments":{}}',
      '{"name":"\\u00742"}',
      '{"n\\u0061me":"u"}',
    ]) {
      const { error } = (await peer.request("tools/call", params)).message;
      expect(error).toMatchObject({ code: -32_602, data: { code: "tool_not_found" } });
    }
    expect(heardOf(provider, "tools/call")).toHaveLength(before);
    const { result } = (await peer.request("tools/call", '{"name":"t1"}')).message;
    expect(result.line.params).toEqual({ name: "t1" });
  });
});

describe("initialize", () => {
  test.each([
    ["2025-11-25", "2025-06-18"],
    ["2025-06-18", "2025-06-18"],
    ["2024-11-05", "2024-11-05"],
    ["1999-01-01", "2025-06-18"],
  ])("that asks a provider of 2025-06-18 for %s gets %s", async (asked, version) => {
    const peer = peerBy("Streamable HTTP");
    await peer.open(special("older"));
    const { text } = await peer.initialize("{}", asked);
    const said = ODD_INIT.replace("2025-11-25", version);
    expect(text).toBe(`{"jsonrpc":"2.0","id":"hello","result":${said}}`);
  });

  test.each([
    ["crashes", "Streamable HTTP"],
    ["refuses", "Streamable HTTP"],
    ["crashes", "HTTP+SSE"],
    ["crashes", "stdio"],
  ] as const)("of a provider that %s fails with the reason over %s", async (name, transport) => {
    await stop(special(name)); // or its backoff would answer
    const peer = peerBy(transport);
    await peer.open(name);
    const { error } = (await peer.initialize("{}")).message;
    expect(error.data.code).toBe("start_failed");
    expect(error.message).toContain(name);
    if (!(peer instanceof HttpPeer) || peer.session === undefined) return;
    const { error: none } = (await peer.request("tools/list")).message;
    expect(none.data.code).toBe("session_not_found");
  });

  test("opens a session that is good for nothing but that provider", async () => {
    const [here, there] = [fresh(), fresh()];
    const peer = await visit(here);
    const own = await visit("");
    peer.path = `/mcp/${there}`;
    expect((await peer.request("tools/list")).message.error.data.code).toBe("session_not_found");
    peer.path = "/mcp";
    expect((await peer.request("tools/list")).message.error.data.code).toBe("session_not_found");
    own.path = `/mcp/${here}`;
    expect((await own.request("tools/list")).message.error.data.code).toBe("session_not_found");
    expect(own.statuses.at(-1)).toBe(404);
    expect(heardOf(there, "initialize")).toEqual([]);
    peer.path = `/mcp/${here}`;
    expect((await peer.request("tools/list")).message.result.tools).toHaveLength(1);
  });
});

describe("several clients of one provider", () => {
  test("keep their progress and answers apart although ids and tokens are the same", async () => {
    const provider = fresh();
    const clients = await Promise.all(Array.from({ length: 5 }, () => visit(provider)));
    const progress =
      '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%token%,"message":"';
    const replies = clients.map((client, n) =>
      client.say(
        [`${progress}a${n}"}}`, `${progress}b${n}"}}`, DONE.replace("[]", `[],"n":${n}`)],
        { id: 1, meta: '{"progressToken":1}' },
      ),
    );
    for (const [n, reply] of replies.entries()) {
      expect((await reply).message.result.n).toBe(n);
      const notes = clients[n]?.of("notifications/progress") ?? [];
      expect(notes.map(({ message }) => message.params)).toEqual([
        { progressToken: 1, message: `a${n}` },
        { progressToken: 1, message: `b${n}` },
      ]);
    }
  });

  test("with calls under way are asked nothing, and the provider is told why", async () => {
    const provider = fresh();
    const [one, other] = [await visit(provider), await visit(provider)];
    const held = one.say([], { as: "held" });
    await waitFor("the call", () => heardOf(provider, "tools/call").length === 1);
    void other.say([question("roots/list", {})], { as: "asks" }).catch(() => undefined);
    const { error } = await heardAnswer(provider, "q");
    expect(error.message).toContain("several clients");
    expect(error.message).toContain("scope: session");
    for (const client of [one, other]) expect(client.of("roots/list")).toEqual([]);
    // Alone again, the second one can be asked.
    await one.say([DONE, DONE.replace("%id%", "%id:held%"), question("roots/list", {}, "again")]);
    await held;
    await other.waitForMethod("roots/list");
    expect(one.of("roots/list")).toEqual([]);
  });

  test("hear of a changed list on the stream of their own, each once", async () => {
    const provider = fresh();
    const clients = [
      await visit(provider),
      await visit(provider),
      await connect(provider, "HTTP+SSE"),
    ];
    const lists = ["tools", "prompts", "resources"].map((of) => `notifications/${of}/list_changed`);
    const texts = lists.map((method) => `{"jsonrpc":"2.0","method":"${method}", "vendor":1.0}`);
    await clients[0]?.say([...texts, DONE]);
    for (const client of clients) {
      for (const [n, method] of lists.entries()) {
        const { text, via } = await client.waitForMethod(method);
        expect([text, via]).toEqual([texts[n], "alone"]);
      }
    }
    await clients[1]?.say([DONE]);
    for (const client of clients) expect(client.of(lists[0] as string)).toHaveLength(1);
  });

  test("share the most verbose log level, and each hears no more than it asked for", async () => {
    const provider = fresh();
    const [loud, quiet] = [await visit(provider), await visit(provider)];
    const level = (text: string): string => `{"level":"${text}","v":1.0}`;
    await loud.request("logging/setLevel", level("info"));
    await quiet.request("logging/setLevel", level("error"));
    const sent = heardOf(provider, "logging/setLevel").map(({ params }) => params.level);
    expect(sent).toEqual(["info", "info"]);
    expect(heard(provider).at(-1)).toContain('"params":{"level":"info","v":1.0}');
    const message = (text: string): string =>
      note("notifications/message", { level: text, data: text });
    const heardBy = (client: Peer): string[] =>
      client.of("notifications/message").map((incoming) => incoming.message.params.data);
    await loud.say([DONE, message("info"), message("error")]);
    await quiet.waitForMethod("notifications/message");
    await waitFor("both", () => heardBy(loud).length === 2);
    expect(heardBy(loud)).toEqual(["info", "error"]);
    expect(heardBy(quiet)).toEqual(["error"]);
    await quiet.say([message("warning"), message("critical"), DONE]);
    expect(heardBy(quiet)).toEqual(["error", "critical"]);
  });

  test("who set levels at the same time get the more verbose one, in either order", async () => {
    const provider = special("held-level");
    const [loud, quiet] = [await visit(provider), await visit(provider)];
    void loud.request("logging/setLevel", '{"level":"debug"}').catch(() => undefined);
    await waitFor("the first", () => heardOf(provider, "logging/setLevel").length === 1);
    void quiet.request("logging/setLevel", '{"level":"error"}').catch(() => undefined);
    const [, second] = await waitFor("the second", () => {
      const found = heardOf(provider, "logging/setLevel");
      return found.length === 2 ? found : undefined;
    });
    expect(second.params.level).toBe("debug");
  });

  test("get updates of what they subscribed to, and only that, until they unsubscribe or leave", async () => {
    const provider = fresh();
    const [one, two, third] = [await visit(provider), await visit(provider), await visit(provider)];
    const of = (uri: string): string => JSON.stringify({ uri });
    const updated = (uri: string): string => note("notifications/resources/updated", { uri });
    const updatesOf = (client: Peer): string[] =>
      client.of("notifications/resources/updated").map(({ message }) => message.params.uri);
    const reply = await one.request("resources/subscribe", of("x://a/1"));
    expect(reply.message.result.line.params).toEqual({ uri: "x://a/1" });
    await two.request("resources/subscribe", of("x://a/1"));
    await third.request("resources/subscribe", of("x://a/12"));
    // The middle one is a part of what the first two asked for.
    await one.say([updated("x://a/1"), updated("x://a/1/part"), updated("x://a/12"), DONE]);
    const all = ["x://a/1", "x://a/1/part"];
    await waitFor("the updates", () => updatesOf(third).length + updatesOf(two).length >= 3);
    expect([updatesOf(one), updatesOf(two), updatesOf(third)]).toEqual([all, all, ["x://a/12"]]);

    expect((await one.request("resources/unsubscribe", of("x://a/1"))).message.result).toEqual({});
    expect(heardOf(provider, "resources/unsubscribe")).toEqual([]);
    await one.say([updated("x://a/1"), DONE]);
    await waitFor("the update", () => updatesOf(two).length === 3);
    expect(updatesOf(one)).toHaveLength(2);

    await two.leave();
    const [last] = await waitFor("the unsubscribe", () => {
      const found = heardOf(provider, "resources/unsubscribe");
      return found.length > 0 ? found : undefined;
    });
    expect(last.params).toEqual({ uri: "x://a/1" });
    const { result } = (await third.request("resources/unsubscribe", of("x://a/12"))).message;
    expect(result.line.params).toEqual({ uri: "x://a/12" });
  });

  test("do not lose a subscription under way to another's unsubscribe", async () => {
    const provider = special("held-subscribe");
    const [one, two] = [await visit(provider), await visit(provider)];
    const params = '{"uri":"x://a"}';
    void one.request("resources/subscribe", params).catch(() => undefined);
    await waitFor("the subscribe", () => heardOf(provider, "resources/subscribe").length === 1);
    expect((await two.request("resources/unsubscribe", params)).message.result).toEqual({});
    expect(heardOf(provider, "resources/unsubscribe")).toEqual([]);
    await one.leave();
    await waitFor("the end", () => heardOf(provider, "resources/unsubscribe").length === 1);
  });

  test("of several identities do not hear of updates that none of them asked for", async () => {
    const provider = fresh();
    const [one, two] = [await visit(provider), await visitWithToken(provider)];
    const stray = note("notifications/resources/updated", { uri: "secret://1" });
    const changed = note("notifications/tools/list_changed");
    await one.say([DONE, stray, changed]);
    for (const client of [one, two]) {
      await client.waitForMethod("notifications/tools/list_changed");
      expect(client.of("notifications/resources/updated")).toEqual([]);
    }
  });

  test("hear of their tasks and finished elicitations although another's call is under way", async () => {
    const provider = fresh();
    const [owner, busy] = [await visit(provider), await visit(provider)];
    await owner.say(['{"jsonrpc":"2.0","id":%id%,"result":{"task":{"taskId":"t"}}}']);
    void busy.say([], { as: "busy" }).catch(() => undefined);
    await waitFor("the call", () => heardOf(provider, "tools/call").length === 2);
    const status = note("notifications/tasks/status", { taskId: "t", status: "working" });
    const done = note("notifications/elicitation/complete", { elicitationId: "e" });
    await busy.say([status, done, DONE]);
    expect((await owner.waitForMethod("notifications/tasks/status")).text).toBe(status);
    expect((await owner.waitForMethod("notifications/elicitation/complete")).text).toBe(done);
  });
});

describe("a question", () => {
  test("stops the clock of its call, which goes on with the answer", async () => {
    const provider = special("hasty");
    await hangar.callTool("registry_start", { provider }); // its deadline is too short for a start
    const peer = await visit(provider);
    const call = peer.say([question("elicitation/create", ELICIT)], { as: "call" });
    const asked = await peer.waitForMethod("elicitation/create");
    await sleep(1100);
    expect(heardOf(provider, "notifications/cancelled")).toEqual([]);
    peer.answer(asked, '"result":{"action":"decline"}');
    const { error } = (await call).message;
    expect(error.data.code).toBe("timeout");
    await waitFor("the cancel", () => heardOf(provider, "notifications/cancelled").length === 1);
  });

  test("that is withdrawn after the end of its call is withdrawn from the client all the same", async () => {
    const provider = fresh();
    const peer = await visit(provider);
    await peer.say([question("elicitation/create", ELICIT), DONE]);
    const asked = await peer.waitForMethod("elicitation/create");
    await peer.say([note("notifications/cancelled", { requestId: "q" }), DONE]);
    const { message } = await peer.waitForMethod("notifications/cancelled");
    expect(message.params).toEqual({ requestId: asked.message.id });
  });

  test("of a provider that dies is withdrawn, and its call ends with the reason", async () => {
    const provider = fresh();
    const peer = await visit(provider);
    const args = JSON.stringify({ lines: [question("elicitation/create", ELICIT)], as: "call" });
    const call = peer.request("tools/call", `{"name":"say","arguments":${args}}`);
    const asked = await peer.waitForMethod("elicitation/create");
    void peer.request("tools/call", '{"name":"say","arguments":{"exit":3}}').catch(() => undefined);
    expect((await call).message.error.data.code).toBe("provider_exited");
    const { message } = await peer.waitForMethod("notifications/cancelled");
    expect(message.params.requestId).toBe(asked.message.id);
  });

  test("goes to the client's own stream when its request takes plain JSON only", async () => {
    const provider = fresh();
    const peer = await visit(provider);
    peer.accept = "application/json";
    const call = peer.say([question("roots/list", {})], { as: "call" });
    const asked = await peer.waitForMethod("roots/list");
    expect(asked.via).toBe("alone");
    peer.answer(asked, '"result":{"roots":[]}');
    expect((await heardAnswer(provider, "q")).result).toEqual({ roots: [] });
    await peer.say([DONE, DONE.replace("%id%", "%id:call%")]);
    await call;
  });

  test("to a client without any stream is refused with an explanation", async () => {
    const provider = fresh();
    const peer = peerBy("Streamable HTTP") as HttpPeer;
    peer.listens = false;
    peer.accept = "application/json";
    await peer.open(provider);
    await peer.initialize(EVERYTHING);
    void peer.say([question("roots/list", {})]).catch(() => undefined);
    expect((await heardAnswer(provider, "q")).error.message).toContain("no stream");
  });

  test("is refused when the client that could answer it leaves", async () => {
    const provider = fresh();
    const peer = await visit(provider);
    void peer.say([question("roots/list", {})]).catch(() => undefined);
    await peer.waitForMethod("roots/list");
    await peer.leave();
    expect((await heardAnswer(provider, "q")).error.message).toContain("gone");
  });
});

describe("through registry_invoke", () => {
  test("progress, questions and a cancel find their way", async () => {
    const provider = fresh();
    const peer = await visit("");
    const progress =
      '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%token%,"progress":1.0}}';
    const call = peer.invoke(
      provider,
      [progress, question("sampling/createMessage", { maxTokens: 1 })],
      '{"progressToken":"mine","k":1.0}',
    );
    const asked = await peer.waitForMethod("sampling/createMessage");
    expect(peer.of("notifications/progress").map(({ text }) => text)).toEqual([
      progress.replace("%token%", '"mine"'),
    ]);
    expect(heard(provider).at(-1)).toContain(',"k":1.0}');
    peer.answer(asked, '"result":{"n":1.0}');
    await heardAnswer(provider, "q");
    expect(heard(provider)).toContain('{"jsonrpc":"2.0","id":"q","result":{"n":1.0}}');
    await peer.invoke(provider, [DONE.replace("%id%", "%id:tools/call%")]);
    // The second call took the name of the last; the first is still open and can be cancelled.
    peer.notify("notifications/cancelled", '{"requestId":1,"reason":"enough"}');
    await waitFor("the cancel", () => heardOf(provider, "notifications/cancelled").length === 1);
    const [first] = heardOf(provider, "tools/call");
    const [cancelled] = heardOf(provider, "notifications/cancelled");
    expect(cancelled.params).toEqual({
      requestId: first.id,
      reason: expect.stringContaining("enough"),
    });
    void call.catch(() => undefined);
  });

  test("two providers that use the same token get each its own client's progress", async () => {
    const [one, two] = [fresh(), fresh()];
    const peer = await visit("");
    const params = { ...ELICIT, _meta: { progressToken: 0 } };
    for (const provider of [one, two]) {
      void peer
        .invoke(provider, [question("elicitation/create", params, 0)])
        .catch(() => undefined);
      await waitFor(
        "the question",
        () => peer.of("elicitation/create").length === (provider === one ? 1 : 2),
      );
    }
    const [, second] = peer.of("elicitation/create");
    const token = JSON.stringify(second?.message.params._meta.progressToken);
    peer.notify("notifications/progress", `{"progressToken":${token},"progress":1.0}`);
    await waitFor("the progress", () => heardOf(two, "notifications/progress").length === 1);
    expect(heard(two).at(-1)).toContain('"params":{"progressToken":0,"progress":1.0}');
    expect(heardOf(one, "notifications/progress")).toEqual([]);
  });

  test("a client that declared nothing is asked nothing", async () => {
    const provider = fresh();
    const peer = await visit("", "{}");
    void peer.invoke(provider, [question("roots/list", {})]).catch(() => undefined);
    expect((await heardAnswer(provider, "q")).error.code).toBe(-32_601);
  });

  test("a call is no task, for Hangar does not say that it knows them", async () => {
    const provider = fresh();
    const peer = await visit("");
    const args = JSON.stringify({ provider, tool: "say", arguments: { lines: [DONE] } });
    await peer.request(
      "tools/call",
      `{"name":"registry_invoke","arguments":${args},"task":{"ttl":1000},"vendor":1.0}`,
    );
    const [{ params }] = heardOf(provider, "tools/call") as [Json];
    expect(params).not.toHaveProperty("task");
    expect(params.vendor).toBe(1);
  });
});

describe("a tool whose definition names something twice", () => {
  const twice = '{"name":"t1","title":"A","title":"B","inputSchema":{}}';
  const said = '{"name":"say","inputSchema":{}}';

  test("passes as it is, and does not keep the provider from starting", async () => {
    const provider = fresh();
    writeFileSync(toolsOf(provider), `{"tools":[${twice},${said}]}`);
    const peer = await visit(provider);
    const { text } = await peer.request("tools/list");
    expect(text).toContain(`"result":{"tools":[${twice},${said}]}`);
  });

  test("is hidden where tools are, since nobody can say which one it is", async () => {
    const provider = special("filtered");
    writeFileSync(toolsOf(provider), `{"tools":[${twice},${said}]}`);
    const peer = await visit(provider);
    const { text } = await peer.request("tools/list");
    expect(text).toContain(`"result":{"tools":[${said}]}`);
  });
});

describe("a provider that starts again under a living session", () => {
  test("after a stop is told level and subscriptions before the call, and changed tools are announced once", async () => {
    const provider = fresh();
    const [one, two] = [await visit(provider), await visit(provider)];
    await one.request("logging/setLevel", '{"level":"info"}');
    for (const uri of ["x://1", "x://2"]) {
      await one.request("resources/subscribe", JSON.stringify({ uri }));
      await two.request("resources/subscribe", JSON.stringify({ uri }));
    }
    await two.request("resources/unsubscribe", '{"uri":"x://2"}');
    await stop(provider);
    const before = heard(provider).length;
    toolsAre(provider, ["say", "more"]);
    await two.say([note("notifications/resources/updated", { uri: "x://2" }), DONE]);
    const methods = heard(provider)
      .slice(before)
      .map((line): Json => JSON.parse(line))
      .filter(({ method }) => /setLevel|subscribe|tools\/call/.test(method ?? ""))
      .map(({ method, params }) => [method, params.level ?? params.uri ?? params.name]);
    expect(methods).toEqual([
      ["logging/setLevel", "info"],
      ["resources/subscribe", "x://1"],
      ["resources/subscribe", "x://2"],
      ["tools/call", "say"],
    ]);
    await one.waitForMethod("notifications/resources/updated");
    await two.waitForMethod("notifications/tools/list_changed");
    expect(two.of("notifications/resources/updated")).toEqual([]);
    await stop(provider);
    await two.say([DONE]);
    for (const client of [one, two]) {
      expect(client.of("notifications/tools/list_changed")).toHaveLength(1);
    }
  });

  test("after a crash ends the calls under way, and serves the session again", async () => {
    const provider = fresh();
    const peer = await visit(provider);
    await peer.request("resources/subscribe", '{"uri":"x://1"}');
    const held = peer.say([]);
    const crash = peer.request("tools/call", '{"name":"say","arguments":{"exit":3}}');
    for (const call of [held, crash]) {
      expect((await call).message.error.data).toMatchObject({ code: "provider_exited" });
    }
    const again = await waitFor("the next run", async () => {
      const { message } = await peer.say([DONE]);
      if (message.error !== undefined) expect(message.error.data.code).toBe("provider_degraded");
      return message.result;
    });
    expect(again).toEqual({ content: [] });
    expect(heardOf(provider, "initialize")).toHaveLength(2);
    expect(heardOf(provider, "resources/subscribe")).toHaveLength(2);
  });

  test("after idling is started by the next request, in the same session", async () => {
    const provider = special("sleepy");
    const peer = await visit(provider);
    await waitFor("the stop", async () => (await hangar.details(provider)).state === "cold");
    expect((await peer.request("prompts/list")).message.result.line.method).toBe("prompts/list");
    expect(heardOf(provider, "initialize")).toHaveLength(2);
  });

  test("hears nothing of the clients that left while it was down", async () => {
    const provider = fresh();
    const [one, two] = [await visit(provider), await visit(provider)];
    await one.request("resources/subscribe", '{"uri":"x://1"}');
    await stop(provider);
    await one.leave();
    await two.say([DONE]);
    expect(heardOf(provider, "resources/subscribe")).toHaveLength(1);
  });
});
