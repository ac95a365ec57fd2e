/**
 * What every Target promises, run on a real provider process behind it: one suite, used for each implementation.
 * Also how tests open providers and watch calls.
 */
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import * as fc from "fast-check";
import { afterEach, describe, expect, it } from "vitest";
import { type ProviderConfig, providerSchema } from "../src/config/schema.ts";
import { createGuardian, type Guardian } from "../src/drivers/guardian.ts";
import { subprocess } from "../src/drivers/subprocess.ts";
import { HangarError } from "../src/errors.ts";
import type { HangarEvent } from "../src/observe/events.ts";
import { EraVerdicts } from "../src/providers/era-verdicts.ts";
import { Provider } from "../src/providers/provider.ts";
import { StartGate } from "../src/providers/start-gate.ts";
import type { Call, Outcome, Running, Target } from "../src/target.ts";
import { scanMessage } from "../src/wire/envelope.ts";
import { fixture, type Json, startedPids, tempDir, waitFor } from "./harness.ts";
import { isAlive } from "./processes.ts";

/** Long enough for a second end, or a note after the end, to show up. */
const AFTERMATH_MS = 30;
const MIB = 1024 * 1024;
const OVER = new HangarError("shutting_down", "the test is over");

/** A provider on a real process, and what it told. */
export interface OpenedProvider {
  readonly provider: Provider;
  readonly events: HangarEvent[];
  /** The process ids of its runs so far, oldest first. */
  readonly pids: () => number[];
}

const opened: OpenedProvider[] = [];
const guardians: Guardian[] = [];
const dispatched: Watched[] = [];

/** A provider for `command` (or the fixture of that name), closed after the test; starts nothing. */
function openProvider(
  command: string | readonly string[],
  config: Partial<ProviderConfig> = {},
): OpenedProvider {
  const log = join(tempDir(), "starts");
  const events: HangarEvent[] = [];
  const tell = (event: HangarEvent): void => void events.push(event);
  const entry: ProviderConfig = {
    ...providerSchema.parse({
      command: [...(typeof command === "string" ? fixture(command) : command)],
    }),
    cwd: tempDir(),
    protocol: "legacy",
    headers: {},
    ...config,
  };
  const { command: run, cwd, inherit_env, env } = entry;
  const guardian = createGuardian(randomUUID(), tell);
  const driver = subprocess({
    command: run,
    cwd,
    env: { START_LOG: log, ...env },
    inherit_env: [...inherit_env, "HANGAR_TEST"],
    maxLineBytes: 16 * MIB,
    guardian,
  });
  const provider = new Provider({
    name: "p",
    config: entry,
    driver,
    eraKey: "p",
    eras: new EraVerdicts(undefined),
    tell,
    starts: new StartGate(2),
  });
  guardians.push(guardian);
  const made = { provider, events, pids: () => startedPids(log) };
  opened.push(made);
  return made;
}

/** One call, and everything that reached its handler. */
export interface Watched {
  readonly running: Running;
  readonly ended: Promise<Outcome>;
  readonly notes: string[];
  readonly ends: Outcome[];
  /** What the contract forbids, in words; empty if all is well. */
  readonly faults: string[];
}

/** Dispatches a call and watches it; `also` runs inside the handler, and may throw. */
function dispatch(
  target: Target,
  call: Call,
  also: { note?: (text: string) => void; end?: (outcome: Outcome) => void } = {},
): Watched {
  const notes: string[] = [];
  const ends: Outcome[] = [];
  const faults: string[] = [];
  const { promise: ended, resolve } = Promise.withResolvers<Outcome>();
  let returned = false;
  const running = target.dispatch(call, {
    note(text) {
      if (!returned) faults.push("a note before dispatch returned");
      if (ends.length > 0) faults.push("a note after the end");
      notes.push(text);
      also.note?.(text);
    },
    ask() {
      faults.push("a question to a client that can answer none");
      return { withdraw: () => {} };
    },
    pause() {
      faults.push("a pause of a provider without event streams");
    },
    end(outcome) {
      if (!returned) faults.push("the end before dispatch returned");
      if (ends.length > 0) faults.push("a second end");
      ends.push(outcome);
      resolve(outcome);
      also.end?.(outcome);
    },
  });
  returned = true;
  const watched = { running, ended, notes, ends, faults };
  dispatched.push(watched);
  return watched;
}

