import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { HangarError } from "../../src/errors.ts";
import type { BreakerFacts } from "../../src/providers/registry.ts";
import {
  CircuitBreaker,
  type Permit,
  type Verdict,
  verdictOn,
} from "../../src/routing/circuit-breaker.ts";

const POLICY = { failure_rate: 0.5, min_calls: 4, open_s: 10, half_open_calls: 3 };

/** A breaker, what it told, and a clock that only the test moves. */
function open(policy: Partial<ConstructorParameters<typeof CircuitBreaker>[0]> = {}): {
  breaker: CircuitBreaker;
  told: BreakerFacts[];
} {
  const told: BreakerFacts[] = [];
  return {
    breaker: new CircuitBreaker({ ...POLICY, ...policy }, (facts) => told.push(facts)),
    told,
  };
}

/** Lets one call through and ends it at once. */
function call(breaker: CircuitBreaker, verdict: Verdict, now: number): void {
  const permit = breaker.admit(now);
  if (permit === undefined) throw new Error(`refused at ${now}`);
  breaker.settle(permit, verdict, now);
}

function fail(breaker: CircuitBreaker, times: number, now = 0): void {
  for (let n = 0; n < times; n++) call(breaker, "failure", now);
}

/** The permits of as many calls as it lets through, of `asked`. */
function admitted(breaker: CircuitBreaker, asked: number, now: number): Permit[] {
  return Array.from({ length: asked }, () => breaker.admit(now)).filter((one) => one !== undefined);
}

/**
 * The same in other words: a list of everything that ended, searched anew each time, and trials as a set.
 * Nothing here is a ring, a counter or a period.
 */
class Model {
  mode: "closed" | "open" | "trying" = "closed";
  ends: { at: number; failed: boolean }[] = [];
  openedAt = 0;
  openings = 0;
  /** Ids of the trials of this round, with how they ended so far. */
  round = new Map<number, Verdict | undefined>();
  /** Trials of any round that have not ended. */
  readonly trying = new Set<number>();
  /** Calls let through since the last change, while closed. */
  current = new Set<number>();

  get openMs(): number {
    return Math.min(10, 2 ** (this.openings - 1)) * POLICY.open_s * 1000;
  }

  admit(id: number, now: number): boolean {
    if (this.mode === "open" && now >= this.openedAt + this.openMs) {
      this.mode = "trying";
      this.round = new Map();
    }
    if (this.mode === "open") return false;
    if (this.mode === "closed") {
      this.current.add(id);
      return true;
    }
    const counted = [...this.round.values()].filter((verdict) => verdict !== "neutral").length;
    if (counted >= POLICY.half_open_calls || this.trying.size >= POLICY.half_open_calls)
      return false;
    this.round.set(id, undefined);
    this.trying.add(id);
    return true;
  }

  settle(id: number, verdict: Verdict, now: number): void {
    this.trying.delete(id);
    if (this.mode === "closed" && this.current.delete(id)) {
      if (verdict === "neutral") return;
      this.ends.push({ at: now, failed: verdict === "failure" });
      const judged = this.ends.filter(({ at }) => now - at < 60_000).slice(-100);
      const rate = judged.filter(({ failed }) => failed).length / judged.length;
      if (verdict === "failure" && judged.length >= POLICY.min_calls && rate >= 0.5) this.open(now);
    } else if (this.mode === "trying" && this.round.has(id)) {
      this.round.set(id, verdict);
      const ended = [...this.round.values()];
      const bad = ended.filter((one) => one === "failure").length;
      const good = ended.filter((one) => one === "success").length;
      const most = POLICY.half_open_calls;
      if (bad / most >= 0.5) this.open(now);
      else if ((most - good) / most < 0.5) this.close();
    }
  }

  open(now: number): void {
    this.mode = "open";
    this.openedAt = now;
    this.openings++;
    this.current = new Set();
  }

  close(): void {
    this.mode = "closed";
    this.openings = 0;
    this.ends = [];
    this.current = new Set();
  }
}

const step = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant("admit" as const) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant("settle" as const),
      which: fc.nat(),
      verdict: fc.constantFrom<Verdict[]>("failure", "failure", "success", "neutral"),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant("wait" as const),
      ms: fc.constantFrom(1, 900, 10_000, 61_000),
    }),
  },
);

