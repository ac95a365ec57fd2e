import { HangarError, toHangarError } from "../errors.ts";
import type { Tell } from "../observe/events.ts";
import type { Call, Caller, Target, Watch, Watcher } from "../target.ts";
import { textOf } from "../wire/envelope.ts";
import { holdCall } from "./held-call.ts";
import type { Registered } from "./registry.ts";

/** Clients that have a run of their own of one provider, at once; more are refused. */
const MAX_RUNS = 64;

type Face = "target" | "relay";

interface ClientRun {
  readonly registered: Registered;
  /** Ends what looks after it. */
  readonly release: () => void;
}

/** A client's hold on its run, whenever it has one. */
interface Hold {
  readonly face: Face;
  readonly watcher: Watcher;
  watch: Watch | undefined;
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
  readonly #holds = new Set<Hold>();
  #closing: Promise<unknown> = Promise.resolve();
  #closed: HangarError | undefined;

  constructor(options: ClientRunsOptions) {
    this.#options = options;
  }

  /** What clients call, one by one of what a provider is registered with. */
  face(which: Face): Target {
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
          return holdCall(toHangarError(error), call, handler, tell);
        }
      },
      watch: (watcher) => {
        const { client } = watcher.caller;
        const hold: Hold = { face: which, watcher, watch: undefined };
        this.#holds.add(hold);
        hold.watch = this.#runs.get(client)?.registered[which].watch(watcher);
        return {
          note: (message) => hold.watch?.note(message),
          close: () => {
            hold.watch?.close();
            if (this.#holds.delete(hold) && !this.#isHeld(client)) this.#end(client);
          },
        };
      },
    };
  }

  /** As of a provider; and no client gets a run any more that has none. */
  startNoMore(why: HangarError): void {
    this.#closed ??= why;
    for (const { registered } of this.#runs.values()) registered.provider.startNoMore(why);
  }

  async close(why: HangarError): Promise<void> {
    this.startNoMore(why);
    for (const client of this.#runs.keys()) this.#end(client);
    await this.#closing;
  }

  #of({ client }: Caller, capabilities: string): ClientRun {
    const known = this.#runs.get(client);
    if (known !== undefined) return known;
    if (this.#closed !== undefined) throw this.#closed;
    this.#makeRoom();
    const registered = this.#options.make(capabilities);
    const run = { registered, release: this.#options.adopt(registered) };
    this.#runs.set(client, run);
    for (const hold of this.#holds) {
      if (hold.watcher.caller.client === client) {
        hold.watch = registered[hold.face].watch(hold.watcher);
      }
    }
    return run;
  }

  #isHeld(client: string): boolean {
    return [...this.#holds].some(({ watcher }) => watcher.caller.client === client);
  }

  #makeRoom(): void {
    if (this.#runs.size < MAX_RUNS) return;
    const resting = [...this.#runs].filter(([, { registered }]) => isResting(registered));
    const clients = resting.map(([client]) => client);
    // One that is still there would rather keep its own; it gets another when it calls again.
    const [first] = [...clients.filter((client) => !this.#isHeld(client)), ...clients];
    if (first !== undefined) return this.#end(first);
    const why = `${MAX_RUNS} clients have a run of provider ${this.#options.name} already`;
    throw new HangarError("overloaded", why, { retryAfterMs: 1_000 });
  }

  #end(client: string): void {
    const run = this.#runs.get(client);
    if (run === undefined) return;
    this.#runs.delete(client);
    for (const hold of this.#holds) {
      if (hold.watcher.caller.client === client) hold.watch = undefined;
    }
    run.release();
    const why = `the client's run of provider ${this.#options.name} has ended`;
    const over = this.#closed ?? new HangarError("provider_stopped", why);
    run.registered.gate.cancelWaiting(over);
    this.#closing = Promise.all([this.#closing, run.registered.provider.close(over)]);
  }
}

function isResting({ provider, gate }: Registered): boolean {
  return !provider.running && gate.underWay() === 0 && provider.facts.state !== "initializing";
}

/** What the client declares: in `initialize` it is just saying so. */
function capabilitiesIn({ message, caller }: Call): string {
  const declared = message.method === "initialize" ? message.body.get("capabilities") : undefined;
  return declared === undefined ? caller.capabilities : textOf(message.text, declared);
}
