/** R3, R4 and R7: calls that come all at once, calls of providers that hang, and calls that nobody waits for any more. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { request as httpRequest } from "node:http";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { beforeAll, describe, expect, test } from "vitest";
import {
  chaos,
  configOf,
  ENVELOPE,
  fixture,
  HttpHangar,
  type Json,
  startedPids,
  startHttp,
  startStdio,
  type StdioHangar,
  tempDir,
  waitFor,
} from "../harness.ts";
import { fileMarker } from "../leaks.ts";
import { findProcesses, isAlive } from "../processes.ts";

type AnyHangar = StdioHangar | HttpHangar;

const FRONTS = [
  ["stdio", "legacy"],
  ["stdio", "modern"],
  ["HTTP", "legacy"],
  ["HTTP", "modern"],
] as const;
type Front = (typeof FRONTS)[number];

function startOn([front, era]: Front, config: string): Promise<AnyHangar> {
  return front === "stdio" ? startStdio({ config, era }) : startHttp({ config, era });
}

/** A call whose client may lose interest. */
interface Begun {
  /** As clients of this front and era do it. */
  cancel(): void;
  /** The answers to it so far. */
  answers(): Json[];
}

/** Sends a registry_invoke whose id is the raw text `id`. */
function begin(hangar: AnyHangar, id: string, args: Json): Begun {
  const _meta = hangar.era === "modern" ? { _meta: ENVELOPE } : {};
  const call = {
    method: "tools/call",
    params: { name: "registry_invoke", arguments: args, ..._meta },
  };
  const text = `{"jsonrpc":"2.0","id":${id},${JSON.stringify(call).slice(1)}`;
  const params = `{"requestId":${id}${hangar.era === "modern" ? `,"_meta":${JSON.stringify(ENVELOPE)}` : ""}}`;
  const cancel = `{"jsonrpc":"2.0","method":"notifications/cancelled","params":${params}}`;
  if (hangar instanceof HttpHangar) return beginHttp(hangar, call, text, cancel);
  hangar.send(text);
  return {
    cancel: () => hangar.send(cancel),
    answers: () =>
      hangar.lines.filter((line) => line.includes(`"id":${id},`)).map((line) => JSON.parse(line)),
  };
}

function beginHttp(hangar: HttpHangar, call: Json, text: string, cancel: string): Begun {
  const headers = {
    "content-type": "application/json",
    accept: "application/json, text/event-stream",
    ...hangar.headersFor(call),
  };
  const { port } = hangar;
  let body = "";
  const options = { host: "127.0.0.1", port, method: "POST", path: "/mcp", headers, agent: false };
  const request = httpRequest(options, (response) => {
    response.setEncoding("utf8").on("error", () => undefined);
    response.on("data", (chunk: string) => {
      body += chunk;
    });
  });
  request.on("error", () => undefined);
  request.end(text);
  return {
    cancel() {
      if (hangar.era === "modern") request.destroy();
      else void hangar.post(cancel, hangar.headersFor({}));
    },
    answers: () =>
      body
        .split("\n")
        .map((line) => line.replace(/^data: ?/, ""))
        .filter((line) => line.startsWith("{"))
        .map((line) => JSON.parse(line)),
  };
}

/** The lines of a file, each of which is JSON. */
function linesOf(file: string): Json[] {
  if (!existsSync(file)) return [];
  return readFileSync(file, "utf8")
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line));
}

function median(times: readonly number[]): number {
  return times.toSorted((a, b) => a - b)[Math.floor(times.length / 2)] ?? 0;
}

async function timed<T>(work: Promise<T>): Promise<{ ms: number; value: T }> {
  const began = performance.now();
  const value = await work;
  return { ms: performance.now() - began, value };
}

