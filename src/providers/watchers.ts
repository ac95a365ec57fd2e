import type { Tell } from "../observe/events.ts";
import {
  atEnd,
  type Asked,
  type Call,
  type CallHandler,
  type Question,
  type Reply,
  type Running,
  type Target,
  type Watcher,
} from "../target.ts";
import { type Message, scanMessage, splice, stringAt, textOf, wholeOf } from "../wire/envelope.ts";
import { META } from "../wire/eras.ts";
import { holdCall } from "./held-call.ts";

/** Levels of `notifications/message`, least important first (RFC 5424, as MCP names them). */
const LOG_LEVELS: readonly string[] = [
  "debug",
  "info",
  "notice",
  "warning",
  "error",
  "critical",
  "alert",
  "emergency",
];

const DONE: Reply = { kind: "reply", isError: false, text: "{}" };

interface Watched {
  readonly watcher: Watcher;
  /** The resources whose updates this client asked for. */
  readonly uris: Set<string>;
  /** The least important level it wants, as a place in LOG_LEVELS; undefined when it never said. */
  level: number | undefined;
}

/** The legacy clients that watch one provider: what each asked for, and who hears what belongs to no call. */
export class Watchers {
  readonly #watched = new Map<Watcher, Watched>();

  add(watcher: Watcher): void {
    this.#watched.set(watcher, { watcher, uris: new Set(), level: undefined });
  }

