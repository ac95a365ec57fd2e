import { HangarError } from "../errors.ts";
import type { Target } from "../target.ts";
import type { Provider } from "./provider.ts";

export type BreakerState = "closed" | "open" | "half_open";

/** What a provider's circuit breaker knows. */
export interface BreakerFacts {
  readonly state: BreakerState;
  readonly forced: boolean;
  /** Calls judged by, and how many of them failed. */
  readonly calls: number;
  readonly failures: number;
  /** How often in a row it has opened without closing. */
  readonly openings: number;
  /** How long no call is let through, in milliseconds. */
  readonly retryAfterMs: number;
}

/** What stands between a provider and its calls. */
export interface Gate {
  breaker(): BreakerFacts;
  /** Calls under way, those included that wait for their turn or for another attempt. */
  underWay(): number;
  /** Calls that wait for their turn. */
  queued(): number;
  /** Calls that were sent again so far. */
  retries(): number;
  /** Ends the calls that wait: nothing may start the provider again. */
  cancelWaiting(reason: HangarError): void;
  /** Somebody knows that the provider is well: closes the circuit breaker. */
  open(): void;
}

/** A provider, and the target through which its calls go. */
export interface Registered {
  readonly provider: Provider;
  /** The provider behind its interceptors, as the registry tools call it. */
  readonly target: Target;
  /** The same for a client that sees the provider alone. */
  readonly relay: Target;
  readonly gate: Gate;
}

/** The table of providers, in the order of the configuration. */
export type Registry = ReadonlyMap<string, Registered>;

const NAMES_SHOWN = 20;

/** Throws `provider_not_found`, with the names there are. */
export function findProvider(registry: Registry, name: string): Registered {
  const found = registry.get(name);
  if (found === undefined) throw unknownProvider(registry.keys(), name);
  return found;
}

/** That there is no provider `name`, only those `known`. */
export function unknownProvider(known: Iterable<string>, name: string): HangarError {
  const names = [...known].slice(0, NAMES_SHOWN).join(", ");
  return new HangarError(
    "provider_not_found",
    `unknown_provider: ${name.slice(0, 64)}; there are: ${names || "none"}`,
  );
}
