import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  COLD,
  isRunning,
  type Lifecycle,
  type LifecycleEvent,
  next,
} from "../../src/providers/lifecycle.ts";

const RESTART = { limit: 4, window_s: 60, healthy_s: 300 };
const POLICY = { max_consecutive_failures: 3, restart: RESTART };

/**
 * A second opinion in other terms: what the process is doing, and how often in a row it failed.
 * States and `degraded` are only read off it.
 */
interface Model {
  process: "none" | "starting" | "up" | "waiting" | "hopeless";
  run: number;
  strikes: number;
  retryAt: number | undefined;
  reason: string | undefined;
  /** When it crashed since it was last healthy for long. */
  crashes: number[];
}

type Process = Model["process"];

/** In which situations each event means something, and where it leads. */
const MEANING: Record<LifecycleEvent["type"], Partial<Record<Process, Process>>> = {
  start: { none: "starting", waiting: "starting", hopeless: "starting" },
  started: { starting: "up" },
  failed: { starting: "waiting", up: "waiting" },
  impossible: { starting: "hopeless" },
  check_failed: { up: "up" },
  check_passed: { up: "up" },
  stopped: { none: "none", starting: "none", up: "none", waiting: "none" },
};

const STRIKES: Record<LifecycleEvent["type"], "keep" | "one more" | "none"> = {
  start: "keep",
  started: "none",
  failed: "one more",
  impossible: "one more",
  check_failed: "one more",
  check_passed: "none",
  stopped: "none",
};

function happens(model: Model, event: LifecycleEvent, limit: number): boolean {
  if ("run" in event && event.run !== model.run) return false;
  const leadsTo = MEANING[event.type][model.process];
  if (leadsTo === undefined) return false;
  if (event.type === "start") {
    model.run++;
    if (model.process === "hopeless") model.crashes = [];
  }
  if (STRIKES[event.type] === "none") model.strikes = 0;
  if (STRIKES[event.type] === "one more") model.strikes++;
  model.retryAt = undefined;
  model.reason = "reason" in event ? event.reason : undefined;
  const wasUp = model.process === "up";
  model.process = leadsTo;
  if (event.type !== "failed") return true;
  if (wasUp && (event.upMs ?? 0) >= 300_000) model.crashes = [];
  model.crashes.push(event.at);
  const lately = model.crashes.filter((at) => event.at - at < 60_000);
  if (lately.length >= limit) model.process = "hopeless";
  else {
    const longest = Math.min(60_000, 250 * 2 ** model.crashes.length);
    const wait = 100 + (longest - 100) * event.random;
    model.retryAt = event.at + Math.round(Math.max(wait, event.retryAfterMs ?? 0));
  }
  return true;
}

function stateOf({ process, strikes }: Model, limit: number): Lifecycle["state"] {
  switch (process) {
    case "none":
      return "cold";
    case "starting":
      return "initializing";
    case "up":
      return strikes >= limit ? "degraded" : "ready";
    case "waiting":
      return "degraded";
    case "hopeless":
      return "dead";
  }
}

/** Events whose run is the current one mostly, and an earlier or later one now and then. */
const step = fc.record({
  // Starts and checks more often than the rest, so that it runs and fails for a while now and then.
  type: fc.constantFrom<LifecycleEvent["type"][]>(
    ...(["start", "start", "started", "started", "check_failed", "check_failed"] as const),
    ...(Object.keys(MEANING) as LifecycleEvent["type"][]),
  ),
  offset: fc.constantFrom(0, 0, 0, 0, 0, -1, 1),
  /** Since the event before, in milliseconds. */
  later: fc.constantFrom(0, 1_000, 20_000, 59_000, 61_000),
  upMs: fc.constantFrom(0, 1_000, 299_999, 300_000),
  random: fc.constantFrom(0, 0.5, 0.75),
  retryAfterMs: fc.constantFrom(undefined, 7_000),
  reason: fc.string({ maxLength: 4 }),
});
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

function eventOf(
  { type, offset, reason, upMs, random, retryAfterMs }: Step,
  now: Lifecycle,
  at: number,
): LifecycleEvent {
  const run = now.run + offset;
  switch (type) {
    case "start":
    case "stopped":
      return { type };
    case "started":
    case "check_passed":
      return { type, run };
    case "failed":
      return { type, run, reason, at, upMs, random, retryAfterMs };
    default:
      return { type, run, reason };
  }
}

function after(events: readonly LifecycleEvent[], from: Lifecycle = COLD): Lifecycle {
  return events.reduce((now, event) => next(now, event, POLICY), from);
}