/** A `tools/call` as a client would send it to the provider itself. */
function toolCall(tool: string, args: Json = {}, options: CallOptions = {}): Call {
  return callOf({ name: tool, arguments: args, ...metaOf(options) }, options);
}

/** The same, through registry_invoke. */
export function invokeCall(tool: string, args: Json = {}, options: CallOptions = {}): Call {
  const inner = { provider: "p", tool, arguments: args };
  return callOf({ name: "registry_invoke", arguments: inner, ...metaOf(options) }, options);
}

interface CallOptions {
  readonly progressToken?: string | number;
  readonly timeoutMs?: number;
}

function metaOf({ progressToken }: CallOptions): Json {
  return progressToken === undefined ? {} : { _meta: { progressToken } };
}

function callOf(params: Json, { timeoutMs }: CallOptions): Call {
  const text = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params });
  return {
    message: scanMessage(text),
    caller: { principal: "local", client: "test", era: "legacy", capabilities: "{}" },
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
  };
}

/** The structured content of a reply; fails on anything else. */
function contentOf(outcome: Outcome | undefined): Json {
  if (outcome?.kind !== "reply" || outcome.isError) {
    throw new Error(`no result: ${JSON.stringify(outcome)}`);
  }
  return JSON.parse(outcome.text).structuredContent;
}

/** The code a call failed with, as a failure or as the error object of the registry tools. */
function codeOf(outcome: Outcome | undefined): string | undefined {
  if (outcome === undefined) return undefined;
  if (outcome.kind === "failure") return outcome.code;
  const reply = JSON.parse(outcome.text);
  return reply.isError === true ? reply.structuredContent?.code : undefined;
}

/** Whether the request had gone to the provider when it failed. */
function wasSent(outcome: Outcome | undefined): boolean {
  if (outcome?.kind === "failure") return outcome.sent;
  return outcome !== undefined && JSON.parse(outcome.text).structuredContent?.sent === true;
}

function cancelled(why = "no longer wanted"): HangarError {
  return new HangarError("cancelled", why);
}

/** Closes what `openProvider` opened, and fails if a watched call broke the contract or never ended. */
afterEach(async () => {
  for (const { provider } of opened.splice(0)) await provider.close(OVER);
  for (const guardian of guardians.splice(0)) guardian.close();
  await sleep(AFTERMATH_MS);
  const calls = dispatched.splice(0);
  expect(calls.flatMap(({ faults }) => faults)).toEqual([]);
  expect(calls.filter(({ ends }) => ends.length !== 1).length, "calls without one end").toBe(0);
});

interface TargetUnderTest {
  /** The target in front of `provider`. */
  readonly target: (made: OpenedProvider) => Target;
  /** How a provider's tool is called through it; as `toolCall` unless told. */
  readonly call?: typeof toolCall;
  /** Whether `available` says what the provider's own does; so unless told. */
  readonly showsAvailable?: boolean;
}

