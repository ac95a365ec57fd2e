import { setTimeout as sleep } from "node:timers/promises";
import type { Exit, Run } from "../drivers/driver.ts";
import { HangarError } from "../errors.ts";
import type { Tell } from "../observe/events.ts";
import type { Call, CallHandler, Era, Reply, Running } from "../target.ts";
import {
  itemsOf,
  type Members,
  type Message,
  membersOf,
  scanMessage,
  type Span,
  splice,
  stringAt,
  textOf,
  wholeOf,
} from "../wire/envelope.ts";
import {
  LEGACY_VERSION,
  LEGACY_VERSIONS,
  META,
  MODERN_VERSION,
  MODERN_VERSIONS,
  withMeta,
} from "../wire/eras.ts";
import { VERSION } from "../version.ts";
import { holdCall } from "./held-call.ts";

/** How long a provider may take to answer the question whether it is modern, before the legacy handshake goes out too. */
const PROBE_MS = 2_000;
/** The error code by which a modern provider gives itself away (2026-07-28, "UnsupportedProtocolVersion"). */
const UNSUPPORTED_VERSION = -32_022;
/** Pages of one list that are read; a provider that offers more is cut there. */
const MAX_PAGES = 100;

/** Something a connection has to tell apart from the ends of calls. */
export interface ConnectionEvents {
  /** Output that is no message: a banner, a log line on stdout, an overlong line. */
  noise(why: string, head: string): void;
  /** The provider says that its list of tools has changed. */
  toolsChanged(): void;
  /** The provider's own log message, as the text of its `params`. */
  logged(params: string): void;
}

/** One tool as the provider lists it; `text` is its raw JSON. */
export interface Tool {
  readonly name: string;
  readonly text: string;
}

/** What the provider said of itself in the handshake. */
export interface Handshake {
  readonly era: Era;
  readonly version: string;
  /** The raw JSON of its `initialize` or `server/discover` result. */
  readonly text: string;
  readonly hasTools: boolean;
}

interface Pending {
  readonly handler: CallHandler;
  /** The client's own progress token, raw; put back into each progress note. */
  readonly progressToken: string | undefined;
}

/** The modern envelope of every request to a modern provider, in the members of `_meta`. */
const ENVELOPE = [
  `"${META.protocolVersion}":"${MODERN_VERSION}"`,
  `"${META.clientInfo}":${JSON.stringify({ name: "mcp-hangar", version: VERSION })}`,
  `"${META.clientCapabilities}":{}`,
].join(",");

const INITIALIZE = JSON.stringify({
  protocolVersion: LEGACY_VERSION,
  capabilities: {},
  clientInfo: { name: "mcp-hangar", version: VERSION },
});

const ignore = (): void => {};

/** The MCP conversation with one run of a provider. Ids on this wire are its own. */
export class Connection {
  readonly #run: Run;
  readonly #events: ConnectionEvents;
  readonly #tell: Tell;
  readonly #pending = new Map<number, Pending>();
  #nextId = 1;
  #era: Era | undefined;
  #exit: Exit | undefined;
  #heardAt = performance.now();