  /** Returns the resources that nobody is subscribed to any more. */
  remove(watcher: Watcher): string[] {
    const gone = this.#watched.get(watcher);
    this.#watched.delete(watcher);
    return [...(gone?.uris ?? [])].filter((uri) => !this.#isSubscribed(uri));
  }

  /** Passes a request on whose effect outlives it: all clients of the run share it, and the next run must be told again. */
  pass(
    connection: Pick<Target, "dispatch">,
    call: Call,
    handler: CallHandler,
    tell: Tell,
  ): Running {
    const { message, caller } = call;
    const { text, body, method } = message;
    const { client } = caller;
    const uri = stringAt(text, body.get("uri"));
    const level = stringAt(text, body.get("level"));
    // Remembered before the answer comes: what other clients wish meanwhile must not undo it.
    const unlessRefused = (forget: () => void): CallHandler =>
      atEnd(handler, (outcome) => {
        // One that was sent and then given up may have had its effect.
        if (outcome.kind === "failure" ? !outcome.sent : outcome.isError) forget();
        handler.end(outcome);
      });
    if (method === "logging/setLevel" && level !== undefined) {
      const span = body.get("level") as { start: number; end: number };
      const common = JSON.stringify(this.#levelWith(client, level));
      const spliced = splice(text, wholeOf(text), [{ span, text: common }]);
      const shared = common === textOf(text, span) ? message : scanMessage(spliced);
      const forget = this.#setLevel(client, level);
      return connection.dispatch({ ...call, message: shared }, unlessRefused(forget));
    }
    if (method === "resources/subscribe" && uri !== undefined) {
      return connection.dispatch(call, unlessRefused(this.#subscribe(client, uri)));
    }
    if (uri !== undefined && this.#unsubscribe(client, uri)) {
      return holdCall(DONE, call, handler, tell);
    }
    return connection.dispatch(call, handler);
  }

  /** Returns what takes it back. */
  #subscribe(client: string, uri: string): () => void {
    const added = this.#of(client).filter(({ uris }) => !uris.has(uri));
    for (const { uris } of added) uris.add(uri);
    return () => {
      for (const { uris } of added) uris.delete(uri);
    };
  }

  /** True when somebody else is still subscribed, so that the provider must not hear of it. */
  #unsubscribe(client: string, uri: string): boolean {
    for (const watched of this.#of(client)) watched.uris.delete(uri);
    return this.#isSubscribed(uri);
  }

  /** Returns what takes it back. */
  #setLevel(client: string, level: string): () => void {
    const before = this.#of(client).map((watched) => ({ watched, level: watched.level }));
    for (const { watched } of before) watched.level = Math.max(LOG_LEVELS.indexOf(level), 0);
    return () => {
      for (const { watched, level: old } of before) watched.level = old;
    };
  }

  /** The level that serves `client`, if it gets `level`, and everybody else. */
  #levelWith(client: string, level: string): string {
    const others = this.#levels((watched) => watched.watcher.caller.client !== client);
    return LOG_LEVELS[Math.min(LOG_LEVELS.indexOf(level), ...others)] ?? level;
  }

  /** What a new run of the provider must be told before anything else: the resources, and the level if anybody set one. */
  get wishes(): { readonly uris: readonly string[]; readonly level: string | undefined } {
    const uris = [...this.#watched.values()].flatMap((watched) => [...watched.uris]);
    return {
      uris: [...new Set(uris)],
      level: LOG_LEVELS[Math.min(...this.#levels(() => true))],
    };
  }

  /** Gives a notification to those it is for; what may be private stays away from other principals. */
  note(message: Message): void {
    const { method, text, body } = message;
    let hearers = [...this.#watched.values()];
    if (method === "notifications/resources/updated") {
      const uri = stringAt(text, body.get("uri")) ?? "";
      const subscribed = hearers.filter(({ uris }) => covers(uris, uri));
      // One that nobody asked for a direct client would see, too; but not somebody else.
      if (subscribed.length > 0) hearers = subscribed;
      else if (!this.#onePrincipal()) return;
    } else if (!method?.endsWith("/list_changed") && !this.#onePrincipal()) return;
    for (const watched of hearers) {
      if (isImportant(message, watched.level)) watched.watcher.note(text);
    }
  }

  /** Gives `text`, a whole notification, to one client. */
  tell(client: string, text: string): void {
    for (const { watcher } of this.#of(client)) watcher.note(text);
  }

  /** False for a log message that is less important than the caller wants to hear of; a modern one says so in each call. */
  wants({ caller, message: { text, meta } }: Call, message: Message): boolean {
    if (caller.era === "legacy") {
      return this.#of(caller.client).every(({ level }) => isImportant(message, level));
    }
    if (message.method !== "notifications/message") return true;
    const level = LOG_LEVELS.indexOf(stringAt(text, meta.get(META.logLevel)) ?? "");
    return level !== -1 && isImportant(message, level);
  }

  /** Puts a question outside any call to the one client there is; undefined when there is none, or more. */
  ask(question: Question): Asked | undefined {
    const [only, another] = this.#watched.keys();
    return another === undefined ? only?.ask(question) : undefined;
  }

  #of(client: string): Watched[] {
    return [...this.#watched.values()].filter(({ watcher }) => watcher.caller.client === client);
  }

  #isSubscribed(uri: string): boolean {
    return [...this.#watched.values()].some(({ uris }) => uris.has(uri));
  }

  #levels(which: (watched: Watched) => boolean): number[] {
    return [...this.#watched.values()]
      .filter(which)
      .map(({ level }) => level)
      .filter((level) => level !== undefined);
  }

  #onePrincipal(): boolean {
    return new Set([...this.#watched.keys()].map(({ caller }) => caller.principal)).size <= 1;
  }
}

function isImportant({ method, text, body }: Message, wanted: number | undefined): boolean {
  if (method !== "notifications/message" || wanted === undefined) return true;
  const level = LOG_LEVELS.indexOf(stringAt(text, body.get("level")) ?? "");
  return level === -1 || level >= wanted;
}

/** An update may name a part of what was subscribed (2025-11-25, "Resource Updated Notification"). */
function covers(subscribed: ReadonlySet<string>, uri: string): boolean {
  return subscribed.has(uri) || [...subscribed].some((one) => isPart(uri, one));
}

function isPart(uri: string, whole: string): boolean {
  if (!uri.startsWith(whole)) return false;
  return /[/?#]$/.test(whole) || "/?#".includes(uri.charAt(whole.length));
}