describe("the circuit breaker", () => {
  it("R8: does what a model does that searches through everything that happened", () => {
    const seen = { refused: 0, opened: 0, closed: 0, trials: 0, late: 0 };
    fc.assert(
      fc.property(fc.array(step, { maxLength: 400, size: "max" }), (steps) => {
        const { breaker, told } = open();
        const model = new Model();
        const under: { id: number; permit: Permit }[] = [];
        let now = 0;
        let ids = 0;
        for (const taken of steps) {
          if (taken.do === "wait") now += taken.ms;
          if (taken.do === "admit") {
            const id = ids++;
            const permit = breaker.admit(now);
            expect(permit !== undefined).toBe(model.admit(id, now));
            if (permit === undefined) seen.refused++;
            else under.push({ id, permit });
            if (permit?.isTrial === true) seen.trials++;
          }
          if (taken.do === "settle" && under.length > 0) {
            const [{ id, permit }] = under.splice(taken.which % under.length, 1) as [
              (typeof under)[0],
            ];
            if (model.mode === "open") seen.late++;
            breaker.settle(permit, taken.verdict, now);
            model.settle(id, taken.verdict, now);
          }
          expect(model.trying.size).toBeLessThanOrEqual(POLICY.half_open_calls);
          const { state, openings, retryAfterMs } = breaker.facts(now);
          const over = model.mode === "open" && now >= model.openedAt + model.openMs;
          const expected = model.mode === "trying" || over ? "half_open" : model.mode;
          expect(state).toBe(expected);
          expect(openings).toBe(model.openings);
          if (state === "open") expect(retryAfterMs).toBe(model.openedAt + model.openMs - now);
        }
        seen.opened += told.filter(({ state }) => state === "open").length;
        seen.closed += told.filter(({ state }) => state === "closed").length;
      }),
      { numRuns: 500 },
    );
    for (const [what, times] of Object.entries(seen)) expect(times, what).toBeGreaterThan(100);
  });

  it("stays closed with fewer than min_calls to judge by, and opens at failure_rate", () => {
    const { breaker, told } = open();
    fail(breaker, 3);
    expect(breaker.facts(0).state).toBe("closed");
    fail(breaker, 1);
    expect(told).toMatchObject([{ state: "open", calls: 4, failures: 4, retryAfterMs: 10_000 }]);
    expect(breaker.admit(9_999)).toBeUndefined();
  });

  it("judges by the last hundred calls of the last minute", () => {
    const { breaker } = open();
    fail(breaker, 3, 0);
    for (let n = 0; n < 100; n++) call(breaker, "success", 1_000);
    expect(breaker.facts(1_000)).toMatchObject({ calls: 100, failures: 0 });
    fail(breaker, 49, 2_000);
    expect(breaker.facts(2_000)).toMatchObject({ state: "closed", failures: 49 });
    // The successes are too old by now.
    fail(breaker, 1, 61_500);
    expect(breaker.facts(61_500)).toMatchObject({ state: "open" });
  });

  it("R8: lets exactly half_open_calls through of a thousand at once, and refuses the others", () => {
    const { breaker } = open({ half_open_calls: 5 });
    fail(breaker, 4);
    const trials = admitted(breaker, 1_000, 10_000);
    expect(trials).toHaveLength(5);
    expect(breaker.facts(10_000)).toMatchObject({ state: "half_open", retryAfterMs: 1_000 });
    // A trial that says nothing about the provider gives its permit back.
    breaker.settle(trials[0] as Permit, "neutral", 10_100);
    expect(admitted(breaker, 1_000, 10_200)).toHaveLength(1);
  });

  it("closes as soon as the trials are clear enough, and has forgotten everything then", () => {
    const { breaker, told } = open();
    fail(breaker, 4);
    const [first, second, third] = admitted(breaker, 3, 10_000) as [Permit, Permit, Permit];
    breaker.settle(first, "success", 10_001);
    expect(breaker.facts(10_001).state).toBe("half_open");
    breaker.settle(second, "success", 10_002);
    expect(breaker.facts(10_002)).toMatchObject({ state: "closed", calls: 0, openings: 0 });
    // Too late to count.
    breaker.settle(third, "failure", 10_003);
    expect(breaker.facts(10_003)).toMatchObject({ state: "closed", calls: 0 });
    expect(told.map(({ state }) => state)).toEqual(["open", "half_open", "closed"]);
  });

  it("stays open twice as long each time its trials fail, ten times at most", () => {
    const { breaker, told } = open({ half_open_calls: 1 });
    fail(breaker, 4);
    let now = 0;
    for (let n = 0; n < 6; n++) {
      now += breaker.facts(now).retryAfterMs;
      fail(breaker, 1, now);
    }
    const opened = told.filter(({ state }) => state === "open");
    expect(opened.map(({ retryAfterMs }) => retryAfterMs / 1000)).toEqual([
      10, 20, 40, 80, 100, 100, 100,
    ]);
  });

  it("never has more trials under way than half_open_calls, those of an earlier round included", () => {
    const { breaker } = open({ half_open_calls: 3 });
    fail(breaker, 4);
    const [a, b] = admitted(breaker, 3, 10_000) as [Permit, Permit];
    breaker.settle(a, "failure", 10_000);
    breaker.settle(b, "failure", 10_000);
    // One of the first round still hangs.
    expect(admitted(breaker, 10, 30_000)).toHaveLength(2);
  });

  it("counts a failure once, however many calls end with the same", () => {
    const { breaker } = open();
    const crash = {};
    const permits = admitted(breaker, 10, 0);
    for (const permit of permits) breaker.settle(permit, "failure", 0, crash);
    expect(breaker.facts(0)).toMatchObject({ state: "closed", calls: 1, failures: 1 });
    for (const cause of [{}, {}, {}]) {
      breaker.settle(breaker.admit(0) as Permit, "failure", 0, cause);
    }
    expect(breaker.facts(0).state).toBe("open");
  });

  it("does as it is told when forced", () => {
    const shut = open({ force: "open" }).breaker;
    expect(shut.admit(0)).toBeUndefined();
    expect(shut.facts(0)).toMatchObject({ state: "open", forced: true, retryAfterMs: 10_000 });
    const { breaker, told } = open({ force: "closed" });
    fail(breaker, 100);
    expect(breaker.admit(0)).toBeDefined();
    expect(told).toEqual([]);
  });

  it("closes when somebody knows better", () => {
    const { breaker, told } = open();
    fail(breaker, 4);
    breaker.reset(1);
    expect(breaker.admit(1)).toBeDefined();
    expect(told.at(-1)).toMatchObject({ state: "closed" });
    breaker.reset(2);
    expect(told).toHaveLength(2);
  });
});

