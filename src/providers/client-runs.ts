import { HangarError, toHangarError } from "../errors.ts";
import type { Tell } from "../observe/events.ts";
import type { Call, Caller, Target } from "../target.ts";
import { textOf } from "../wire/envelope.ts";
import { holdCall } from "./held-call.ts";
import type { Registered } from "./registry.ts";

/** Clients that have a run of their own of one provider, at once; more are refused. */
const MAX_RUNS = 64;

interface ClientRun {
  readonly registered: Registered;
  /** Ends what looks after it. */
  readonly release: () => void;
  watches: number;
}

export interface ClientRunsOptions {
  readonly name: string;
  /** Makes the provider of one client, which declared `capabilities` (raw JSON). */
  readonly make: (capabilities: string) => Registered;
  /** Sees to it that it is checked, and stopped when idle; returns what ends that. */
  readonly adopt: (registered: Registered) => () => void;
  readonly tell: Tell;
}

/** A provider with `scope: session`: each client has a run of its own, which ends with the client. */
export class ClientRuns {
  readonly #options: ClientRunsOptions;
  readonly #runs = new Map<string, ClientRun>();
  #closing: Promise<unknown> = Promise.resolve();

  constructor(options: ClientRunsOptions) {
    this.#options = options;
  }

  /** What clients call, one by one of what a provider is registered with. */
  face(which: "target" | "relay"): Target {
    const { name, tell } = this.#options;
    return {
      name,
      available: true,
      dispatch: (call, handler) => {
        try {
          return this.#of(call.caller, capabilitiesIn(call)).registered[which].dispatch(
            call,
            handler,
          );
        } catch (error) {
          return holdCall(Promise.resolve(toHangarError(error)), call, handler, tell);
        }
      },
      watch: (watcher) => {
        const { client, capabilities } = watcher.caller;
        const own = this.#of(watcher.caller, capabilities);
        const watch = own.registered[which].watch(watcher);
        own.watches++;
        return {
          note: (message) => watch.note(message),
          close: () => {
            watch.close();
            if (--own.watches === 0) this.#end(client, own);
          },
        };
      },
    };
  }

  async close(): Promise<void> {
    for (const [client, run] of this.#runs) this.#end(client, run);
    await this.#closing;
  }

  #of({ client }: Caller, capabilities: string): ClientRun {
    const known = this.#runs.get(client);
    if (known !== undefined) return known;
    this.#makeRoom();
    const registered = this.#options.make(capabilities);
    const run = { registered, release: this.#options.adopt(registered), watches: 0 };
    this.#runs.set(client, run);
    return run;
  }

  #makeRoom(): void {
    if (this.#runs.size < MAX_RUNS) return;
    for (const [client, run] of this.#runs) {
      if (run.watches === 0 && !run.registered.provider.running) this.#end(client, run);
    }
    if (this.#runs.size < MAX_RUNS) return;
    const why = `${MAX_RUNS} clients have a run of provider ${this.#options.name} already`;
    throw new HangarError("overloaded", why, { retryAfterMs: 1_000 });
  }

  #end(client: string, run: ClientRun): void {
    if (this.#runs.get(client) !== run) return;
    this.#runs.delete(client);
    run.release();
    this.#closing = Promise.all([this.#closing, run.registered.provider.close()]);
  }
}

/** What the client declares: in `initialize` it is just saying so. */
function capabilitiesIn({ message, caller }: Call): string {
  const declared = message.method === "initialize" ? message.body.get("capabilities") : undefined;
  return declared === undefined ? caller.capabilities : textOf(message.text, declared);
}
