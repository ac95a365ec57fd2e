/** One provider alone, and clients that are slow, stuck, or have lost something: each costs no other anything. */
import { readFileSync } from "node:fs";
import { request as httpRequest } from "node:http";
import { expect, onTestFinished, test } from "vitest";
import {
  configOf,
  fixture,
  type HttpHangar,
  type Json,
  startHttp,
  startStdio,
  waitFor,
} from "../harness.ts";

const MIB = 1024 * 1024;

/** One HTTP exchange that is read as it comes, or not. */
class Reader {
  status: number | undefined;
  text = "";
  ended = false;
  #paused = false;
  #response: { pause(): void; resume(): void } | undefined;
  readonly #request: ReturnType<typeof httpRequest>;

  constructor(hangar: HttpHangar, method: string, path: string, headers: Json, body?: Json) {
    const { port } = hangar;
    const accept = "application/json, text/event-stream";
    const all = { "content-type": "application/json", accept, ...headers };
    this.#request = httpRequest({
      host: "127.0.0.1",
      port,
      method,
      path,
      headers: all,
      agent: false,
    });
    this.#request.on("error", () => {
      this.ended = true;
    });
    this.#request.on("response", (response) => {
      this.status = response.statusCode;
      this.#response = response;
      response.setEncoding("utf8").on("data", (text: string) => {
        this.text += text;
      });
      response.on("error", () => undefined);
      response.on("close", () => {
        this.ended = true;
      });
      if (this.#paused) response.pause();
    });
    this.#request.end(body === undefined ? undefined : JSON.stringify(body));
    onTestFinished(() => this.close());
  }

  pause(): void {
    this.#paused = true;
    this.#response?.pause();
  }

  resume(): void {
    this.#paused = false;
    this.#response?.resume();
  }

  close(): void {
    this.#request.destroy();
  }
}

function start(name: string): Promise<HttpHangar> {
  return startHttp({ config: configOf({ p: { command: fixture(name) } }) });
}

const CLIENT = {
  protocolVersion: "2025-11-25",
  capabilities: { elicitation: {} },
  clientInfo: { name: "test", version: "1.0.0" },
};
const INITIALIZE = { jsonrpc: "2.0", id: 0, method: "initialize", params: CLIENT };

async function openSession(hangar: HttpHangar): Promise<Record<string, string>> {
  const { headers } = await hangar.post(INITIALIZE, {}, "/mcp/p");
  return {
    "mcp-session-id": String(headers["mcp-session-id"]),
    "mcp-protocol-version": "2025-11-25",
  };
}

function talk(args: Json, id: Json = 7): Json {
  const params = { name: "talk", arguments: args, _meta: { progressToken: id } };
  return { jsonrpc: "2.0", id, method: "tools/call", params };
}

/** Waits until a process has read that much, pipes included. */
async function waitForBytesRead(pid: number, bytes: number): Promise<void> {
  const read = () => /rchar: (\d+)/.exec(readFileSync(`/proc/${pid}/io`, "utf8"))?.[1];
  await waitFor(`${bytes} bytes to be read`, () => Number(read()) > bytes, 30_000);
}

