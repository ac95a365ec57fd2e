import * as fc from "fast-check";
import { describe, expect, it, vi } from "vitest";
import { HangarError } from "../../src/errors.ts";
import type { HangarEvent } from "../../src/observe/events.ts";
import { intercept } from "../../src/routing/intercept.ts";
import { isRepeatable, Retry } from "../../src/routing/retry.ts";
import type { Call, CallHandler, Outcome, Target } from "../../src/target.ts";
import { scanMessage } from "../../src/wire/envelope.ts";

/** What happens to one attempt: whether the backend ran it, and what came back. */
type Fate =
  | "answered"
  | "lost"
  | "lost after progress"
  | "answer broken off"
  | "not sent"
  | "waits"
  | "session lost";

/** Something behind a provider that counts what it runs, and fails as it is told, at last not at all. */
class Backend implements Target {
  readonly name = "p";
  readonly available = true;
  runs = 0;
  attempts = 0;
  readonly #fates: Fate[];

  constructor(fates: Fate[]) {
    this.#fates = [...fates];
  }

  dispatch(_call: Call, handler: CallHandler): { cancel: () => void } {
    this.attempts++;
    const fate = this.#fates.shift() ?? "answered";
    queueMicrotask(() => handler.end(this.#end(fate, handler)));
    return { cancel: () => {} };
  }

  watch(): never {
    throw new Error("nobody watches");
  }

  #end(fate: Fate, handler: CallHandler): Outcome {
    const sent = { sent: true };
    switch (fate) {
      case "answered":
        this.runs++;
        return { kind: "reply", isError: false, text: `{"run":${this.runs}}` };
      case "lost":
        this.runs++;
        return new HangarError("provider_exited", "it died", { ...sent, unanswered: true });
      case "lost after progress":
        this.runs++;
        handler.note('{"jsonrpc":"2.0","method":"notifications/progress"}');
        return new HangarError("provider_exited", "it died", { ...sent, unanswered: true });
      case "answer broken off":
        this.runs++;
        return new HangarError("remote_failed", "it broke off", sent);
      case "not sent":
        return new HangarError("remote_unreachable", "nobody there");
      case "waits":
        return new HangarError("provider_degraded", "backoff", { retryAfterMs: 50 });
      case "session lost":
        return new HangarError("session_lost", "it forgot the session");
    }
  }
}

function callOf(method: string, params: object = {}): Call {
  const message = scanMessage(JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }));
  const caller = { principal: "local", client: "c", era: "legacy", capabilities: "{}" } as const;
  return { message, caller };
}

/** Dispatches a call against a backend, with a clock that only this moves. */
async function run(
  call: Call,
  fates: Fate[],
  options: { trusted?: boolean; budget?: number } = {},
): Promise<{ backend: Backend; outcome: Outcome; retry: Retry; events: HangarEvent[] }> {
  const backend = new Backend(fates);
  const events: HangarEvent[] = [];
  const retry = new Retry({
    mayRepeat: () => options.trusted === true,
    budget: options.budget ?? 0.2,
    tell: (event) => events.push(event),
  });
  const { promise, resolve } = Promise.withResolvers<Outcome>();
  retry.before(backend).dispatch(call, {
    note: () => {},
    ask: () => ({ withdraw: () => {} }),
    pause: () => {},
    end: resolve,
  });
  await vi.runAllTimersAsync();
  return { backend, outcome: await promise, retry, events };
}

async function withFakeTime<T>(body: () => Promise<T>): Promise<T> {
  vi.useFakeTimers();
  try {
    return await body();
  } finally {
    vi.useRealTimers();
  }
}

const fates = fc.array(
  fc.constantFrom<Fate[]>(
    "answered",
    "lost",
    "lost after progress",
    "answer broken off",
    "not sent",
    "waits",
    "session lost",
  ),
  { maxLength: 8 },
);

