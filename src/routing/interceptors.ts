import { matchesGlob } from "../lib/glob.ts";
import type { Tell } from "../observe/events.ts";
import type { Provider } from "../providers/provider.ts";
import type { Registered } from "../providers/registry.ts";
import type { Call, Target } from "../target.ts";
import { breaking } from "./breaking.ts";
import { CircuitBreaker } from "./circuit-breaker.ts";
import { deadline, toolTimeoutMs } from "./deadline.ts";
import { Limit, type Room } from "./limit.ts";
import { agreeingHeaders } from "./param-headers.ts";
import { listedOnly, offeredOnly } from "./policy.ts";
import { isRepeatable, Retry } from "./retry.ts";

interface Surroundings {
  readonly room: Room;
  /** The longest default deadline of a call through the registry tools, in milliseconds. */
  readonly invokeTimeoutMs: number;
  readonly tell: Tell;
}

/**
 * From the outside in: what is hidden is refused first; the deadline covers every attempt, the wait for a turn and for a
 * start; what finds no room, or a provider that is not well, is refused before it can start anything.
 */
export function behindInterceptors(
  provider: Provider,
  { room, invokeTimeoutMs, tell }: Surroundings,
): Registered {
  const { name, config } = provider;
  const { max_concurrency, max_queue, trust_annotations } = config;
  const breaker = new CircuitBreaker(config.circuit_breaker, (facts) => {
    const { state, calls, failures, retryAfterMs } = facts;
    tell({ type: "breaker_state", provider: name, state, calls, failures, retryAfterMs });
  });
  const limit = new Limit({ max_concurrency, max_queue, room, tell });
  const retry = new Retry({
    mayRepeat: (tool) =>
      config.retry.tools.some((glob) => matchesGlob(glob, tool)) ||
      (trust_annotations && provider.tools.some((one) => one.name === tool && isRepeatable(one))),
    budget: config.retry.budget,
    tell,
  });
  const slowMs = config.circuit_breaker.slow_call_s * 1000;
  const guarded = (target: Target): Target =>
    retry.before(limit.before(breaking(target, breaker, slowMs, tell)));

  const timeoutMs = config.timeout_s * 1000;
  const otherwise = (ms: number) => (call: Call) =>
    toolTimeoutMs(call, config.tool_timeouts_s) ?? ms;
  const patience = { patienceMs: otherwise(timeoutMs), maxMs: config.max_timeout_s * 1000 };
  const invokeMs = otherwise(Math.min(timeoutMs, invokeTimeoutMs));
  const listed = guarded(listedOnly(provider, provider, tell));
  const agreeing = guarded(agreeingHeaders(provider, provider, tell));
  const hidden = (target: Target): Target => offeredOnly(target, config.tools, tell);
  return {
    provider,
    target: hidden(deadline(listed, { defaultMs: invokeMs, ...patience })),
    relay: hidden(deadline(agreeing, { defaultMs: otherwise(timeoutMs), ...patience })),
    gate: {
      breaker: () => breaker.facts(performance.now()),
      underWay: () => retry.underWay,
      queued: () => limit.queued,
      cancelWaiting: (reason) => {
        retry.cancelWaiting(reason);
        limit.cancelWaiting(reason);
      },
      retries: () => retry.total,
      open: () => breaker.reset(performance.now()),
    },
  };
}