  constructor(run: Run, events: ConnectionEvents, tell: Tell) {
    this.#run = run;
    this.#events = events;
    this.#tell = tell;
    void run.exited.then((exit) => this.#lost(exit));
  }

  /** Requests under way, Hangar's own included. */
  get inFlight(): number {
    return this.#pending.size;
  }

  /** When the provider last sent a message, by `performance.now()`. */
  get heardAt(): number {
    return this.#heardAt;
  }

  /**
   * Finds out the provider's era and shakes hands (reference: 2026-07-28, "Backward compatibility").
   * `server/discover` goes first; a provider that refuses it, or is silent, gets `initialize` on the
   * same pipe. `known` skips the question. Throws `start_failed` with what the provider answered.
   */
  async open(known: Era | undefined): Promise<Handshake> {
    const handshake = await this.#shakeHands(known);
    this.#era = handshake.era;
    if (handshake.era === "legacy") {
      this.#run.send('{"jsonrpc":"2.0","method":"notifications/initialized"}');
    }
    return handshake;
  }

  async #shakeHands(known: Era | undefined): Promise<Handshake> {
    if (known === "legacy") return this.#initialize();
    const discovered = this.#request("server/discover", `{"_meta":{${ENVELOPE}}}`);
    if (known === "modern") return this.#discovered(await discovered);
    const first = await Promise.race([discovered, silence(PROBE_MS)]);
    if (first !== undefined) {
      return isModernAnswer(first) ? this.#discovered(first) : this.#initialize();
    }
    // A provider that is slow to come up answers both in order, so a late answer still counts.
    const late = discovered.then((answer) =>
      isModernAnswer(answer) ? this.#discovered(answer) : undefined,
    );
    const initialized = this.#initialize();
    // Of a modern provider it fails, and of a silent one the other never ends; neither is news then.
    initialized.catch(ignore);
    late.catch(ignore);
    return (await Promise.race([late, initialized.catch(() => late)])) ?? initialized;
  }