describe("retry", () => {
  it("R6: never runs a tool twice for which nobody vouches, over ten thousand schedules of faults", async () => {
    const seen = { ran: 0, unsent: 0, ambiguous: 0 };
    await withFakeTime(() =>
      fc.assert(
        fc.asyncProperty(fates, async (schedule) => {
          const { backend, outcome } = await run(callOf("tools/call", { name: "count" }), schedule);
          expect(backend.runs).toBeLessThanOrEqual(1);
          if (outcome.kind === "reply") return void seen.ran++;
          // Whether it has run is told: never `ambiguous` when it has not, always when it may have.
          expect(outcome.details["ambiguous"] === true).toBe(backend.runs === 1);
          if (backend.runs === 1) seen.ambiguous++;
          else seen.unsent++;
        }),
        { numRuns: 10_000 },
      ),
    );
    for (const [what, times] of Object.entries(seen)) expect(times, what).toBeGreaterThan(500);
  }, 60_000);

  it("is bounded whatever happens, and leaves no count behind", async () => {
    await withFakeTime(() =>
      fc.assert(
        fc.asyncProperty(
          fates,
          fc.constantFrom("tools/list", "resources/read", "tools/call"),
          fc.boolean(),
          async (schedule, method, trusted) => {
            const call = callOf(method, { name: "x" });
            const { backend, retry } = await run(call, [...schedule, ...schedule], { trusted });
            expect(backend.attempts).toBeLessThanOrEqual(8);
            expect(backend.runs).toBeLessThanOrEqual(3);
            expect([retry.underWay, retry.repeating]).toEqual([0, 0]);
          },
        ),
        { numRuns: 2_000 },
      ),
    );
  });

  it.each<[string, Call, Fate[], boolean, number, boolean]>([
    // what, call, fates, trusted, how often it may run, whether it is answered
    ["a list, lost", callOf("tools/list"), ["lost", "lost"], false, 3, true],
    ["a list, lost too often", callOf("tools/list"), ["lost", "lost", "lost"], false, 3, false],
    ["a read, lost", callOf("resources/read"), ["lost"], false, 2, true],
    ["a read, lost twice", callOf("resources/read"), ["lost", "lost"], false, 2, false],
    ["a prompt, lost", callOf("prompts/get"), ["lost"], false, 2, true],
    ["a tool, not sent", callOf("tools/call", { name: "x" }), ["not sent"], false, 1, true],
    ["a tool, session lost", callOf("tools/call", { name: "x" }), ["session lost"], false, 1, true],
    ["a tool, lost", callOf("tools/call", { name: "x" }), ["lost"], false, 1, false],
    ["a trusted tool, lost", callOf("tools/call", { name: "x" }), ["lost"], true, 2, true],
    [
      "a trusted tool, lost, and not up yet",
      callOf("tools/call", { name: "x" }),
      ["lost", "waits", "waits"],
      true,
      2,
      true,
    ],
    [
      "a trusted tool, after progress",
      callOf("tools/call", { name: "x" }),
      ["lost after progress"],
      true,
      1,
      false,
    ],
    [
      "a trusted tool, answer begun",
      callOf("tools/call", { name: "x" }),
      ["answer broken off"],
      true,
      1,
      false,
    ],
    ["a list, answer begun", callOf("tools/list"), ["answer broken off"], false, 1, false],
    [
      "a trusted tool as a task",
      callOf("tools/call", { name: "x", task: {} }),
      ["lost"],
      true,
      1,
      false,
    ],
    [
      "a trusted tool's second leg",
      callOf("tools/call", { name: "x", requestState: "s" }),
      ["lost"],
      true,
      1,
      false,
    ],
    [
      "a task, session lost",
      callOf("tools/call", { name: "x", task: {} }),
      ["session lost"],
      true,
      0,
      false,
    ],
    [
      "a second leg, not sent",
      callOf("tools/call", { name: "x", requestState: "s" }),
      ["not sent"],
      true,
      0,
      false,
    ],
    ["a method nobody knows", callOf("acme/do"), ["lost"], true, 1, false],
    [
      "a tool of a provider that waits for its retry",
      callOf("tools/call", { name: "x" }),
      ["waits"],
      true,
      0,
      false,
    ],
  ])("R6: %s", async (_, call, schedule, trusted, runs, answered) => {
    await withFakeTime(async () => {
      const { backend, outcome, events } = await run(call, schedule, { trusted });
      expect(backend.runs).toBe(runs);
      expect(outcome.kind === "reply").toBe(answered);
      const told = events.filter(({ type }) => type === "call_retried");
      expect(told).toHaveLength(backend.attempts - 1);
      if (outcome.kind === "failure" && runs > 1) expect(outcome.details["attempts"]).toBe(runs);
    });
  });

  it.each([
    ["at once, asked to wait not at all", 0, 2],
    ["after the time asked for", 4_000, 2],
    ["never, asked to wait for longer than it is good to", 6_000, 1],
    ["never, asked to wait for longer than a timer can", 9_999_999_000, 1],
  ])("sends a list again whose answer was lost %s", async (_, retryAfterMs, sends) => {
    await withFakeTime(async () => {
      let attempts = 0;
      const target = new Retry({ mayRepeat: () => false, budget: 1, tell: () => {} }).before(
        intercept(new Backend([]), (_, handler) => {
          const failure = new HangarError("remote_failed", "502", {
            ...{ sent: true, unanswered: true, retryAfterMs },
          });
          const reply = { kind: "reply", isError: false, text: "{}" } as const;
          queueMicrotask(() => handler.end(attempts++ === 0 ? failure : reply));
          return { cancel: () => {} };
        }),
      );
      const began = Date.now();
      const { promise, resolve } = Promise.withResolvers<Outcome>();
      target.dispatch(callOf("tools/list"), {
        ...{ note: () => {}, pause: () => {}, end: resolve },
        ask: () => ({ withdraw: () => {} }),
      });
      await vi.runAllTimersAsync();
      await promise;
      expect(attempts).toBe(sends);
      if (sends === 2) expect(Date.now() - began).toBeGreaterThanOrEqual(retryAfterMs);
    });
  });

  it("ends with what came of it when its deadline comes before the next attempt", async () => {
    await withFakeTime(async () => {
      const expiring = (ms: number): Call => ({
        ...callOf("tools/list"),
        expiresAt: performance.now() + ms,
      });
      const late = await run(expiring(0), ["lost"]);
      expect(late.backend.attempts).toBe(1);
      expect(late.outcome).toMatchObject({ code: "provider_exited" });
      const inTime = await run(expiring(60_000), ["lost"]);
      expect(inTime.outcome.kind).toBe("reply");
    });
  });

  it("repeats nothing beyond its budget: three, or the share of the calls under way", async () => {
    await withFakeTime(async () => {
      const counted = async (calls: number, budget: number): Promise<number> => {
        const backend = new Backend(Array.from({ length: calls }, () => "lost" as const));
        const retry = new Retry({ mayRepeat: () => true, budget, tell: () => {} });
        const target = retry.before(backend);
        for (let n = 0; n < calls; n++) {
          target.dispatch(callOf("tools/list"), {
            ...{ note: () => {}, pause: () => {}, end: () => {} },
            ask: () => ({ withdraw: () => {} }),
          });
        }
        await vi.runAllTimersAsync();
        return retry.total;
      };
      expect(await counted(10, 0)).toBe(0);
      expect(await counted(10, 0.2)).toBe(3);
      // As calls end without being repeated, fewer are under way: a tenth of a hundred and less.
      expect(await counted(100, 0.2)).toBeLessThanOrEqual(20);
      expect(await counted(100, 0.2)).toBeGreaterThan(10);
    });
  });

  it("ends a call that is cancelled between two attempts, and says that it was sent", async () => {
    await withFakeTime(async () => {
      const backend = new Backend(["lost", "lost"]);
      const retry = new Retry({ mayRepeat: () => true, budget: 1, tell: () => {} });
      const ends: Outcome[] = [];
      const running = retry.before(backend).dispatch(callOf("tools/call", { name: "x" }), {
        ...{ note: () => {}, pause: () => {}, end: (outcome) => ends.push(outcome) },
        ask: () => ({ withdraw: () => {} }),
      });
      await Promise.resolve();
      running.cancel(new HangarError("timeout", "late"));
      await vi.runAllTimersAsync();
      expect(backend.attempts).toBe(1);
      expect(ends).toHaveLength(1);
      expect(ends[0]).toMatchObject({ code: "timeout", sent: true, details: { ambiguous: true } });
    });
  });

  it.each([
    ['{"name":"x","annotations":{"readOnlyHint":true}}', true],
    ['{"name":"x","annotations":{"idempotentHint":true,"destructiveHint":true}}', true],
    ['{"name":"x","annotations":{"readOnlyHint":false}}', false],
    ['{"name":"x","annotations":{"readOnlyHint":"true"}}', false],
    ['{"name":"x"}', false],
  ])("takes the tool %s for repeatable: %s", (text, repeatable) => {
    expect(isRepeatable({ name: "x", text })).toBe(repeatable);
  });
});