describe.each([FRONTS[0], FRONTS[3]])(
  "over %s, in the %s era, first calls of a cold provider",
  (...front) => {
    const CALLS = 500;
    const numbers = [...Array(CALLS).keys()];

    test("R3: start it once when 500 come at the same time, and each gets its own answer", async () => {
      const log = join(tempDir(), "starts");
      const env = { START_LOG: log, START_MS: "300", FIXTURE_ERA: "dual" };
      const config = configOf({ p: { command: fixture("counts-starts"), env } });
      const hangar = await startOn(front, config);
      const results = await Promise.all(numbers.map((n) => hangar.invoke("p", "echo", { n })));
      expect(results.map(({ structuredContent }) => structuredContent.n)).toEqual(numbers);
      expect(startedPids(log)).toHaveLength(1);
      expect(await hangar.details("p")).toMatchObject({ state: "ready", run: 1, in_flight: 0 });
    });

    test("R3: try to start it once when 500 come at the same time, and each gets the error long before its deadline", async () => {
      const dir = tempDir();
      const [log, go] = [join(dir, "starts"), join(dir, "go")];
      const script = `echo $$ >> '${log}'; until test -e '${go}'; do sleep 0.1; done; echo "no luck" >&2; exit 5`;
      const config = configOf({
        p: { command: ["/bin/sh", "-c", script], protocol: "legacy", max_concurrency: CALLS },
      });
      const hangar = await startOn(front, config);
      const results = numbers.map((n) => hangar.invoke("p", "echo", { n }));
      // Requests are served in the order they come: then all of them wait.
      await hangar.details("p");
      writeFileSync(go, "");
      const { ms, value } = await timed(Promise.all(results));
      // The deadline is a minute; this is the time for five hundred answers on a slow machine.
      expect(ms).toBeLessThan(6_000);
      for (const { isError, structuredContent } of value) {
        expect(isError).toBe(true);
        expect(structuredContent).toMatchObject({
          code: "start_failed",
          type: "ProviderStartError",
          error: expect.stringContaining("exit code 5"),
        });
      }
      expect(startedPids(log)).toHaveLength(1);
      expect(await hangar.details("p")).toMatchObject({
        state: "degraded",
        run: 1,
        health: { consecutive_failures: 1 },
      });
    });

    test("R3: take nobody along when they give up or are cancelled, and are not sent then", async () => {
      const ledger = join(tempDir(), "ledger");
      const config = configOf({ p: { command: chaos("--start-ms", "1500", "--ledger", ledger) } });
      const hangar = await startOn(front, config);
      const keys = (kind: string, many: number) =>
        Array.from({ length: many }, (_, n) => `${kind}${n}`);
      const patient = keys("patient", 80).map((key) => hangar.invoke("p", "count", { key }));
      const hasty = keys("hasty", 10).map((key) =>
        timed(hangar.invoke("p", "count", { key }, 0.4)),
      );
      const gone = keys("gone", 10).map((key) =>
        begin(hangar, `"${key}"`, { provider: "p", tool: "count", arguments: { key } }),
      );
      await sleep(100);
      for (const call of gone) call.cancel();
      for (const { ms, value } of await Promise.all(hasty)) {
        expect(value.structuredContent).toMatchObject({
          code: "timeout",
          type: "ToolTimeoutError",
        });
        expect(ms).toBeGreaterThan(380);
        expect(ms).toBeLessThan(1_400);
      }
      for (const { structuredContent } of await Promise.all(patient)) {
        expect(structuredContent).toMatchObject({ value: 1 });
      }
      const ran = linesOf(ledger);
      expect(ran.map(({ key }) => key)).toEqual(keys("patient", 80));
      expect(new Set(ran.map(({ pid }) => pid)).size).toBe(1);
      expect(await hangar.details("p")).toMatchObject({
        state: "ready",
        health: { consecutive_failures: 0 },
      });
    });
  },
);