  #discovered(answer: Reply): Handshake {
    const { text } = answer;
    const body = resultOf("server/discover", answer);
    const versions = itemsOf(text, body.get("supportedVersions")) ?? [];
    const named = versions.map((span) => stringAt(text, span));
    const version = MODERN_VERSIONS.find((offered) => named.includes(offered));
    if (version === undefined) {
      throw new HangarError(
        "start_failed",
        `it speaks no protocol revision that Hangar speaks: it offers ${named.join(", ") || "none"}`,
      );
    }
    return { era: "modern", version, text, hasTools: offersTools(text, body) };
  }

  async #initialize(): Promise<Handshake> {
    const answer = await this.#request("initialize", INITIALIZE);
    const { text } = answer;
    const body = resultOf("initialize", answer);
    const version = stringAt(text, body.get("protocolVersion")) ?? "nothing";
    if (!LEGACY_VERSIONS.includes(version)) {
      throw new HangarError(
        "start_failed",
        `it answered initialize with protocol revision ${version}, which Hangar does not speak`,
      );
    }
    return { era: "legacy", version, text, hasTools: offersTools(text, body) };
  }

  /** All tools of the provider, all pages; each may take `timeoutMs`. Throws `provider_refused`. */
  async listTools(timeoutMs?: number): Promise<readonly Tool[]> {
    // By name: a provider that repeats a page, or itself, offers each tool once.
    const tools = new Map<string, Tool>();
    const seen = new Set<string>();
    let cursor: string | undefined;
    for (;;) {
      const params = cursor === undefined ? "{}" : `{"cursor":${cursor}}`;
      const answer = await this.#ownRequest("tools/list", params, timeoutMs);
      const { text } = answer;
      const body = resultOf("tools/list", answer);
      for (const item of itemsOf(text, body.get("tools")) ?? []) {
        const name = stringAt(text, membersOf(text, item)?.get("name"));
        if (name !== undefined && !tools.has(name)) {
          tools.set(name, { name, text: textOf(text, item) });
        }
      }
      const nextCursor = body.get("nextCursor");
      if (nextCursor === undefined || stringAt(text, nextCursor) === undefined) break;
      cursor = textOf(text, nextCursor);
      if (seen.has(cursor)) {
        this.#events.noise("tools/list repeats the cursor; the list ends here", cursor);
        break;
      }
      seen.add(cursor);
      if (seen.size === MAX_PAGES) {
        this.#events.noise(`tools/list has more than ${MAX_PAGES} pages; the list ends here`, "");
        break;
      }
    }
    return [...tools.values()];
  }

  /** Is it alive? Throws `timeout` when no answer comes, `provider_exited` when it has gone. */
  async check(timeoutMs: number): Promise<void> {
    // Any answer is a sign of life, also one that refuses the method.
    await this.#ownRequest(this.#era === "modern" ? "server/discover" : "ping", "{}", timeoutMs);
  }

  /** Ends every call under way with `reason`, and tells the provider. */
  close(reason: HangarError): void {
    for (const [id, pending] of this.#pending) this.#cancel(id, pending, reason);
  }

  /** Sends one call; its end comes from the provider, a cancel, or the end of the run. */
  dispatch(call: Call, handler: CallHandler): Running {
    const { message } = call;
    const id = this.#nextId++;
    const token = message.meta.get("progressToken");
    const edits = token === undefined ? [] : [{ span: token, text: String(id) }];
    let params: string | undefined;
    if (this.#era === "modern") params = withMeta(message, ENVELOPE, edits);
    else if (message.params !== undefined) params = splice(message.text, message.params, edits);
    const pending: Pending = {
      handler,
      progressToken: token === undefined ? undefined : textOf(message.text, token),
    };
    const failure = this.#send(id, message.method as string, params, pending);
    if (failure !== undefined) return holdCall(Promise.resolve(failure), call, handler, this.#tell);
    return { cancel: (reason) => this.#cancel(id, pending, reason) };
  }

  /** Writes a request and remembers who waits for its answer; the failure when it cannot be written. */
  #send(
    id: number,
    method: string,
    params: string | undefined,
    pending: Pending,
  ): HangarError | undefined {
    if (this.#exit !== undefined) return lost(this.#exit, false);
    const tail = params === undefined ? "}" : `,"params":${params}}`;
    const text = `{"jsonrpc":"2.0","id":${id},"method":${JSON.stringify(method)}${tail}`;
    if (!this.#run.send(text)) {
      const why = "the provider reads its input too slowly; its queue is full";
      return new HangarError("overloaded", why, { retryAfterMs: 1_000 });
    }
    this.#pending.set(id, pending);
    return undefined;
  }

  #cancel(id: number, pending: Pending, reason: HangarError): void {
    if (!this.#pending.delete(id)) return;
    const params = `{"requestId":${id},"reason":${JSON.stringify(reason.message)}}`;
    this.#run.send(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":${params}}`);
    this.#safely(() => pending.handler.end(reason.whenSent()));
  }

  /** A request of Hangar itself, in the form the provider's era asks for. */
  #ownRequest(method: string, params: string, timeoutMs?: number): Promise<Reply> {
    if (this.#era !== "modern") return this.#request(method, params, timeoutMs);
    const rest = params === "{}" ? "" : `${params.slice(1, -1)},`;
    return this.#request(method, `{${rest}"_meta":{${ENVELOPE}}}`, timeoutMs);
  }

  #request(method: string, params: string, timeoutMs?: number): Promise<Reply> {
    return new Promise((resolve, reject) => {
      const id = this.#nextId++;
      let timer: NodeJS.Timeout | undefined;
      const handler: CallHandler = {
        note: ignore,
        end: (outcome) => {
          clearTimeout(timer);
          if (outcome.kind === "reply") resolve(outcome);
          else reject(outcome);
        },
      };
      const pending: Pending = { handler, progressToken: undefined };
      const failure = this.#send(id, method, params, pending);
      if (failure !== undefined) reject(failure);
      else if (timeoutMs !== undefined) {
        timer = setTimeout(() => {
          const why = `no answer to ${method} within ${timeoutMs / 1000} s`;
          this.#cancel(id, pending, new HangarError("timeout", why));
        }, timeoutMs);
      }
    });
  }

  /** Takes one line of the provider's output. */
  receive(line: string): void {
    let message: Message;
    try {
      message = scanMessage(line);
    } catch (error) {
      this.#events.noise((error as Error).message, line.slice(0, 200));
      return;
    }
    this.#heardAt = performance.now();
    if (message.kind === "response") this.#answered(message);
    else if (message.kind === "request") this.#asked(message);
    else this.#noted(message);
  }

  #answered(message: Message): void {
    const id = Number(message.id);
    const pending = this.#pending.get(id);
    // Nobody waits for it: it was cancelled, or it is the provider's mistake.
    if (pending === undefined) return;
    this.#pending.delete(id);
    const isError = message.error !== undefined;
    const span = (isError ? message.error : message.result) as Span;
    const reply: Reply = { kind: "reply", isError, text: textOf(message.text, span) };
    this.#safely(() => pending.handler.end(reply));
  }

  /** A request of the provider. Hangar declares no client capabilities, so only `ping` has an answer. */
  #asked(message: Message): void {
    const answer =
      message.method === "ping"
        ? '"result":{}'
        : `"error":{"code":-32601,"message":${JSON.stringify(`Hangar relays no ${message.method} to clients`)}}`;
    this.#run.send(`{"jsonrpc":"2.0","id":${message.id},${answer}}`);
  }

  #noted(message: Message): void {
    const { method, text, params } = message;
    if (method === "notifications/progress") this.#progressed(message);
    else if (method === "notifications/tools/list_changed") this.#events.toolsChanged();
    else if (method === "notifications/message") {
      this.#events.logged(params === undefined ? "{}" : textOf(text, params));
    }
  }

  #progressed({ text, body }: Message): void {
    const span = body.get("progressToken");
    const pending = this.#pending.get(numberAt(text, span));
    if (span === undefined || pending?.progressToken === undefined) return;
    const { handler, progressToken } = pending;
    const note = splice(text, wholeOf(text), [{ span, text: progressToken }]);
    this.#safely(() => handler.note(note));
  }

  #lost(exit: Exit): void {
    this.#exit = exit;
    const ended = [...this.#pending.values()];
    this.#pending.clear();
    for (const { handler } of ended) this.#safely(() => handler.end(lost(exit, true)));
  }

  #safely(deliver: () => void): void {
    try {
      deliver();
    } catch (error) {
      this.#tell({ type: "defect", error });
    }
  }
}

