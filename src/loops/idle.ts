import type { Provider } from "../providers/provider.ts";
import { every } from "./every.ts";

/** How often the loop looks, in milliseconds; a provider may outlive its ttl by that much. */
const LOOK_MS = 500;

/** Stops each provider that had nothing in flight for its `idle_ttl_s`. */
export function idleLoop(providers: readonly Provider[], signal: AbortSignal): Promise<void> {
  const mortal = providers.filter(({ config }) => config.idle_ttl_s > 0);
  return every(
    () => LOOK_MS,
    () => {
      const now = Date.now();
      for (const provider of mortal) {
        const ttlMs = provider.config.idle_ttl_s * 1000;
        // One that is slow to stop must not keep the others running.
        if (provider.idleMs(now) >= ttlMs) void provider.stop(`idle for ${ttlMs / 1000} s`);
      }
    },
    signal,
  );
}