describe("what an end says about the provider", () => {
  const sent = { sent: true };
  it.each<[string, HangarError, Verdict]>([
    ["an exit", new HangarError("provider_exited", "", sent), "failure"],
    ["a failed start", new HangarError("start_failed", ""), "failure"],
    ["a slow start", new HangarError("start_timeout", ""), "failure"],
    ["garbage", new HangarError("unreadable_answer", "", sent), "failure"],
    ["no connection", new HangarError("remote_unreachable", ""), "failure"],
    ["HTTP 502", new HangarError("remote_failed", "", { details: { status: 502 } }), "failure"],
    ["HTTP 429", new HangarError("remote_failed", "", { details: { status: 429 } }), "neutral"],
    [
      "HTTP 401",
      new HangarError("remote_unauthorized", "", { details: { status: 401 } }),
      "neutral",
    ],
    [
      "a deadline that is the provider's",
      new HangarError("timeout", "", { ...sent, details: { deadline: "provider", timeout_s: 10 } }),
      "failure",
    ],
    [
      "a deadline that the caller chose",
      new HangarError("timeout", "", { ...sent, details: { deadline: "caller" } }),
      "neutral",
    ],
    [
      "a deadline before it was sent",
      new HangarError("timeout", "", { details: { deadline: "provider" } }),
      "neutral",
    ],
    ["a cancel", new HangarError("cancelled", "", sent), "neutral"],
    ["a stop", new HangarError("provider_stopped", "", sent), "neutral"],
    ["an overflow", new HangarError("overloaded", ""), "neutral"],
    ["a wait for a retry", new HangarError("provider_degraded", ""), "neutral"],
    ["a tool that does not exist", new HangarError("tool_not_found", ""), "neutral"],
  ])("%s: %s", (_, failure, verdict) => {
    expect(verdictOn(failure, 10_000)).toBe(verdict);
  });

  it("a deadline of which the provider had only a small part: neutral", () => {
    const details = { deadline: "provider", timeout_s: 10 };
    const late = new HangarError("timeout", "", { ...sent, details });
    expect(verdictOn(late, 7_000)).toBe("neutral");
    expect(verdictOn(late, 9_990)).toBe("failure");
  });

  it("an answer is a good sign, an error too", () => {
    expect(verdictOn({ kind: "reply", isError: true, text: "{}" }, 0)).toBe("success");
  });
});