describe("a provider that hangs", () => {
  const STARTUP_S = 4;
  const STUBBORN = ["--ignore-term", "--ignore-eof", "--grandchild"];
  /** How late an answer may be on a slow machine, in milliseconds. */
  const LATE_MS = 800;
  /** How much longer than twice as long another provider's calls may take, in milliseconds. */
  const SLOWER_MS = 20;
  const STARTS = [
    ["everything", ["--hang", "spawn"]],
    ["initialize", ["--era", "legacy", "--hang", "initialize"]],
    ["server/discover", ["--era", "modern", "--hang", "server/discover"]],
    ["tools/list", ["--hang", "tools/list"]],
  ] as const;
  let hangar: HttpHangar;

  beforeAll(async () => {
    const starts = STARTS.map(([what, flags]) => {
      const name = what.replace("/", "-");
      const protocol = what === "initialize" ? { protocol: "legacy" } : {};
      const command = chaos(...flags, ...STUBBORN);
      const env = { PROVIDER: name };
      return [name, { command, env, startup_timeout_s: STARTUP_S, ...protocol }];
    });
    const config = configOf({
      ...Object.fromEntries(starts),
      call: { command: chaos("--hang", "tools/call") },
      close: { command: chaos(...STUBBORN) },
      works: { command: fixture("add") },
    });
    hangar = await startHttp({ config });
    await hangar.invoke("works", "echo");
  });

  /** What runs for the provider of that name. */
  function processesOf(name: string): number[] {
    return findProcesses(fileMarker())
      .filter(({ environment }) => environment.includes(`PROVIDER=${name}`))
      .map(({ pid }) => pid);
  }

  /** How long a call of another provider takes, the median of forty, in milliseconds. */
  async function others(): Promise<number> {
    const times: number[] = [];
    for (let n = 0; n < 40; n++) {
      const { ms, value } = await timed(hangar.invoke("works", "echo", { n }));
      expect(value.structuredContent).toEqual({ n });
      times.push(ms);
    }
    return median(times);
  }

  test.each(STARTS)(
    "R4: at %s in its start holds up its callers until their deadlines, no other provider, and is gone then",
    async (what) => {
      const name = what.replace("/", "-");
      const before = await others();
      const hasty = [0.5, 1, 1.5].map((s) => timed(hangar.invoke(name, "echo", {}, s)));
      const patient = [1, 2].map(() => timed(hangar.invoke(name, "echo", {}, 20)));
      // Its own start takes the machine's time, whatever becomes of it.
      await waitFor("the server and its child", () => processesOf(name).length === 2);
      const during = await others();
      for (const [n, { ms, value }] of (await Promise.all(hasty)).entries()) {
        expect(value.structuredContent).toMatchObject({ code: "timeout" });
        expect(ms).toBeGreaterThan((n + 1) * 500 - 20);
        expect(ms).toBeLessThan((n + 1) * 500 + LATE_MS);
      }
      for (const { ms, value } of await Promise.all(patient)) {
        expect(value.structuredContent).toMatchObject({ code: "start_timeout" });
        expect(ms).toBeLessThan(STARTUP_S * 1000 + 2 * LATE_MS);
      }
      expect(processesOf(name)).toEqual([]);
      expect(await hangar.details(name)).toMatchObject({ state: "degraded", alive: false });
      expect(during).toBeLessThan(2 * before + SLOWER_MS);
    },
  );

  test("R4: at a call holds up that call until its deadline, and no other provider", async () => {
    await hangar.callTool("registry_start", { provider: "call" });
    const before = await others();
    const calls = [0.5, 1, 1.5].map((s) => timed(hangar.invoke("call", "echo", {}, s)));
    const during = await others();
    for (const [n, { ms, value }] of (await Promise.all(calls)).entries()) {
      expect(value.structuredContent).toMatchObject({ code: "timeout" });
      expect(ms).toBeGreaterThan((n + 1) * 500 - 20);
      expect(ms).toBeLessThan((n + 1) * 500 + LATE_MS);
    }
    expect(during).toBeLessThan(2 * before + SLOWER_MS);
    // Deadlines that callers chose are no news about the provider, which lives on.
    expect(await hangar.details("call")).toMatchObject({ state: "ready", in_flight: 0, run: 1 });
  });

  test("R4: at its stop is killed, and holds up its next callers until their deadlines, and no other provider", async () => {
    await hangar.callTool("registry_start", { provider: "close" });
    const { pid, children } = (await hangar.invoke("close", "pid")).structuredContent;
    const before = await others();
    const stop = timed(hangar.callTool("registry_stop", { provider: "close" }));
    const [hasty, patient] = [0.5, 14].map((s) => timed(hangar.invoke("close", "pid", {}, s)));
    const during = await others();
    const { ms, value } = await (hasty as NonNullable<typeof hasty>);
    expect(value.structuredContent).toMatchObject({ code: "timeout" });
    expect(ms).toBeLessThan(500 + LATE_MS);
    expect((await stop).value.isError).toBeUndefined();
    // Two seconds after the end of its stdin, two after SIGTERM.
    expect((await stop).ms).toBeLessThan(4_000 + 2 * LATE_MS);
    expect([pid, ...children].filter(isAlive)).toEqual([]);
    const next = (await patient)?.value.structuredContent;
    expect(next.pid).toEqual(expect.any(Number));
    expect(next.pid).not.toBe(pid);
    expect(during).toBeLessThan(2 * before + SLOWER_MS);
  });
});

