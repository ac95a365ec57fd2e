import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  COLD,
  isRunning,
  type Lifecycle,
  type LifecycleEvent,
  next,
} from "../../src/providers/lifecycle.ts";

const POLICY = { max_consecutive_failures: 3 };

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

function happens(model: Model, event: LifecycleEvent): boolean {
  if ("run" in event && event.run !== model.run) return false;
  const leadsTo = MEANING[event.type][model.process];
  if (leadsTo === undefined) return false;
  if (event.type === "start") model.run++;
  if (STRIKES[event.type] === "none") model.strikes = 0;
  if (STRIKES[event.type] === "one more") model.strikes++;
  model.retryAt = event.type === "failed" ? event.retryAt : undefined;
  model.reason = "reason" in event ? event.reason : undefined;
  model.process = leadsTo;
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
  retryAt: fc.nat(),
  reason: fc.string({ maxLength: 4 }),
});
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

function eventOf({ type, offset, retryAt, reason }: Step, now: Lifecycle): LifecycleEvent {
  const run = now.run + offset;
  switch (type) {
    case "start":
    case "stopped":
      return { type };
    case "started":
    case "check_passed":
      return { type, run };
    case "failed":
      return { type, run, reason, retryAt };
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
const failed = (run: number, retryAt = 100): LifecycleEvent => ({
  type: "failed",
  run,
  reason: "exit code 1",
  retryAt,
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
        (steps, n) => {
          let now: Lifecycle = COLD;
          const model: Model = {
            process: "none",
            run: 0,
            strikes: 0,
            retryAt: undefined,
            reason: undefined,
          };
          for (const taken of steps) {
            const event = eventOf(taken, now);
            const was = now;
            now = next(now, event, { max_consecutive_failures: n });
            const applied = happens(model, event);
            const state = stateOf(model, n);
            count(applied ? `${event.type} applied` : `${event.type} ignored`);
            count(`${was.state} to ${state}`);
            expect(now.state).toBe(state);
            expect(now.run).toBe(model.run);
            expect(now.failures).toBe(model.strikes);
            expect(isRunning(now)).toBe(model.process === "up");
            expect("retryAt" in now ? now.retryAt : undefined).toBe(model.retryAt);
            if (applied && "reason" in now) expect(now.reason).toBe(model.reason);
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
    for (const way of ["ready to degraded", "degraded to ready", "dead to initializing"]) {
      expect(seen.get(way), way).toBeGreaterThan(50);
    }
  });

  it("changes no value it was given", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 20 }), (steps) => {
        let now: Lifecycle = Object.freeze({ ...COLD });
        for (const taken of steps) now = Object.freeze(next(now, eventOf(taken, now), POLICY));
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
    expect(twice).toEqual({ state: "ready", run: 1, failures: 2 });
    const thrice = next(twice, checkFailed(1), POLICY);
    expect(thrice).toEqual({ state: "degraded", run: 1, failures: 3, reason: "no" });
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
    expect(WAITING).toMatchObject({ state: "degraded", retryAt: 100, failures: 1 });
    expect(isRunning(WAITING)).toBe(false);
    expect(next(WAITING, START, POLICY)).toEqual({ state: "initializing", run: 2, failures: 1 });
  });

  it("keeps counting over failed starts, so that the backoff grows", () => {
    const events = [START, failed(1), START, failed(2), START, failed(3)];
    expect(after(events)).toMatchObject({ state: "degraded", failures: 3, run: 3 });
    expect(after([...events, START, started(4)])).toMatchObject({ state: "ready", failures: 0 });
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
    expect(next(now, STOPPED, POLICY)).toEqual({ state: "cold", run: now.run, failures: 0 });
  });
});
