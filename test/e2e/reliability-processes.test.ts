/** R1 and R2: whatever becomes of Hangar and its providers, no process, descriptor or memory is left behind. */
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, onTestFinished, test } from "vitest";
import {
  chaos,
  configOf,
  fixture,
  type Json,
  startHttp,
  startStdio,
  StdioHangar,
  tempDir,
  waitFor,
} from "../harness.ts";
import { fileMarker } from "../leaks.ts";
import { childrenOf, descriptorsOf, findProcesses, isAlive, memoryOf } from "../processes.ts";
import { seeded } from "../seeded.ts";

/** What R1 gives Hangar's guardian, and the next Hangar, to end everything. */
const GONE_MS = 5_000;
const MIB = 1024 * 1024;

interface AnyHangar {
  readonly pid: number;
  readonly stateDir: string;
}

/** The id that a Hangar with a state directory of its own marks its processes with. */
function instanceOf({ stateDir }: AnyHangar): string {
  const [instance, ...others] = readdirSync(join(stateDir, "instances"));
  if (instance === undefined || others.length > 0) throw new Error("not one instance");
  return instance;
}

function processesOf(instance: string): number[] {
  return findProcesses(`HANGAR_INSTANCE=${instance}`).map(({ pid }) => pid);
}

/** The guardian among the children of a Hangar. */
function guardianOf({ pid }: AnyHangar): number | undefined {
  return childrenOf(pid, "mcp-hangar-guardian")[0];
}

/** Runs `command` as npx and its like do: a shell that stays, and the program as its child. */
function wrapped(command: readonly string[]): string[] {
  const words = command.map((word) => `'${word}'`).join(" ");
  return ["/bin/sh", "-c", `${words}; exit $?`];
}

/** A process that is none of Hangar's business, whatever it carries in its environment. */
function stranger(env: Record<string, string> = {}): number {
  const [name = "", value = ""] = fileMarker().split("=");
  const child = spawn("/bin/sleep", ["600"], { env: { [name]: value, ...env }, stdio: "ignore" });
  onTestFinished(() => void child.kill("SIGKILL"));
  return child.pid as number;
}

/** Kills a Hangar and its guardian, so that neither can do anything about what they leave. */
async function killBoth(hangar: StdioHangar): Promise<void> {
  const guardian = guardianOf(hangar) as number;
  process.kill(guardian, "SIGSTOP"); // or it would do its work
  hangar.kill("SIGKILL");
  await hangar.exit;
  process.kill(guardian, "SIGKILL");
  await waitFor("the guardian's end", () => !isAlive(guardian));
}

/** How long it takes until nothing is left of `instance`, in milliseconds. */
async function timeUntilGone(instance: string): Promise<number> {
  const began = performance.now();
  await waitFor(`the end of ${instance}`, () => processesOf(instance).length === 0, 2 * GONE_MS);
  return performance.now() - began;
}