describe.each(FRONTS)("over %s, in the %s era, a call that nobody waits for", (...front) => {
  let dir: string;
  let hangar: AnyHangar;

  beforeAll(async () => {
    dir = tempDir();
    const puppet = (name: string): Json => ({
      command: fixture("puppet"),
      env: { PUPPET_LOG: join(dir, name) },
      protocol: "legacy",
    });
    const config = configOf({
      p: puppet("p"),
      q: puppet("q"),
      narrow: { ...puppet("narrow"), max_concurrency: 1 },
      late: { command: chaos("--reply-after-cancel") },
    });
    hangar = await startOn(front, config);
    await Promise.all(
      ["p", "q", "narrow", "late"].map((provider) =>
        hangar.callTool("registry_start", { provider }),
      ),
    );
  });

  /** The `say` with this mark, as the provider has received it. */
  function callIn(provider: string, as: string): Json {
    return linesOf(join(dir, provider)).find(({ params }) => params?.arguments?.as === as);
  }

  /** The ids that the provider was told to cancel. */
  function cancelledIn(provider: string): Json[] {
    return linesOf(join(dir, provider))
      .filter(({ method }) => method === "notifications/cancelled")
      .map(({ params }) => params.requestId);
  }

  /** Begins a call that is never answered; gives it with the id that the provider knows it by. */
  async function open(provider: string, id: string, as: string) {
    const call = begin(hangar, id, { provider, tool: "say", arguments: { as } });
    const received = await waitFor("the call", () => callIn(provider, as));
    return { call, upstream: received.id as number };
  }

  async function cancelArrives(provider: string, upstream: number): Promise<void> {
    const end = performance.now() + 8_000;
    while (!cancelledIn(provider).includes(upstream)) {
      if (performance.now() > end) throw new Error("the cancel did not arrive");
      await sleep(2);
    }
  }

  test("R7: is cancelled at the provider that has it, at once and under the id known there, whatever the client's own id", async () => {
    const ids = ["0", '"0"', '"q\\"uote"', "-1", "9007199254740993", '"9007199254740993"', "7"];
    const other = await open("q", "1000", "other");
    const calls: Begun[] = [];
    const times: number[] = [];
    const upstreams: number[] = [];
    for (const [n, id] of ids.entries()) {
      const { call, upstream } = await open("p", id, `call${n}`);
      const { ms } = await timed((call.cancel(), cancelArrives("p", upstream)));
      calls.push(call);
      times.push(ms);
      upstreams.push(upstream);
    }
    expect(cancelledIn("p")).toEqual(upstreams);
    expect(cancelledIn("q")).toEqual([]);
    // From the client's to the provider's hands, through two processes on a slow machine.
    expect(median(times)).toBeLessThan(100);
    other.call.cancel();
    await cancelArrives("q", other.upstream);
    expect(cancelledIn("q")).toEqual([other.upstream]);
    const answers = [...calls, other.call].flatMap((call) => call.answers());
    expect(answers.filter(({ result }) => result !== undefined)).toEqual([]);
  });

  test("R7: because its deadline is over is cancelled at the provider at that moment", async () => {
    const began = performance.now();
    const call = timed(hangar.invoke("p", "say", { as: "deadline" }, 0.6));
    const received = await waitFor("the call", () => callIn("p", "deadline"));
    await cancelArrives("p", received.id);
    const arrived = performance.now() - began;
    const { ms, value } = await call;
    expect(value.isError).toBe(true);
    expect(value.structuredContent).toMatchObject({
      code: "timeout",
      type: "ToolTimeoutError",
      error: expect.stringContaining("timeout: tools/call after 0.6s"),
    });
    for (const time of [ms, arrived]) {
      expect(time).toBeGreaterThan(590);
      expect(time).toBeLessThan(1_200);
    }
  });

  test("R7: is cancelled ahead of the calls that wait behind it, and never sent when it waits itself", async () => {
    const first = await open("narrow", "1", "first");
    const [second, third] = ["second", "third"].map((as) =>
      begin(hangar, `"${as}"`, { provider: "narrow", tool: "say", arguments: { as } }),
    ) as [Begun, Begun];
    await waitFor("two waiting", async () => (await hangar.details("narrow")).queued === 2);
    second.cancel();
    await waitFor("one waiting", async () => (await hangar.details("narrow")).queued === 1);
    first.call.cancel();
    const last = await waitFor("the third call", () => callIn("narrow", "third"));
    third.cancel();
    await cancelArrives("narrow", last.id);
    const heard = linesOf(join(dir, "narrow"))
      .filter(({ method }) => ["tools/call", "notifications/cancelled"].includes(method))
      .map(({ id, params }) => id ?? params.requestId);
    expect(heard).toEqual([first.upstream, first.upstream, last.id, last.id]);
    expect(await hangar.details("narrow")).toMatchObject({ in_flight: 0, queued: 0 });
  });

  test("R7: is answered all the same, and the late answer goes nowhere", async () => {
    const args = { provider: "late", tool: "sleep", arguments: { ms: 700 } };
    const expired = begin(hangar, '"expired"', { ...args, timeout: 0.2 });
    const dropped = begin(hangar, '"dropped"', args);
    await waitFor("both calls", async () => (await hangar.details("late")).in_flight === 2);
    dropped.cancel();
    await waitFor("their end", async () => (await hangar.details("late")).in_flight === 0);
    // The answers come in the midst of this one.
    const next = await hangar.invoke("late", "sleep", { ms: 1100 });
    expect(next.structuredContent).toEqual({ slept_ms: 1100 });
    expect(expired.answers()).toMatchObject([
      { result: { structuredContent: { code: "timeout" } } },
    ]);
    const texts = JSON.stringify(dropped.answers());
    expect(texts).not.toContain("slept_ms");
    expect(await hangar.details("late")).toMatchObject({ state: "ready", run: 1, noise_lines: 0 });
  });
});