/** The suite. */
export function testTarget(name: string, under: TargetUnderTest): void {
  const call = under.call ?? toolCall;

  function open(
    command: string | readonly string[],
    config: Partial<ProviderConfig> = {},
  ): OpenedProvider & { target: Target } {
    const made = openProvider(command, config);
    return { ...made, target: under.target(made) };
  }

  async function openWarm(...args: Parameters<typeof open>): Promise<ReturnType<typeof open>> {
    const made = open(...args);
    await made.provider.start("manual");
    return made;
  }

  describe(`${name}, as a target`, () => {
    it("ends a call with the provider's reply, cold and warm", async () => {
      const { target, provider } = open("add");
      expect(contentOf(await dispatch(target, call("echo", { n: 1 })).ended)).toEqual({ n: 1 });
      expect(provider.running).toBe(true);
      expect(contentOf(await dispatch(target, call("echo", { n: 2 })).ended)).toEqual({ n: 2 });
    });

    it("answers a hundred concurrent calls of a cold provider, each with its own reply, after one start", async () => {
      const { target, pids } = open("add");
      const calls = Array.from({ length: 100 }, (_, n) => dispatch(target, call("echo", { n })));
      const outcomes = await Promise.all(calls.map(({ ended }) => ended));
      expect(outcomes.map((outcome) => contentOf(outcome).n)).toEqual([...Array(100).keys()]);
      expect(pids()).toHaveLength(1);
    });

    it("delivers every note before the end and none after it, with the caller's own token", async () => {
      const { target } = await openWarm("progress");
      const calls = ["a", 7].map((progressToken) =>
        dispatch(target, call("count", { n: 5 }, { progressToken })),
      );
      for (const [at, { ended, notes }] of calls.entries()) {
        expect(codeOf(await ended)).toBeUndefined();
        const seen = notes.map((text) => JSON.parse(text).params);
        expect(seen.map(({ progress }) => progress)).toEqual([1, 2, 3, 4, 5]);
        expect(new Set(seen.map(({ progressToken }) => progressToken))).toEqual(
          new Set([["a", 7][at]]),
        );
      }
    });

    it.each(["double-reply", "wrong-id"])(
      "ends once whatever the provider sends (%s)",
      async (server) => {
        const { target } = await openWarm(server);
        const calls = [1, 2, 3].map((n) => dispatch(target, call("echo", { n })));
        const outcomes = await Promise.all(calls.map(({ ended }) => ended));
        expect(outcomes.map((outcome) => contentOf(outcome).n)).toEqual([1, 2, 3]);
      },
    );

    it("ends with the first reason when a call is cancelled, also twice, and drops the late reply", async () => {
      const { target } = await openWarm("late-reply");
      const { running, ended, ends } = dispatch(target, call("sleep", { ms: 100 }));
      await sleep(20);
      running.cancel(cancelled("first"));
      running.cancel(cancelled("second"));
      const outcome = await ended;
      expect([codeOf(outcome), wasSent(outcome)]).toEqual(["cancelled", true]);
      expect(JSON.stringify(ends)).not.toContain("second");
      await sleep(150);
      running.cancel(cancelled("third"));
      expect(ends).toEqual([outcome]);
    });

    it("ignores a cancel after the end", async () => {
      const { target } = await openWarm("add");
      const { running, ended } = dispatch(target, call("echo", { n: 1 }));
      const outcome = await ended;
      running.cancel(cancelled());
      running.cancel(cancelled());
      expect(contentOf(outcome)).toEqual({ n: 1 });
    });

    it("ends once when a cancel and the reply cross, wherever they meet", async () => {
      const { target } = await openWarm("add");
      const seen = new Set<string | undefined>();
      await fc.assert(
        fc.asyncProperty(fc.integer({ min: 0, max: 1500 }), async (delayUs) => {
          const { running, ended } = dispatch(target, call("echo", { n: 1 }));
          const until = performance.now() + delayUs / 1000;
          while (performance.now() < until) await sleep(0);
          running.cancel(cancelled());
          running.cancel(cancelled());
          seen.add(codeOf(await ended));
        }),
        { numRuns: 150, examples: [[0], [10_000]] },
      );
      expect(seen).toEqual(new Set(["cancelled", undefined]));
    });

    it("ends only the call that is cancelled while it waits for a start; the others get their replies", async () => {
      const { target, pids } = open("add", { env: { START_MS: "200" } });
      const calls = [1, 2, 3].map((n) => dispatch(target, call("echo", { n })));
      const [first, second, third] = calls as [Watched, Watched, Watched];
      first.running.cancel(cancelled());
      await sleep(50);
      second.running.cancel(cancelled());
      second.running.cancel(cancelled());
      for (const { ended } of [first, second]) {
        const outcome = await ended;
        expect([codeOf(outcome), wasSent(outcome)]).toEqual(["cancelled", false]);
      }
      expect(contentOf(await third.ended)).toEqual({ n: 3 });
      expect(pids()).toHaveLength(1);
    });

    it("leaves the start to whoever comes next when the only waiting call is cancelled", async () => {
      const { target, pids } = open("add", { env: { START_MS: "150" } });
      const { running, ended } = dispatch(target, call("echo"));
      await sleep(20);
      running.cancel(cancelled());
      expect(codeOf(await ended)).toBe("cancelled");
      expect(contentOf(await dispatch(target, call("echo", { n: 2 })).ended)).toEqual({ n: 2 });
      expect(pids()).toHaveLength(1);
    });

    it("harms no other call when a handler throws, and throws into nobody's face", async () => {
      const { target, provider } = await openWarm("progress");
      const boom = (): never => {
        throw new Error("boom");
      };
      const options = { progressToken: 1 };
      const bad = dispatch(target, call("count", { n: 3 }, options), { note: boom, end: boom });
      const good = dispatch(target, call("count", { n: 3 }, options));
      await bad.ended;
      expect(codeOf(await good.ended)).toBeUndefined();
      expect([bad.notes.length, good.notes.length]).toEqual([3, 3]);
      const after = dispatch(target, call("echo", { n: 1 }), { end: boom });
      expect(contentOf(await after.ended)).toEqual({ n: 1 });
      expect(contentOf(await dispatch(target, call("echo", { n: 2 })).ended)).toEqual({ n: 2 });
      expect(provider.running).toBe(true);
    });

    it("lets a cancel return when the handler throws, waiting or sent, and a refusal too", async () => {
      const end = (): never => {
        throw new Error("boom");
      };
      const { target, provider } = open("slow", { env: { START_MS: "100" } });
      const waiting = dispatch(target, call("sleep", { ms: 5000 }), { end });
      expect(() => waiting.running.cancel(cancelled())).not.toThrow();
      expect(codeOf(await waiting.ended)).toBe("cancelled");
      await provider.start("manual");
      const sent = dispatch(target, call("sleep", { ms: 5000 }), { end });
      await sleep(20);
      expect(() => sent.running.cancel(cancelled())).not.toThrow();
      expect(codeOf(await sent.ended)).toBe("cancelled");
      await provider.close(OVER);
      const refused = dispatch(target, call("echo"), { end });
      expect(codeOf(await refused.ended)).toBe("shutting_down");
    });

    it("takes a cancel from inside note, and a new call from inside end", async () => {
      const { target } = await openWarm("progress");
      const second = Promise.withResolvers<Outcome>();
      const first = dispatch(target, call("count", { n: 50 }, { progressToken: 1 }), {
        note: () => first.running.cancel(cancelled()),
        end: () => {
          void dispatch(target, call("echo", { n: 2 })).ended.then(second.resolve);
        },
      });
      expect(codeOf(await first.ended)).toBe("cancelled");
      expect(first.notes).toHaveLength(1);
      expect(contentOf(await second.promise)).toEqual({ n: 2 });
    });

    it("ends every call when the process is killed under them, and says that they were sent", async () => {
      const { target, provider, pids } = await openWarm("slow");
      const calls = [1, 2, 3].map(() => dispatch(target, call("sleep", { ms: 10_000 })));
      await sleep(30);
      process.kill(pids()[0] as number, "SIGKILL");
      for (const { ended } of calls) {
        const outcome = await ended;
        expect([codeOf(outcome), wasSent(outcome)]).toEqual(["provider_exited", true]);
      }
      await waitFor("the run to be over", () => !provider.running);
      const refused = dispatch(target, call("echo"));
      const outcome = await refused.ended;
      expect([codeOf(outcome), wasSent(outcome)]).toEqual(["provider_degraded", false]);
      if (under.showsAvailable !== false) expect(target.available).toBe(false);
    });

    it("ends a call that crashes the provider, once", async () => {
      const { target } = await openWarm("crash-mid-call");
      const { running, ended } = dispatch(target, call("crash"));
      expect(codeOf(await ended)).toBe("provider_exited");
      running.cancel(cancelled());
    });

    it("ends every call when the provider is stopped, whether sent or waiting for its start", async () => {
      const { target, provider, pids } = open("slow", { env: { START_MS: "300" } });
      const waiting = [1, 2].map(() => dispatch(target, call("sleep", { ms: 10_000 })));
      await waitFor("the process", () => pids()[0]);
      await provider.stop("by hand");
      for (const { ended } of waiting) {
        const outcome = await ended;
        expect([codeOf(outcome), wasSent(outcome)]).toEqual(["provider_stopped", false]);
      }
      await provider.start("manual");
      const sent = [1, 2].map(() => dispatch(target, call("sleep", { ms: 10_000 })));
      await sleep(30);
      await provider.stop("by hand");
      for (const { ended } of sent) {
        const outcome = await ended;
        expect([codeOf(outcome), wasSent(outcome)]).toEqual(["provider_stopped", true]);
      }
      expect(pids()).toHaveLength(2);
      expect(pids().filter(isAlive)).toEqual([]);
    });

    it("refuses calls of a dead provider, without starting it", async () => {
      const { target } = open(["no-such-command-anywhere"]);
      const first = await dispatch(target, call("echo")).ended;
      expect([codeOf(first), wasSent(first)]).toEqual(["not_startable", false]);
      const second = dispatch(target, call("echo"));
      second.running.cancel(cancelled());
      expect(codeOf(await second.ended)).toBe("cancelled");
      expect(codeOf(await dispatch(target, call("echo")).ended)).toBe("provider_dead");
      if (under.showsAvailable !== false) expect(target.available).toBe(false);
    });

    it("ends all waiting calls with the reason when the start fails", async () => {
      const { target, pids } = open("crash-on-start");
      const calls = [1, 2, 3].map(() => dispatch(target, call("echo")));
      for (const { ended } of calls) expect(codeOf(await ended)).toBe("start_failed");
      expect(codeOf(await dispatch(target, call("echo")).ended)).toBe("provider_degraded");
      expect(pids()).toHaveLength(1);
    });

    it("refuses what does not fit into a full queue, and ends the rest when the provider reads again", async () => {
      const { target, pids } = await openWarm("add");
      const [pid] = pids() as [number];
      process.kill(pid, "SIGSTOP");
      const blob = "x".repeat(MIB);
      const calls = Array.from({ length: 12 }, () => dispatch(target, call("echo", { blob })));
      await sleep(20);
      const refused = calls.filter(({ ends }) => codeOf(ends[0]) === "overloaded");
      const kept = calls.filter(({ ends }) => ends.length === 0);
      expect(refused.length).toBeGreaterThan(1);
      expect(kept.length).toBeGreaterThan(6);
      expect(refused.length + kept.length).toBe(calls.length);
      process.kill(pid, "SIGCONT");
      for (const { ended } of kept) expect(contentOf(await ended).blob).toHaveLength(MIB);
      for (const { ended } of refused) expect(wasSent(await ended)).toBe(false);
    });

    it("refuses every call of a closed provider", async () => {
      const { target, provider } = await openWarm("add");
      const last = dispatch(target, call("echo"));
      await provider.close(OVER);
      expect([undefined, "provider_stopped"]).toContain(codeOf(await last.ended));
      expect(codeOf(await dispatch(target, call("echo")).ended)).toBe("shutting_down");
      if (under.showsAvailable !== false) expect(target.available).toBe(false);
    });
  });
}
