/** Providers that say too much, and servers on the network that say too little: how often Hangar asks, and that it recovers. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import {
  chaos,
  configOf,
  fixture,
  type Json,
  startHttp,
  startStdio,
  tempDir,
  waitFor,
} from "../harness.ts";
import { enveloped, openStream } from "../remote-server.ts";

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
