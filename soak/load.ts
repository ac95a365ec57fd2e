/** What the clients call, and what meanwhile happens to the providers. */
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { processOf } from "./census.ts";
import type { Client } from "./clients.ts";
import { type End, judge, type Order } from "./judge.ts";
import type { Provider } from "./providers.ts";

/** Longest pause of a lane after a call that went well, and after another, in milliseconds. */
const PAUSE_MS = 10;
const PAUSE_AFTER_ERROR_MS = 200;
/** Shortest and longest time between two faults, in milliseconds; what is started anew takes half a second of a slow core. */
const FAULT_MS = [500, 1_500] as const;
/** No more calls than this, however long the soak. */
const MAX_CALLS = 1_000_000;
/** What `sleep` is called with: longer than any deadline. */
const FOR_EVER_MS = 600_000;

type Random = () => number;

export interface Ended {
  readonly order: Order;
  readonly end: End;
  readonly ms: number;
}

/** Every call that has ended, by its key. */
export type Calls = Map<string, Ended>;

/** Calls one after the other until `over`. */
export async function callOn(
  client: Client,
  providers: readonly Provider[],
  random: Random,
  calls: Calls,
  over: () => boolean,
): Promise<void> {
  const { ways } = client;
  while (!over() && calls.size < MAX_CALLS) {
    const provider = pick(providers, random);
    const way = ways[Math.floor(random() * ways.length)] as Order["way"];
    // A modern provider takes no `initialize`, which is not translated.
    const understood = client.era === "modern" || provider.fault.era === "legacy";
    const order = newOrder(provider, understood ? way : "registry", random);
    const ended = await callOnce(client, order);
    calls.set(order.key, { order, ...ended });
    await sleep(random() * (ended.end.kind === "error" ? PAUSE_AFTER_ERROR_MS : PAUSE_MS));
  }
}

async function callOnce(client: Client, order: Order): Promise<Omit<Ended, "order">> {
  try {
    const { message, ms } = await client.call(order);
    return { end: judge(order, message), ms };
  } catch (error) {
    return { end: { kind: "lost", why: (error as Error).message }, ms: 0 };
  }
}

function pick(providers: readonly Provider[], random: Random): Provider {
  const whole = providers.reduce((sum, { fault }) => sum + fault.weight, 0);
  let left = random() * whole;
  const found = providers.find(({ fault }) => (left -= fault.weight) < 0);
  return found ?? (providers[0] as Provider);
}

function newOrder({ name, fault }: Provider, way: Order["way"], random: Random): Order {
  const key = randomUUID();
  const kind = random();
  const base = { provider: name, key, way, tearable: fault.tearable === true };
  // A call that is never answered: its deadline or its client must end it.
  if (kind < 0.02) {
    const args = { ms: FOR_EVER_MS };
    return random() < 0.5
      ? { ...base, tool: "sleep", args, way: "registry", timeoutMs: 100 + random() * 400 }
      : { ...base, tool: "sleep", args, leave: leaving(random) };
  }
  const chance = random();
  const more = {
    ...(chance < 0.05 && way === "registry" ? { timeoutMs: 100 + random() * 200 } : {}),
    ...(chance > 0.92 ? { leave: leaving(random) } : {}),
  };
  if (kind < 0.55) return { ...base, ...more, tool: "count", args: { key } };
  if (kind < 0.65) return { ...base, ...more, tool: "read", args: { key } };
  const args = { key, text: 'ü€ "\\ \u2028'.repeat(Math.floor(random() * 20)) };
  return { ...base, ...more, tool: "echo", args };
}

function leaving(random: Random): Order["leave"] {
  return { afterMs: random() ** 2 * 100, how: random() < 0.5 ? "cancel" : "disconnect" };
}

/** How often each fault was done. */
export interface FaultCounts {
  kills: number;
  stops: number;
  manualStarts: number;
}

/** Providers, and the client that stops and starts them. */
interface Fleet {
  readonly operator: Client;
  readonly providers: readonly Provider[];
}

/** Kills, stops and starts providers at random until `over`. */
export async function disturb(
  fleets: readonly Fleet[],
  random: Random,
  counts: FaultCounts,
  over: () => boolean,
): Promise<void> {
  const [least, most] = FAULT_MS;
  const asking = new Set<Promise<unknown>>();
  const victims = fleets.flatMap(({ operator, providers }) =>
    providers.map(({ name, ledger }) => ({ operator, name, ledger })),
  );
  while (!over()) {
    await sleep(least + random() * (most - least));
    const victim = victims[Math.floor(random() * victims.length)];
    const { operator, name, ledger } = victim as (typeof victims)[number];
    const kind = random();
    if (kind < 0.5) {
      const pid = processOf(ledger);
      if (pid === undefined) continue;
      try {
        process.kill(pid, "SIGKILL");
        counts.kills += 1;
      } catch {
        // It has gone meanwhile.
      }
      continue;
    }
    // Nobody waits for it before the next fault.
    const tool = kind < 0.75 ? "registry_stop" : "registry_start";
    counts[tool === "registry_stop" ? "stops" : "manualStarts"] += 1;
    const asked = operator.ask(tool, { provider: name });
    asking.add(asked);
    void asked.finally(() => asking.delete(asked));
  }
  await Promise.all(asking);
}
