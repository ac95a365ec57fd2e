/** Providers that say too much, and servers on the network that say too little: how often Hangar asks, and that it recovers. */
import { readFileSync } from "node:fs";
import type { ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import {
  chaos,
  configOf,
  fixture,
  type Json,
  runCli,
  startHttp,
  startStdio,
  tempDir,
  waitFor,
} from "../harness.ts";
import {
  enveloped,
  legacy,
  note,
  openEvents,
  openStream,
  type Received,
  startRemote,
} from "../remote-server.ts";

const CHANGED = "notifications/tools/list_changed";

describe("a provider that says ten thousand times a second that its list has changed", () => {
  const CHANGES = 15_000;
  const LAST = `changing_${CHANGES}`;
  /** Between two notifications that a client gets. */
  const INTERVAL_MS = 300;

  /** Such a provider, and the requests that Hangar has made to it. */
  function storm(era: "legacy" | "modern") {
    const log = join(tempDir(), "requests");
    const flags = ["--list-changed-per-s", "10000", "--list-changed-times", `${CHANGES}`];
    const server = chaos("--era", era, ...flags, "--list-changed-real");
    return {
      p: { command: ["/bin/sh", "-c", 'tee "$0" | exec "$@"', log, ...server] },
      other: { command: fixture("add") },
      listings: () => readFileSync(log, "utf8").split('"method":"tools/list"').length - 1,
    };
  }

  /** What a client gets that listens: at once, now and then, and at the end; `tookMs` from the first to the last. */
  function expectFew(notifications: number, tookMs: number): void {
    expect(notifications).toBeGreaterThanOrEqual(3);
    expect(notifications).toBeLessThanOrEqual(Math.ceil(tookMs / INTERVAL_MS) + 2);
  }

  test("R15: is passed on at once, then every 300 ms, and the last change of all", async () => {
    const { listings, ...providers } = storm("legacy");
    const hangar = await startStdio({ config: configOf(providers), args: ["--provider", "p"] });
    let heard = 0;
    let names: string[] = [];
    let began = 0;
    // As clients do: what has changed is read again, and nothing else.
    await waitFor(
      "the last change",
      async () => {
        const { length } = hangar.notifications.filter(({ method }) => method === CHANGED);
        if (length > heard) {
          began ||= performance.now();
          heard = length;
          const { tools } = (await hangar.request("tools/list")).result;
          names = tools.map(({ name }: Json) => name);
        }
        return names.includes(LAST);
      },
      15_000,
    );
    expectFew(heard, performance.now() - began);
    await sleep(2 * INTERVAL_MS);
    const all = hangar.notifications.filter(({ method }) => method === CHANGED);
    // The end of the storm may have been read before it was told.
    expect(all.length).toBeLessThanOrEqual(heard + 1);
    // The first is Hangar's own, when the provider starts.
    expect(listings()).toBeLessThanOrEqual(heard + 1);
  });

  test("R15: is passed on to a subscription in the same way", async () => {
    const { listings, ...providers } = storm("modern");
    const hangar = await startHttp({ config: configOf(providers), era: "modern" });
    const listen = {
      jsonrpc: "2.0",
      id: "mine",
      method: "subscriptions/listen",
      params: enveloped({ notifications: { toolsListChanged: true } }),
    };
    const path = "/mcp/p";
    const events = await openStream(hangar.origin + path, hangar.headersFor(listen), listen);
    const changes = () => events.messages.filter(({ method }) => method === CHANGED);
    await waitFor("the first change", () => changes().length > 0);
    const began = performance.now();
    let names: string[] = [];
    let heard = 0;
    await waitFor(
      "the last change",
      async () => {
        if (changes().length > heard) {
          heard = changes().length;
          const list = { jsonrpc: "2.0", id: heard, method: "tools/list", params: enveloped() };
          const reply = await hangar.post(list, hangar.headersFor(list), path);
          names = reply.messages[0].result.tools.map(({ name }: Json) => name);
        }
        return names.includes(LAST);
      },
      15_000,
    );
    expectFew(heard, performance.now() - began);
    await sleep(2 * INTERVAL_MS);
    expect(changes().length).toBeLessThanOrEqual(heard + 1);
    for (const { params } of changes()) {
      expect(params._meta["io.modelcontextprotocol/subscriptionId"]).toBe("mine");
    }
    expect(listings()).toBeLessThanOrEqual(heard + 1);
    events.close();
  });

  test("R15: is asked for the list when somebody wants it, and slows no other provider", async () => {
    const { listings, ...providers } = storm("legacy");
    const hangar = await startStdio({ config: configOf(providers) });
    await hangar.invoke("other", "echo");
    const before = await medianMs(hangar);
    await hangar.callTool("registry_start", { provider: "p" });
    const during = await medianMs(hangar);
    expect(listings()).toBe(1);
    const wanted = 5;
    for (let n = 0; n < wanted; n++) await hangar.callTool("registry_tools", { provider: "p" });
    expect(listings()).toBeLessThanOrEqual(1 + wanted);
    await sleep(1000 * (CHANGES / 10_000));
    await waitFor("the last change", async () => {
      const { structuredContent } = await hangar.callTool("registry_tools", { provider: "p" });
      return structuredContent.tools.some(({ name }: Json) => name === LAST);
    });
    const listed = listings();
    await hangar.callTool("registry_tools", { provider: "p" });
    expect(listings()).toBe(listed);
    expect(during).toBeLessThan(5 * before + 10);
  });

  test.each(["end", "crash"])(
    "R15: is passed on before the subscription or the provider ends (%s)",
    async (end) => {
      const hangar = await startStdio({
        config: configOf({ p: { command: fixture("listens") } }),
        args: ["--provider", "p"],
        era: "modern",
      });
      const params = enveloped({ notifications: { toolsListChanged: true } });
      hangar.send({ jsonrpc: "2.0", id: "s", method: "subscriptions/listen", params });
      await waitFor("the acknowledgement", () => hangar.notifications.length === 1);
      for (const tag of [1, 2, 3]) {
        const call = enveloped({ name: "change", arguments: { tag } });
        hangar.send({ jsonrpc: "2.0", id: `change ${tag}`, method: "tools/call", params: call });
      }
      await hangar.request("tools/call", { name: end, arguments: {} });
      const tags = hangar.notifications
        .filter(({ method }) => method === CHANGED)
        .map(({ params: said }) => said.tag);
      expect(tags).toEqual([1, 3]);
    },
  );

  /** Of 50 calls to the other provider. */
  async function medianMs(hangar: { invoke(p: string, tool: string): Promise<Json> }) {
    const times: number[] = [];
    for (let n = 0; n < 50; n++) {
      const began = performance.now();
      await hangar.invoke("other", "echo");
      times.push(performance.now() - began);
    }
    return times.toSorted((a, b) => a - b)[25] ?? 0;
  }
});

/** What a server does to each request while it is ill, and the errors that calls to one that ran until then end with. */
const ILLNESSES: Record<
  string,
  { strike(received: Received): unknown; codes: string[]; mayRepeat?: true }
> = {
  "closes each connection": {
    strike: ({ response }) => response.socket?.destroy(),
    codes: ["remote_failed", "remote_unreachable", "circuit_open"],
  },
  "resets each connection": {
    strike: ({ response }) => (response.socket as Socket).resetAndDestroy(),
    codes: ["remote_failed", "remote_unreachable", "circuit_open"],
  },
  "answers 200 and ends": {
    strike({ response }) {
      openEvents(response);
      response.end();
    },
    codes: ["remote_failed", "circuit_open"],
  },
  "answers 404": {
    strike: ({ response }) => response.writeHead(404).end(),
    codes: ["start_failed", "provider_degraded", "session_lost", "remote_failed", "circuit_open"],
    mayRepeat: true, // it says that it never processed the request
  },
  "answers 503": {
    strike: ({ response }) => response.writeHead(503, { "retry-after": "1" }).end(),
    codes: ["remote_failed", "timeout", "circuit_open"],
    mayRepeat: true, // it says so itself
  },
  drips: {
    strike({ response }) {
      response.writeHead(200, { "content-type": "application/json" });
      const timer = setInterval(() => response.write(" "), 50);
      response.once("close", () => clearInterval(timer));
    },
    codes: ["timeout", "circuit_open"],
  },
};

describe("a server on the network that is called all the time while it is ill for two seconds", () => {
  const ILL_MS = 2000;
  const CALL_EVERY_MS = 25;
  /** How often Hangar may connect anew of its own accord meanwhile, after the first time. */
  const RECONNECTS = 5;

  /** A legacy server with a GET stream, which can fall ill. */
  async function patient(name: string, startup_timeout_s: number) {
    const state = { ill: false };
    const streams: ServerResponse[] = [];
    const server = await startRemote(
      (received) => {
        if (!state.ill) return false;
        ILLNESSES[name]?.strike(received);
        return true;
      },
      ({ http, response }) => {
        if (http !== "GET") return false;
        openEvents(response);
        return streams.push(response);
      },
      legacy(),
    );
    const endpoint = server.url;
    const limits = { timeout_s: 1, startup_timeout_s, circuit_breaker: { open_s: 1 } };
    const config = configOf({ p: { mode: "remote", endpoint, ...limits } });
    return { server, streams, state, config };
  }

  /** Makes calls for that long; returns the error codes of all of them. */
  async function callFor(ms: number, call: (n: number) => Promise<Json>): Promise<Set<string>> {
    const calls: Promise<Json>[] = [];
    for (const end = performance.now() + ms; performance.now() < end; await sleep(CALL_EVERY_MS)) {
      calls.push(call(calls.length));
    }
    expect(calls.length).toBeGreaterThan(20);
    return new Set((await Promise.all(calls)).map(({ code }) => code));
  }

  /** Calls until one succeeds. */
  async function recovery(call: (n: number) => Promise<Json>): Promise<void> {
    const recovered = async () => {
      await sleep(CALL_EVERY_MS);
      return (await call(-1)).n === -1;
    };
    await waitFor("a call to succeed", recovered, 20_000);
  }

  /** How many of `requests` were of each method. */
  function countByMethod(requests: readonly Received[]): Map<string, number> {
    const counts = new Map<string, number>();
    for (const { http, message } of requests) {
      const method = message?.method ?? http;
      counts.set(method, (counts.get(method) ?? 0) + 1);
    }
    return counts;
  }

  test.each(Object.keys(ILLNESSES))(
    "R16: from the start (it %s) is tried a few times, and comes up when it is well",
    async (name) => {
      const { server, state, config } = await patient(name, 2);
      const hangar = await startStdio({ config });
      const call = async (n: number) => (await hangar.invoke("p", "echo", { n })).structuredContent;
      state.ill = true;
      const until = performance.now() + ILL_MS;
      const codes = await callFor(ILL_MS, call);
      const counts = countByMethod(server.received.filter(({ at }) => at < until));
      state.ill = false;
      const expected = [
        "start_failed",
        "start_timeout",
        "timeout",
        "provider_degraded",
        "circuit_open",
      ];
      expect([...codes].filter((code) => !expected.includes(code))).toEqual([]);
      expect(counts.get("server/discover")).toBeGreaterThanOrEqual(1);
      for (const count of counts.values()) expect(count).toBeLessThanOrEqual(1 + RECONNECTS);
      await recovery(call);
      expect(await hangar.details("p")).toMatchObject({ state: "ready" });
    },
    40_000,
  );

  test.each(Object.entries(ILLNESSES))(
    "R16: while it runs (it %s) gets each call once, and is heard again when it is well",
    async (name, { codes, mayRepeat }) => {
      const { server, state, streams, config } = await patient(name, 10);
      const hangar = await startStdio({ config, args: ["--provider", "p"] });
      const call = async (n: number) => {
        const reply = await hangar.request("tools/call", { name: "echo", arguments: { n } });
        return reply.error?.data ?? reply.result.structuredContent;
      };
      await waitFor("the stream", () => streams.length > 0);
      const before = server.received.length;
      const until = performance.now() + ILL_MS;
      state.ill = true;
      for (const socket of server.sockets) socket.resetAndDestroy();
      const seen = await callFor(ILL_MS, call);
      const requests = server.received.slice(before);
      state.ill = false;
      expect([...seen].filter((code) => !codes.includes(code))).toEqual([]);
      const calls = requests.filter(({ message }) => message?.method === "tools/call");
      const different = new Set(calls.map(({ message }) => message.params.arguments.n));
      if (mayRepeat !== true) expect(different.size).toBe(calls.length);
      for (const [method, count] of countByMethod(requests.filter(({ at }) => at < until))) {
        const ours = method !== "tools/call" && method !== "notifications/cancelled";
        // A new session begins with the question whether the server is of the other era by now.
        if (ours) expect(count, method).toBeLessThanOrEqual(2 + RECONNECTS);
      }
      await recovery(call);
      const heard = () => hangar.notifications.some(({ method }) => method === CHANGED);
      await waitFor(
        "what it says of its own accord",
        () => {
          const stream = streams.slice(1).at(-1);
          if (stream !== undefined) note(stream, CHANGED);
          return heard();
        },
        10_000,
      );
    },
    40_000,
  );
});

test("R16: a server that answers one byte at a time gives the right answer", async () => {
  let stderr = "";
  void runCli(["chaos-server", "--http", "0", "--drip-ms", "1"], {
    started: (child) => child.stderr?.on("data", (text) => (stderr += text)),
  });
  const endpoint = await waitFor("its address", () => /http:\S+/.exec(stderr)?.[0]);
  const hangar = await startStdio({ config: configOf({ p: { mode: "remote", endpoint } }) });
  expect((await hangar.invoke("p", "echo", { text: "caf\u00e9" })).structuredContent).toEqual({
    text: "caf\u00e9",
  });
}, 40_000);
