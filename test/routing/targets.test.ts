import { breaking } from "../../src/routing/breaking.ts";
import { CircuitBreaker } from "../../src/routing/circuit-breaker.ts";
import { deadline } from "../../src/routing/deadline.ts";
import { Limit, Room } from "../../src/routing/limit.ts";
import { listedOnly, offeredOnly } from "../../src/routing/policy.ts";
import { RateLimit, rateLimited } from "../../src/routing/rate-limit.ts";
import { Retry } from "../../src/routing/retry.ts";
import { testTarget } from "../target-contract.ts";

const PATIENT = { defaultMs: () => 30_000, patienceMs: () => 30_000, maxMs: 30_000 };
const ALL = { allow: ["*"], deny: [] };
const BREAKER = { failure_rate: 1, min_calls: 100, open_s: 1, half_open_calls: 1 };

testTarget("deadline()", { target: ({ provider }) => deadline(provider, PATIENT) });

testTarget("breaking()", {
  target: ({ provider, events }) =>
    breaking(provider, new CircuitBreaker(BREAKER, () => {}), 0, (event) => events.push(event)),
});

testTarget("Limit.before()", {
  target: ({ provider, events }) =>
    new Limit({
      ...{ max_concurrency: 1_000, max_queue: 0, room: new Room(1_000) },
      tell: (event) => events.push(event),
    }).before(provider),
});

testTarget("Retry.before()", {
  target: ({ provider, events }) =>
    new Retry({
      ...{ mayRepeat: () => false, budget: 0.2 },
      tell: (event) => events.push(event),
    }).before(provider),
});

testTarget("rateLimited()", {
  target: ({ provider, events }) =>
    rateLimited(provider, new RateLimit(1e6, 1e6), (event) => events.push(event)),
});

testTarget("offeredOnly()", {
  target: ({ provider, events }) => offeredOnly(provider, ALL, (event) => events.push(event)),
});

testTarget("listedOnly()", {
  target: ({ provider, events }) => listedOnly(provider, provider, (event) => events.push(event)),
});
