import type { Provider } from "../providers/provider.ts";
import { every } from "./every.ts";

/** Checks are spread by this share of their interval to both sides, so that they do not come in waves. */
const JITTER = 0.1;

/** Checks each running provider every `health_check_interval_s`; one that hangs delays no other. */
export async function healthLoops(
  providers: readonly Provider[],
  signal: AbortSignal,
): Promise<void> {
  await Promise.all(
    providers.map((provider) =>
      every(
        () => provider.config.health_check_interval_s * 1000 * jitter(Math.random()),
        () => provider.check(),
        signal,
      ),
    ),
  );
}

function jitter(random: number): number {
  return 1 - JITTER + 2 * JITTER * random;
}
