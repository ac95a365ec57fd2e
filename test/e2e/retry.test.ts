/** R6: what is sent again when its answer is lost, and what never is, against servers that count. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { chaos, configOf, type Json, startHttp, type HttpHangar, tempDir } from "../harness.ts";
import {
  answerIn,
  HttpClient,
  reply,
  legacy,
  note,
  type Received,
  RemoteServer,
  startRemote,
  structured,
} from "../remote-server.ts";

const HINTS = {
  reads: { readOnlyHint: true },
  sets: { idempotentHint: true },
  writes: { readOnlyHint: false },
};

const TOOLS = Object.entries(HINTS).map(([name, annotations]) => ({
  ...{ name, annotations, inputSchema: { type: "object" } },
}));
const OTHERS = ["resources/read", "prompts/get", "resources/list"];

/** A server that counts its calls, and loses the answers to the first ones as `lose` does. */
async function losing(
  method: string,
  times: number,
  lose: (received: Received) => void = ({ response }) => response.socket?.resetAndDestroy(),
): Promise<RemoteServer> {
  let left = 0;
  const server = await startRemote(
    (received) => {
      if (received.message?.method !== method || left >= times) return false;
      left++;
      lose(received);
      return true;
    },
    (received) => {
      const method = received.message?.method;
      if (method === "tools/list") return reply(received, { tools: TOOLS });
      return OTHERS.includes(method) ? reply(received, { ok: true }) : false;
    },
    legacy({
      tools: Object.fromEntries(
        Object.keys(HINTS).map((name) => [name, () => structured({ done: name })]),
      ),
    }),
  );
  return server;
}

async function startWith(server: RemoteServer, rest: Json = {}): Promise<HttpHangar> {
  const p = { mode: "remote", endpoint: server.url, protocol: "legacy", ...rest };
  const hangar = await startHttp({ config: configOf({ p }) });
  await hangar.callTool("registry_start", { provider: "p" });
  return hangar;
}

/** One request of a client of the provider alone. */
async function relayed(hangar: HttpHangar, method: string, params: Json = {}): Promise<Json> {
  const client = new HttpClient(`${hangar.url}/p`);
  await client.initialize();
  return await answerIn(await client.post(client.message(method, params)));
}

