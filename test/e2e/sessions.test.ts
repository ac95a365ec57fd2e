/** Clients that open legacy sessions and never end them. R14. SESSIONS sets how many; 50 000 are run by hand. */
import { Agent, request as httpRequest } from "node:http";
import { expect, onTestFinished, test } from "vitest";
import { configOf, fixture, type HttpHangar, type Json, startHttp, waitFor } from "../harness.ts";
import { memoryOf } from "../processes.ts";

const SESSIONS = Number(process.env["SESSIONS"] ?? 30_000);
const CONNECTIONS = 32;
const MIB = 1024 * 1024;
/** The heap Hangar gets: enough for 10 000 sessions, too little for all that are opened here. */
const HEAP_MIB = 48;
const MAX_RESIDENT_MIB = 240;
const TIME_MS = 180_000;
const HEADERS = {
  "content-type": "application/json",
  accept: "application/json, text/event-stream",
};

const INITIALIZE = JSON.stringify({
  jsonrpc: "2.0",
  id: 0,
  method: "initialize",
  params: {
    protocolVersion: "2025-11-25",
    capabilities: { roots: { listChanged: true } },
    clientInfo: { name: "churn", version: "1" },
  },
});

/** Opens a session over a connection of `agent`; its id. */
function openSession({ port }: HttpHangar, agent: Agent): Promise<string> {
  return new Promise((resolve, reject) => {
    httpRequest({ host: "127.0.0.1", port, path: "/mcp", method: "POST", headers: HEADERS, agent })
      .on("error", reject)
      .on("response", (response) => {
        const id = response.headers["mcp-session-id"];
        response.resume().on("end", () => {
          if (typeof id === "string") resolve(id);
          else reject(new Error(`no session: HTTP ${response.statusCode}`));
        });
      })
      .end(INITIALIZE);
  });
}

/** A request of a session whose answer takes its time; `ended` says whether it has come, or never will. */
function listen({ port }: HttpHangar, session: string, body?: Json): { readonly ended: boolean } {
  const state = { ended: false };
  const over = (): void => {
    state.ended = true;
  };
  const accept = body === undefined ? { accept: "text/event-stream" } : {};
  const headers = { ...HEADERS, ...accept, "mcp-session-id": session };
  const method = body === undefined ? "GET" : "POST";
  httpRequest({ host: "127.0.0.1", port, path: "/mcp", method, headers, agent: false })
    .on("error", over)
    .on("response", (response) => response.resume().on("end", over).on("error", over))
    .end(body === undefined ? undefined : JSON.stringify(body));
  return state;
}

test("R14: sessions that nobody ends take no more room than ten thousand, and evict none in use", {
  timeout: TIME_MS,
}, async () => {
  const hangar = await startHttp({
    config: configOf({ p: { command: fixture("slow") } }),
    env: { NODE_OPTIONS: `--max-old-space-size=${HEAP_MIB}` },
  });
  const agent = new Agent({ keepAlive: true, maxSockets: CONNECTIONS });
  onTestFinished(() => agent.destroy());
  await hangar.callTool("registry_start", { provider: "p" });

  // One session with a call under way, one whose client listens, one that nobody uses.
  const params = {
    name: "registry_invoke",
    arguments: { provider: "p", tool: "sleep", arguments: { ms: TIME_MS }, timeout: 600 },
  };
  const calling = { jsonrpc: "2.0", id: "long", method: "tools/call", params };
  const callingId = await openSession(hangar, agent);
  const call = listen(hangar, callingId, calling);
  await waitFor("the call", async () => (await hangar.details("p")).in_flight === 1);
  const listeningId = await openSession(hangar, agent);
  const listening = listen(hangar, listeningId);
  const first = await openSession(hangar, agent);

  const began = performance.now();
  const resident: number[] = [];
  const batch = 5_000;
  for (let opened = 0; opened < SESSIONS; opened += batch) {
    let left = batch;
    const client = async (): Promise<void> => {
      while (left-- > 0) await openSession(hangar, agent);
    };
    await Promise.all(Array.from({ length: CONNECTIONS }, client));
    await hangar.request("ping");
    resident.push(memoryOf(hangar.pid));
  }
  const seconds = (performance.now() - began) / 1000;
  const mebibytes = resident.map((bytes) => Math.round(bytes / MIB));
  const figures = `${SESSIONS} sessions in ${seconds.toFixed(1)} s; resident: ${mebibytes.join(" ")} MiB`;
  if (process.env["SESSIONS"] !== undefined) process.stderr.write(`${figures}\n`);

  // That it has not run out of its heap says that nothing of an ended session stays.
  expect(Math.max(...resident)).toBeLessThan(MAX_RESIDENT_MIB * MIB);
  const ping = (session: string): Promise<{ status: number; messages: Json[] }> =>
    hangar.post({ jsonrpc: "2.0", id: 1, method: "ping" }, { "mcp-session-id": session });
  expect((await ping(first)).status).toBe(404);
  expect((await ping(callingId)).messages).toMatchObject([{ result: {} }]);
  expect((await ping(listeningId)).messages).toMatchObject([{ result: {} }]);
  expect([call.ended, listening.ended]).toEqual([false, false]);
  for (const session of [callingId, listeningId]) {
    await hangar.send("DELETE", "/mcp", { "mcp-session-id": session });
  }
  await waitFor("the streams to end", () => call.ended && listening.ended);
});