describe("a Hangar that is killed", () => {
  test("R1: with twenty providers leaves nothing of them after 5 s, whatever they ignore, start or hide behind, and touches no stranger", async () => {
    const kinds: Record<string, string[]> = {
      stubborn: fixture("ignores-term-and-eof"),
      wrapped: wrapped(fixture("ignores-term-and-eof")),
      parent: fixture("spawns-grandchild"),
      runaway: fixture("spawns-escapee"),
    };
    const names = Object.keys(kinds).flatMap((kind) =>
      Array.from({ length: 5 }, (_, n) => `${kind}${n}`),
    );
    const providers = Object.fromEntries(
      names.map((name) => [
        name,
        { command: kinds[name.slice(0, -1)], startup_timeout_s: 60, protocol: "legacy" },
      ]),
    );
    const doomed = await startHttp({ config: configOf(providers) });
    const spared = await startStdio({
      config: configOf({ p: { command: fixture("spawns-escapee") } }),
    });
    const strangers = [stranger(), stranger({ HANGAR_INSTANCE: randomUUID() })];
    for (let n = 0; n < names.length; n += 4) {
      const four = names.slice(n, n + 4);
      await Promise.all(
        four.map(async (provider) => {
          const { isError } = await doomed.callTool("registry_start", { provider });
          expect(isError).toBeUndefined();
        }),
      );
    }
    const { pid, child } = (await spared.invoke("p", "pids")).structuredContent;
    const [instance, guardian] = [instanceOf(doomed), guardianOf(doomed) as number];
    // Each of the twenty, and one more of each that has a child.
    await waitFor("35 processes", () => processesOf(instance).length === 35);

    doomed.kill("SIGKILL");
    expect(await timeUntilGone(instance)).toBeLessThan(GONE_MS);
    await waitFor("the guardian's end", () => !isAlive(guardian));
    expect([pid, child, ...strangers].map(isAlive)).toEqual([true, true, true, true]);
    expect((await spared.invoke("p", "pids")).structuredContent).toEqual({ pid, child });
  }, 120_000);

  test.each([0, 30, 300])("R1: %i ms into a start leaves nothing of the start", async (ms) => {
    const flags = ["--hang", "spawn", "--ignore-term", "--ignore-eof", "--setsid-grandchild"];
    const config = configOf({ p: { command: wrapped(chaos(...flags)) } });
    const hangar = await startStdio({ config });
    const instance = instanceOf(hangar);
    hangar
      .request("tools/call", { name: "registry_start", arguments: { provider: "p" } })
      .catch(() => undefined);
    while (processesOf(instance).length === 0) await sleep(1);
    await sleep(ms);
    hangar.kill("SIGKILL");
    await hangar.exit;
    expect(await timeUntilGone(instance)).toBeLessThan(GONE_MS);
  });

  test("R1: together with its guardian leaves what the next Hangar ends within 5 s of its start, and neither a live Hangar's processes nor a stranger with a recycled process id", async () => {
    const stateDir = tempDir();
    const config = configOf({ p: { command: fixture("spawns-escapee") } });
    const doomed = await startStdio({ config, stateDir });
    const spared = await startStdio({ config, stateDir });
    const mine = (await doomed.invoke("p", "pids")).structuredContent;
    const theirs = (await spared.invoke("p", "pids")).structuredContent;
    await killBoth(doomed);
    // It ignores SIGTERM, and its stdin says nothing to it.
    expect(isAlive(mine.child)).toBe(true);
    // What is written down of a Hangar that died long ago names a process that somebody else has by now.
    const [elsewhere, long] = [randomUUID(), randomUUID()];
    const strangers = [stranger(), stranger({ HANGAR_INSTANCE: elsewhere })];
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
    const place = `${boot} ${readlinkSync("/proc/self/ns/pid")}`;
    writeFileSync(join(stateDir, "instances", long), `${strangers[0]} 1 ${place}\n`);
    const orphan = stranger({ HANGAR_INSTANCE: long });

    const began = performance.now();
    const next = await startStdio({ config, stateDir });
    const left = (): boolean => [mine.pid, mine.child, orphan].some(isAlive);
    await waitFor("the sweep", () => !left(), 2 * GONE_MS);
    expect(performance.now() - began).toBeLessThan(GONE_MS);
    expect(next.stderr).toContain("orphan_swept");
    expect([theirs.pid, theirs.child, ...strangers].map(isAlive)).toEqual(Array(4).fill(true));
    expect((await spared.invoke("p", "pids")).structuredContent).toEqual(theirs);
    const { pid, child } = (await next.invoke("p", "pids")).structuredContent;
    await Promise.all([next.close(), spared.close()]);
    const late = (): boolean => [pid, child, theirs.pid, theirs.child].some(isAlive);
    await waitFor("the end of what escaped", () => !late(), GONE_MS);
    expect(readdirSync(join(stateDir, "instances"))).toEqual([]);
  });

  test("R1: had a guardian before its first process, and another one after that was killed, which knows the providers that run", async () => {
    const config = configOf({ p: { command: fixture("ignores-term-and-eof") } });
    const hangar = await startStdio({ config });
    await hangar.invoke("p", "echo");
    const instance = instanceOf(hangar);
    const first = guardianOf(hangar) as number;
    // Process ids are given in order.
    expect(processesOf(instance)[0]).toBeGreaterThan(first);
    // One that dies young is taken for unable to work here.
    await sleep(1100);
    process.kill(first, "SIGKILL");
    await waitFor("another guardian", () => ![undefined, first].includes(guardianOf(hangar)));
    hangar.kill("SIGKILL");
    expect(await timeUntilGone(instance)).toBeLessThan(GONE_MS);
  });
});

/** How R2 ends calls that meet a stop, a kill or the end of their short deadline. */
const KNOWN_ENDS = new Set([
  undefined,
  "circuit_open",
  "provider_degraded",
  "provider_exited",
  "provider_stopped",
  "start_failed",
  "timeout",
]);

/** Starts the chaos server as a remote one; gives its URL. */
async function remoteChaos(): Promise<string> {
  const [command = "", ...args] = chaos("--http", "0");
  const [name = "", value = ""] = fileMarker().split("=");
  const child = spawn(command, args, {
    env: { [name]: value },
    stdio: ["ignore", "ignore", "pipe"],
  });
  onTestFinished(() => void child.kill("SIGKILL"));
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  return waitFor("its URL", () => /http:\S+/.exec(stderr)?.[0]);
}