describe("R6: an answer that is lost", () => {
  test.each([
    ["of a list, twice: asked three times, answered", "resources/list", 2, 3, true],
    ["of a list, always: asked three times", "resources/list", 9, 3, false],
    ["of a resource: read twice, answered", "resources/read", 1, 2, true],
    ["of a resource, always: read twice", "resources/read", 9, 2, false],
    ["of a prompt: got twice, answered", "prompts/get", 1, 2, true],
  ])("%s", async (_, method, times, asked, answered) => {
    const server = await losing(method, times);
    const hangar = await startWith(server);
    const answer = await relayed(hangar, method, { uri: "x:y", name: "n" });
    expect(server.of(method)).toHaveLength(asked);
    expect(answer.result !== undefined).toBe(answered);
    if (!answered) {
      expect(answer.error.data).toMatchObject({ code: "remote_failed", attempts: asked });
      expect(answer.error.data.ambiguous).toBeUndefined();
    }
    expect((await hangar.details("p")).retries).toBe(asked - 1);
    expect(hangar.stderr).toContain('"call_retried"');
  });

  test.each([
    ["of any tool: never called again", "reads", {}, 1],
    [
      "of a tool marked read-only, with trust_annotations: called again",
      "reads",
      { trust_annotations: true },
      2,
    ],
    [
      "of a tool marked idempotent, with trust_annotations: called again",
      "sets",
      { trust_annotations: true },
      2,
    ],
    [
      "of a tool marked as neither, with trust_annotations: never called again",
      "writes",
      { trust_annotations: true },
      1,
    ],
    ["of a tool that retry.tools names: called again", "writes", { retry: { tools: ["wr*"] } }, 2],
    [
      "of a tool that retry.tools names, with a budget of 0: never called again",
      "writes",
      { retry: { tools: ["wr*"], budget: 0 } },
      1,
    ],
  ])("is sent again as trust_annotations and retry say: %s", async (_, tool, rest, asked) => {
    const server = await losing("tools/call", 1);
    const hangar = await startWith(server, rest);
    const { structuredContent } = await hangar.invoke("p", tool);
    expect(server.of("tools/call")).toHaveLength(asked);
    if (asked === 2) expect(structuredContent).toEqual({ done: tool });
    else
      expect(structuredContent).toMatchObject({
        code: "remote_failed",
        details: { ambiguous: true },
      });
  });

  test.each<[string, (received: Received) => void, Json]>([
    [
      "after progress",
      ({ message, response }) => {
        note(response, "notifications/progress", {
          progressToken: message.params._meta?.progressToken,
          progress: 1,
        });
        setTimeout(() => response.socket?.resetAndDestroy(), 100);
      },
      { _meta: { progressToken: 1 } },
    ],
    [
      "in the middle",
      ({ response }) => {
        response.writeHead(200, { "content-type": "application/json" });
        response.write('{"jsonrpc":');
        setTimeout(() => response.socket?.resetAndDestroy(), 100);
      },
      {},
    ],
    ["as a task", ({ response }) => response.socket?.resetAndDestroy(), { task: { ttl: 1000 } }],
  ])("%s is not sent again, whatever the operator trusts", async (_, lose, also) => {
    const server = await losing("tools/call", 1, lose);
    const hangar = await startWith(server, { trust_annotations: true });
    const answer = await relayed(hangar, "tools/call", { name: "reads", arguments: {}, ...also });
    expect(server.of("tools/call")).toHaveLength(1);
    expect(answer.error.data).toMatchObject({ code: "remote_failed", ambiguous: true });
  });

  test.each([
    ["429 with Retry-After: 1: sent again after it", 429, 2],
    ["503 with Retry-After: 1: sent again after it", 503, 2],
    ["502: never sent again, for it may have run", 502, 1],
    ["504: never sent again, for it may have run", 504, 1],
  ])("as HTTP %s", async (_, status, asked) => {
    const server = await losing("tools/call", 1, ({ response }) =>
      response.writeHead(status, { "retry-after": "1" }).end(),
    );
    const hangar = await startWith(server);
    const { structuredContent } = await hangar.invoke("p", "writes");
    const calls = server.of("tools/call");
    expect(calls).toHaveLength(asked);
    if (asked === 2) {
      expect(structuredContent).toEqual({ done: "writes" });
      expect((calls[1]?.at ?? 0) - (calls[0]?.at ?? 0)).toBeGreaterThan(950);
    } else expect(structuredContent.details).toMatchObject({ ambiguous: true, status });
  });
});

describe("R6: a provider on stdio that dies with one call in four", () => {
  test.each(["legacy", "modern"])(
    "runs no tool twice that nobody vouches for, and repeats the others (%s)",
    async (era) => {
      const ledger = join(tempDir(), "ledger");
      const p = {
        command: chaos("--era", era, "--ledger", ledger, "--crash-rate", "0.25"),
        trust_annotations: true,
        restart: { limit: 100, healthy_s: 0 },
        circuit_breaker: { force: "closed" },
        retry: { budget: 1 },
      };
      const hangar = await startHttp({ config: configOf({ p }) });
      const answers = new Map<string, Json>();
      for (let n = 0; n < 24; n++) {
        const tool = n % 2 === 0 ? "count" : "read";
        const key = `${tool}-${n}`;
        for (;;) {
          const { structuredContent } = await hangar.invoke("p", tool, { key }, 20);
          // Not taken at all: it is for the caller to come again.
          if (structuredContent.code === "provider_degraded") {
            await sleep(structuredContent.retryAfterMs);
            continue;
          }
          answers.set(key, structuredContent);
          break;
        }
      }
      const lines = existsSync(ledger) ? readFileSync(ledger, "utf8").trim().split("\n") : [];
      const ran = (key: string): number => lines.filter((line) => line.includes(`"${key}"`)).length;
      let lost = 0;
      for (const [key, answer] of answers) {
        if (key.startsWith("read")) {
          expect(ran(key), key).toBeGreaterThanOrEqual(1);
          expect(ran(key), key).toBeLessThanOrEqual(3);
          continue;
        }
        expect(ran(key), key).toBe(1);
        if (answer.code === undefined) continue;
        lost++;
        expect(answer).toMatchObject({ code: "provider_exited", details: { ambiguous: true } });
      }
      const repeated = [...answers.keys()].filter((key) => key.startsWith("read") && ran(key) > 1);
      expect(lost + repeated.length).toBeGreaterThan(0);
    },
    60_000,
  );
});