function offersTools(text: string, body: Members): boolean {
  return membersOf(text, body.get("capabilities"))?.has("tools") === true;
}

/** A DiscoverResult, or the error that only a modern server sends. */
function isModernAnswer({ isError, text }: Reply): boolean {
  const members = membersOf(text, wholeOf(text));
  if (!isError) return members?.has("supportedVersions") === true;
  return numberAt(text, members?.get("code")) === UNSUPPORTED_VERSION;
}

/** The number at `span`; NaN when there is none or it is something else. */
function numberAt(text: string, span: Span | undefined): number {
  return span === undefined ? Number.NaN : Number(textOf(text, span));
}

/** The members of the result in `reply`. Throws `provider_refused` when it is an error or no object. */
function resultOf(method: string, { isError, text }: Reply): Members {
  const members = membersOf(text, wholeOf(text));
  if (members !== undefined && !isError) return members;
  const said = isError
    ? `an error: ${stringAt(text, members?.get("message"))} (${numberAt(text, members?.get("code"))})`
    : `a result that is no object: ${text.slice(0, 100)}`;
  throw new HangarError("provider_refused", `it answered ${method} with ${said}`);
}

function lost(exit: Exit, sent: boolean): HangarError {
  return new HangarError("provider_exited", `the provider ended with ${describeExit(exit)}`, {
    sent,
    details: { exit_code: exit.code, signal: exit.signal },
  });
}

/** `exit code 3` or `signal SIGKILL`. */
export function describeExit(exit: Exit): string {
  return exit.signal === null ? `exit code ${exit.code}` : `signal ${exit.signal}`;
}

/** Settles with nothing after `ms`; keeps no process alive. */
function silence(ms: number): Promise<undefined> {
  return sleep(ms, undefined, { ref: false });
}
