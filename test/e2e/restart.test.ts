/** What happens to a provider that crashes. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import {
  configOf,
  fixture,
  type Json,
  startedPids,
  startHttp,
  startStdio,
  tempDir,
  waitFor,
} from "../harness.ts";

const TOOL = (name: string): Json => ({ name, inputSchema: { type: "object" } });

/** A puppet whose list of tools stands in a file. */
function puppet(dir: string): { provider: Json; offer: (...names: string[]) => void } {
  const tools = join(dir, "tools");
  const offer = (...names: string[]): void =>
    writeFileSync(tools, JSON.stringify({ tools: names.map(TOOL) }));
  offer("say");
  const env = { PUPPET_TOOLS: tools };
  return { provider: { command: fixture("puppet"), env, protocol: "legacy" }, offer };
}

async function crash(hangar: { invoke: (...args: any[]) => Promise<Json> }): Promise<Json> {
  return (await hangar.invoke("p", "say", { exit: 7 })).structuredContent;
}

describe("a provider that crashes", () => {
  test("R5: ends its call at once, harms no other, comes back by itself with its tools read again, and says once that they changed", async () => {
    const { provider, offer } = puppet(tempDir());
    const config = configOf({ p: provider, works: { command: fixture("slow") } });
    const hangar = await startHttp({ config });
    const client = await startStdio({ config, args: ["--provider", "p"] });
    await client.request("tools/list");
    await hangar.invoke("works", "echo");
    await hangar.callTool("registry_start", { provider: "p" });
    const other = hangar.invoke("works", "sleep", { ms: 600 });

    offer("say", "sing");
    const began = performance.now();
    expect(await crash(hangar)).toMatchObject({
      code: "provider_exited",
      details: { ambiguous: true },
    });
    // From the request to the answer, on a slow machine.
    expect(performance.now() - began).toBeLessThan(1_000);
    const listed = await waitFor("the tools of the next run", async () => {
      const { run, tools } = await hangar.details("p");
      return run === 2 && tools.length === 2 && tools;
    });
    expect(listed.map(({ name }: Json) => name)).toEqual(["say", "sing"]);
    expect((await other).structuredContent).toEqual({ slept: 600 });

    // A client of the provider alone is told.
    offer("say", "sing", "dance");
    await client.request("tools/call", { name: "say", arguments: { exit: 7 } });
    const changes = (): Json[] =>
      client.notifications.filter(({ method }) => method === "notifications/tools/list_changed");
    await waitFor("the news", () => changes().length > 0);
    const tools = (await client.request("tools/list")).result.tools;
    expect(tools.map(({ name }: Json) => name)).toEqual(["say", "sing", "dance"]);
    await sleep(200);
    expect(changes()).toHaveLength(1);
  });

  test("stays down when it would be idle by then, until its next call", async () => {
    const log = join(tempDir(), "starts");
    const hangar = await startStdio({
      config: configOf({
        p: { command: fixture("crash-mid-call"), env: { START_LOG: log }, idle_ttl_s: 0.05 },
      }),
    });
    await hangar.invoke("p", "crash");
    await sleep(700);
    expect(startedPids(log)).toHaveLength(1);
    expect((await hangar.invoke("p", "echo", { n: 1 })).structuredContent).toEqual({ n: 1 });
  });

  test("R5: again and again, is dead by a crash loop after restart.limit failures, and a manual start leads out", async () => {
    const dir = tempDir();
    const log = join(dir, "starts");
    const script = `echo $$ >> '${log}'; test -e '${join(dir, "ok")}' || { echo "no luck" >&2; exit 5; }; exec ${fixture("add").join(" ")}`;
    const command = ["/bin/sh", "-c", script];
    const hangar = await startStdio({
      config: configOf({ p: { command, restart: { limit: 3 }, protocol: "legacy" } }),
    });
    for (let n = 0; n < 3; n++) {
      await hangar.callTool("registry_start", { provider: "p" });
    }
    const details = await hangar.details("p");
    expect(details).toMatchObject({ state: "dead", dead_because: "crash_loop", alive: false });
    expect(details.reason).toMatch(/^crash loop: 3 failures within 60 s; the last: .*exit code 5/s);
    expect(details.reason).toContain("no luck");
    const refused = (await hangar.invoke("p", "echo")).structuredContent;
    expect(refused).toMatchObject({ code: "provider_dead", details: { cause: "crash_loop" } });
    expect(startedPids(log)).toHaveLength(3);
    writeFileSync(join(dir, "ok"), "");
    await hangar.callTool("registry_start", { provider: "p" });
    expect((await hangar.invoke("p", "echo", { n: 1 })).structuredContent).toEqual({ n: 1 });
    expect(await hangar.details("p")).toMatchObject({ state: "ready", dead_because: null });
  });

  test("is restarted until it is dead, without anybody calling it", async () => {
    const dir = tempDir();
    const log = join(dir, "starts");
    const ok = join(dir, "ok");
    writeFileSync(ok, "");
    // Comes up once, and never again.
    const script = `echo $$ >> '${log}'; test -e '${ok}' || exit 5; rm '${ok}'; exec ${fixture("crash-mid-call").join(" ")}`;
    const hangar = await startStdio({
      config: configOf({
        p: { command: ["/bin/sh", "-c", script], restart: { limit: 3 }, protocol: "legacy" },
      }),
    });
    await hangar.invoke("p", "crash");
    const details = await hangar.waitForState("p", "dead");
    expect(details).toMatchObject({ dead_because: "crash_loop", run: 3, restarts: 2 });
    await sleep(300);
    expect(startedPids(log)).toHaveLength(3);
  });

  test("is forgiven after restart.healthy_s, and stops count for nothing", async () => {
    const hangar = await startStdio({
      config: configOf({
        p: {
          command: fixture("crash-mid-call"),
          restart: { limit: 2, healthy_s: 0 },
          protocol: "legacy",
        },
        strict: { command: fixture("add"), restart: { limit: 2 }, protocol: "legacy" },
      }),
    });
    for (let run = 1; run <= 4; run++) {
      await hangar.invoke("p", "crash");
      await waitFor("the next run", async () => {
        const { run: now, state } = await hangar.details("p");
        return now === run + 1 && state === "ready";
      });
    }
    for (let n = 0; n < 4; n++) {
      await hangar.invoke("strict", "echo");
      await hangar.callTool("registry_stop", { provider: "strict" });
    }
    expect(await hangar.details("strict")).toMatchObject({ state: "cold", restarts: 0, run: 4 });
  });
});

describe("many starts", () => {
  test("at once take turns, those that somebody waits for first, and hung ones hold up no other for long", async () => {
    const log = join(tempDir(), "starts");
    const hung = Object.fromEntries(
      Array.from({ length: 8 }, (_, n) => [
        `hung${n}`,
        { command: ["/bin/sleep", "60"], startup_timeout_s: 30, protocol: "legacy" },
      ]),
    );
    const hangar = await startStdio({
      config: configOf({ ...hung, p: { command: fixture("add"), env: { START_LOG: log } } }),
    });
    const waiting = Object.keys(hung).map((name) => hangar.invoke(name, "echo", {}, 6));
    await sleep(100);
    const began = performance.now();
    expect((await hangar.invoke("p", "echo", { n: 1 }, 10)).structuredContent).toEqual({ n: 1 });
    // Two turns of two seconds at most on two processors, and its own start.
    expect(performance.now() - began).toBeLessThan(6_000);
    for (const one of await Promise.all(waiting)) {
      expect(one.structuredContent).toMatchObject({ code: "timeout" });
    }
  }, 20_000);
});