const START: LifecycleEvent = { type: "start" };
const STOPPED: LifecycleEvent = { type: "stopped" };
const started = (run: number): LifecycleEvent => ({ type: "started", run });
/** A crash at `at`, after `upMs` of being ready. */
const failed = (run: number, at = 0, upMs?: number): LifecycleEvent => ({
  ...{ type: "failed", run, reason: "exit code 1", at, random: 0.5 },
  ...(upMs === undefined ? {} : { upMs }),
});
const impossible = (run: number): LifecycleEvent => ({ type: "impossible", run, reason: "none" });
const checkFailed = (run: number): LifecycleEvent => ({ type: "check_failed", run, reason: "no" });
const checkPassed = (run: number): LifecycleEvent => ({ type: "check_passed", run });

const READY = after([START, started(1)]);
const WAITING = after([START, failed(1)]);
const DEAD = after([START, impossible(1)]);

describe("the lifecycle", () => {
  it("agrees with a model of the process and its failures in a row, whatever happens", () => {
    const seen = new Map<string, number>();
    const count = (what: string): unknown => seen.set(what, (seen.get(what) ?? 0) + 1);
    fc.assert(
      fc.property(
        fc.array(step, { maxLength: 60, size: "max" }),
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 1, max: 4 }),
        (steps, n, limit) => {
          let now: Lifecycle = COLD;
          const model: Model = {
            process: "none",
            run: 0,
            strikes: 0,
            retryAt: undefined,
            reason: undefined,
            crashes: [],
          };
          let clock = 1_000_000;
          for (const taken of steps) {
            clock += taken.later;
            const event = eventOf(taken, now, clock);
            const was = now;
            now = next(now, event, { max_consecutive_failures: n, restart: { ...RESTART, limit } });
            const applied = happens(model, event, limit);
            const state = stateOf(model, n);
            count(applied ? `${event.type} applied` : `${event.type} ignored`);
            count(`${was.state} to ${state}`);
            expect(now.state).toBe(state);
            expect(now.run).toBe(model.run);
            expect(now.failures).toBe(model.strikes);
            expect(isRunning(now)).toBe(model.process === "up");
            expect("retryAt" in now ? now.retryAt : undefined).toBe(model.retryAt);
            if (applied && "reason" in now) expect(now.reason).toContain(model.reason);
            if (!applied) expect(now).toBe(was);
          }
        },
      ),
      { numRuns: 2000 },
    );
    for (const type of Object.keys(MEANING)) {
      expect(seen.get(`${type} applied`), type).toBeGreaterThan(50);
      if (type !== "stopped") expect(seen.get(`${type} ignored`), type).toBeGreaterThan(50);
    }
    for (const way of [
      ...["ready to degraded", "degraded to ready", "dead to initializing"],
      ...["ready to dead", "initializing to dead"],
    ]) {
      expect(seen.get(way), way).toBeGreaterThan(50);
    }
  });

  it("changes no value it was given", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 20 }), (steps) => {
        let now: Lifecycle = Object.freeze({ ...COLD });
        for (const taken of steps) now = Object.freeze(next(now, eventOf(taken, now, 0), POLICY));
      }),
      { numRuns: 300 },
    );
  });

  it("ignores news of an earlier run", () => {
    const second = after([START, failed(1), START]);
    for (const old of [
      started(1),
      failed(1),
      impossible(1),
      checkFailed(1),
      checkPassed(1),
    ] as const) {
      expect(next(second, old, POLICY)).toBe(second);
    }
    expect(second).toMatchObject({ state: "initializing", run: 2 });
  });

  it("becomes ready only from initializing", () => {
    for (const now of [COLD, WAITING, DEAD]) {
      expect(next(now, started(now.run), POLICY)).toBe(now);
    }
    expect(next(after([START]), started(1), POLICY)).toMatchObject({ state: "ready" });
  });

  it("is degraded at max_consecutive_failures and not before", () => {
    const twice = after([checkFailed(1), checkFailed(1)], READY);
    expect(twice).toEqual({ state: "ready", run: 1, failures: 2, crashes: [] });
    const thrice = next(twice, checkFailed(1), POLICY);
    expect(thrice).toMatchObject({ state: "degraded", run: 1, failures: 3, reason: "no" });
    expect(isRunning(thrice)).toBe(true);
  });

  it("counts failures in a row only", () => {
    const events = [checkFailed(1), checkFailed(1), checkPassed(1)];
    expect(after([...events, ...events, ...events], READY)).toEqual(READY);
  });

  it("is ready again after one good check, however long it was degraded", () => {
    const long = after(
      Array.from({ length: 20 }, () => checkFailed(1)),
      READY,
    );
    expect(long).toMatchObject({ state: "degraded", failures: 20 });
    expect(next(long, checkPassed(1), POLICY)).toEqual(READY);
  });

  it("waits for its retry until a start, whatever the checks of that run say", () => {
    const checked = after([checkPassed(1), checkFailed(1), failed(1, 999), started(1)], WAITING);
    expect(checked).toBe(WAITING);
    expect(WAITING).toMatchObject({ state: "degraded", retryAt: 300, failures: 1 });
    expect(isRunning(WAITING)).toBe(false);
    expect(next(WAITING, START, POLICY)).toMatchObject({ state: "initializing", run: 2 });
  });

  it("waits longer with each crash, whether a start failed or a run that was not healthy for long", () => {
    const waits: number[] = [];
    let now: Lifecycle = COLD;
    for (let n = 1; n <= 9; n++) {
      const at = n * 100_000; // never too many in the window
      const events =
        n % 2 === 0 ? [START, failed(n, at)] : [START, started(n), failed(n, at, 60_000)];
      now = after(events, now);
      waits.push(("retryAt" in now ? (now.retryAt ?? 0) : 0) - at);
    }
    expect(waits).toEqual([300, 550, 1050, 2050, 4050, 8050, 16_050, 30_050, 30_050]);
  });

  it("waits longer after each start that fails where no healthy time is asked for", () => {
    const restart = { limit: Infinity, window_s: 0, healthy_s: 0 };
    let now: Lifecycle = COLD;
    for (let run = 1; run <= 4; run++) {
      now = next(next(now, START, { ...POLICY, restart }), failed(run, 1000), {
        ...POLICY,
        restart,
      });
    }
    expect(now).toMatchObject({ state: "degraded", crashes: [1000, 1000, 1000, 1000] });
  });

  it("forgets crashes after healthy time, and not by being started", () => {
    const thrice = [1, 2, 3].flatMap((run) => [START, started(run), failed(run, 10, 299_999)]);
    expect(after(thrice).crashes).toHaveLength(3);
    const healthy = after([START, started(4), failed(4, 1_000_000, 300_000)], after(thrice));
    expect(healthy).toMatchObject({ state: "degraded", crashes: [1_000_000], retryAt: 1_000_300 });
  });

  it("is dead by a crash loop at restart.limit crashes in restart.window_s, and not before", () => {
    const crash = (run: number, at: number): LifecycleEvent[] => [START, failed(run, at)];
    const slow = [crash(1, 0), crash(2, 1_000), crash(3, 2_000), crash(4, 60_000)].flat();
    expect(after(slow)).toMatchObject({ state: "degraded" });
    const quick = [crash(1, 0), crash(2, 1_000), crash(3, 2_000), crash(4, 59_999)].flat();
    expect(after(quick)).toMatchObject({
      ...{ state: "dead", cause: "crash_loop" },
      reason: "crash loop: 4 failures within 60 s; the last: exit code 1",
    });
  });

  it("never forgives for a start that failed, and never waits for longer than ten minutes", () => {
    const policy = { ...POLICY, restart: { limit: 3, window_s: 60, healthy_s: 0 } };
    const events = [START, failed(1), START, failed(2), START, failed(3)];
    expect(events.reduce((now, event) => next(now, event, policy), COLD)).toMatchObject({
      ...{ state: "dead", cause: "crash_loop" },
    });
    const asked = { ...failed(1), retryAfterMs: 10 ** 12 } as LifecycleEvent;
    expect(after([START, asked])).toMatchObject({ retryAt: 600_000 });
  });

  it("counts no stop towards a crash loop, and a manual start forgives what was before", () => {
    const stops = [1, 2, 3, 4, 5, 6].flatMap((run) => [START, started(run), STOPPED]);
    expect(after(stops)).toMatchObject({ state: "cold", crashes: [] });
    const dead = after([1, 2, 3, 4].flatMap((run) => [START, failed(run)]));
    expect(dead).toMatchObject({ state: "dead" });
    expect(after([START, failed(5)], dead)).toMatchObject({ state: "degraded", crashes: [0] });
  });

  it("leaves dead only by a start", () => {
    const rest = [STOPPED, started(1), failed(1), checkPassed(1), checkFailed(1), impossible(1)];
    expect(after(rest, DEAD)).toBe(DEAD);
    expect(next(DEAD, START, POLICY)).toMatchObject({ state: "initializing", run: 2 });
  });

  it.each([
    ["cold", COLD],
    ["initializing", after([START])],
    ["ready", READY],
    ["degraded, running", after([checkFailed(1), checkFailed(1), checkFailed(1)], READY)],
    ["degraded, waiting", WAITING],
  ])("goes from %s to cold when it is stopped, without a failure", (_, now) => {
    const { run, crashes } = now;
    expect(next(now, STOPPED, POLICY)).toEqual({ state: "cold", run, failures: 0, crashes });
  });
});