test("a question withdrawn right after the reply of its call goes to the session's own stream, and harms nobody", async () => {
  const hangar = await start("dictated");
  const session = await openSession(hangar);
  const own = new Reader(hangar, "GET", "/mcp/p", session);
  await waitFor("the stream", () => own.status);
  const say = [
    '{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{"message":"?"}}',
    '{"jsonrpc":"2.0","id":$id,"result":{"content":[]}}',
    '{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"q","reason":"late"}}',
  ];
  const params = { name: "t", _meta: { "test/say": say } };
  const message = { jsonrpc: "2.0", id: 5, method: "tools/call", params };
  const stream = new Reader(hangar, "POST", "/mcp/p", session, message);
  await waitFor("the end", () => stream.ended);
  expect(stream.text).toContain('"id":5,"result":{"content":[]}');
  const asked = /\{"jsonrpc":"2.0","id":(\d+),"method":"elicitation\/create"/.exec(
    stream.text,
  )?.[1];
  await waitFor("the withdrawal", () => own.text.includes("notifications/cancelled"));
  expect(own.text).toContain(`"params":{"requestId":${asked},"reason":"late"}`);
  expect(own.ended).toBe(false);
  expect(hangar.stderr).not.toContain("defect");
});

test("a reply longer than all that is kept is there for who lost the stream", async () => {
  const hangar = await start("talks");
  const session = await openSession(hangar);
  const tag = "y".repeat(1.5 * MIB);
  const lost = new Reader(hangar, "POST", "/mcp/p", session, talk({ tag, ms: 2500 }));
  const id = await waitFor("the priming event", () => /^id: (\S+)/m.exec(lost.text)?.[1]);
  lost.close();
  // The same session goes on; its next calls must not cost it the reply.
  await hangar.post(talk({ tag: "next", n: 3, ms: 600 }, 8), session, "/mcp/p");
  for (let times = 0; times < 2; times++) {
    const again = new Reader(hangar, "GET", "/mcp/p", { ...session, "last-event-id": id });
    await waitFor("the end", () => again.ended);
    expect(again.text).toContain('"jsonrpc":"2.0","id":7,"result"');
    expect(again.text.match(/^data:/gm)).toHaveLength(1);
    expect(again.text.length).toBeGreaterThan(tag.length);
  }
});

test("a slow client of HTTP+SSE gets a reply that looks like progress", async () => {
  const hangar = await start("talks");
  const stream = new Reader(hangar, "GET", "/sse/p", {});
  const path = await waitFor("the endpoint", () => /data: (\/messages\S+)/.exec(stream.text)?.[1]);
  await hangar.post(INITIALIZE, {}, path);
  await waitFor("the handshake", () => stream.text.includes('"id":0'));
  stream.pause();
  await hangar.post(talk({ tag: "notifications/progress", n: 200, bytes: 100_000 }), {}, path);
  await waitForBytesRead(hangar.pid, 20_000_000);
  stream.resume();
  await waitFor("the reply", () => stream.text.slice(-2000).includes('"id":7,"result"'));
  expect(stream.text.match(/^data:/gm)?.length).toBeLessThan(200);
});

test("a slow client of stdio gets a reply that looks like progress", async () => {
  const config = configOf({ p: { command: fixture("talks") } });
  const hangar = await startStdio({ config, args: ["--provider", "p"] });
  await hangar.request("tools/list");
  hangar.child.stdout?.pause();
  const { params } = talk({ tag: "notifications/progress", n: 200, bytes: 100_000 });
  const reply = hangar.request("tools/call", params, 7);
  await waitForBytesRead(hangar.pid, 20_000_000);
  hangar.child.stdout?.resume();
  expect((await reply).result.structuredContent.tag).toBe("notifications/progress");
  expect(hangar.notifications.length).toBeLessThan(200);
});

test("readers that never read are cut off before they cost much", async () => {
  const hangar = await start("talks");
  const streams: Reader[] = [];
  for (let i = 0; i < 3; i++) {
    const stream = new Reader(hangar, "GET", "/mcp/p", await openSession(hangar));
    stream.pause();
    streams.push(stream);
  }
  await waitFor("the streams", () => streams.every(({ status }) => status === 200));
  const params = { name: "later", arguments: { tag: "flood", n: 400, bytes: 100_000 } };
  const message = { jsonrpc: "2.0", id: 1, method: "tools/call", params };
  await hangar.post(message, await openSession(hangar), "/mcp/p");
  await waitForBytesRead(hangar.pid, 40_000_000);
  for (const stream of streams) stream.resume();
  await waitFor("the cut", () => streams.every(({ ended }) => ended));
  for (const { text } of streams) expect(text.length).toBeLessThan(24 * MIB);
});