/** What a Hangar's descriptors are, sorted: the number of those of a kind matters, not which. */
function kindsOfDescriptors(hangar: AnyHangar): string[] {
  return descriptorsOf(hangar.pid)
    .map((target) => target.replace(/:\[.*/, ""))
    .toSorted();
}

describe("a Hangar whose providers come and go", () => {
  const OPERATIONS = 200;
  const LANES = 6;

  test("R2: after 200 random calls, starts, stops and kills has no process, descriptor, zombie or memory more than before, and ends at once", async () => {
    const seed = Number(process.env["HANGAR_TEST_SEED"] ?? Date.now() % 1e9);
    const random = seeded(seed);
    const pick = <T>(of: readonly T[]): T => of[Math.floor(random() * of.length)] as T;
    const often = { restart: { limit: 100, healthy_s: 0 }, startup_timeout_s: 30 };
    const commands: Record<string, string[]> = {
      plain: fixture("add"),
      wrapped: wrapped(fixture("slow")),
      parent: fixture("spawns-grandchild"),
      chaos: chaos(),
    };
    const local = Object.entries(commands).map(([name, command]) => [
      name,
      { command, env: { PROVIDER: name }, ...often },
    ]);
    const providers = {
      ...Object.fromEntries(local),
      remote: { mode: "remote", endpoint: await remoteChaos() },
    };
    const names = Object.keys(providers);
    const hangar = await startStdio({
      config: configOf(providers),
      args: ["--log-level", "error"],
    });
    const instance = instanceOf(hangar);

    const each = (tool: string) =>
      Promise.all(names.map((provider) => hangar.callTool(tool, { provider })));
    async function kill(provider: string): Promise<void> {
      const own = findProcesses(`HANGAR_INSTANCE=${instance}`).filter(({ environment }) =>
        environment.includes(`PROVIDER=${provider}`),
      );
      if (own.length > 0) process.kill(pick(own).pid, "SIGKILL");
    }
    const operations: Record<string, (provider: string) => Promise<Json>> = {
      call: (provider) => hangar.invoke(provider, "echo", { n: 1 }),
      "hasty call": (provider) => hangar.invoke(provider, "echo", { n: 1 }, 0.1),
      start: (provider) => hangar.callTool("registry_start", { provider }),
      stop: (provider) => hangar.callTool("registry_stop", { provider }),
      kill,
    };
    async function rest(): Promise<void> {
      await each("registry_stop");
      await waitFor("the processes to end", () => processesOf(instance).length === 0);
    }

    await each("registry_start");
    await rest();
    const descriptors = kindsOfDescriptors(hangar);
    const memory = memoryOf(hangar.pid);
    const did: string[] = [];
    const ends = new Map<string, number>();
    async function lane(): Promise<void> {
      while (did.length < OPERATIONS) {
        const [what, provider] = [pick(Object.keys(operations)), pick(names)];
        did.push(`${what} ${provider}`);
        const { structuredContent, isError } = (await operations[what]?.(provider)) ?? {};
        const code = isError === true ? structuredContent.code : undefined;
        ends.set(code, (ends.get(code) ?? 0) + 1);
      }
    }
    await Promise.all(Array.from({ length: LANES }, lane));
    const story = `seed ${seed}: ${did.join(", ")}`;
    expect(
      [...ends.keys()].filter((code) => !KNOWN_ENDS.has(code)),
      story,
    ).toEqual([]);

    await rest();
    expect(childrenOf(hangar.pid, ""), story).toEqual([guardianOf(hangar)]);
    await waitFor(
      `as many descriptors as before; ${story}`,
      () => kindsOfDescriptors(hangar).join() === descriptors.join(),
    );

    expect(memoryOf(hangar.pid) - memory, story).toBeLessThan(16 * MIB);
    for (const name of names) {
      const { structuredContent } = await hangar.callTool("registry_start", { provider: name });
      expect(structuredContent, story).toMatchObject({ state: "ready" });
      expect((await hangar.invoke(name, "echo", { n: 1 })).structuredContent, story).toEqual({
        n: 1,
      });
      expect(await hangar.details(name)).toMatchObject({ in_flight: 0, queued: 0 });
    }
    await rest();
    const began = performance.now();
    expect(await hangar.close()).toEqual({ code: 0, signal: null });

    expect(performance.now() - began).toBeLessThan(1_000);
  }, 240_000);
});
