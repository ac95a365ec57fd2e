import { setTimeout as sleep } from "node:timers/promises";
import type { About, Exit, Run } from "../drivers/driver.ts";
import { HangarError } from "../errors.ts";
import { Coalescer } from "../lib/coalescer.ts";
import type { Tell } from "../observe/events.ts";
import type {
  Asked,
  Call,
  CallHandler,
  Caller,
  Era,
  Question,
  Reply,
  Running,
  Outcome,
} from "../target.ts";
import { missingCapability } from "../wire/capabilities.ts";
import {
  itemsOf,
  type Members,
  type Message,
  membersOf,
  scanMessage,
  type Span,
  splice,
  spliceParts,
  stringAt,
  textOf,
  wholeOf,
} from "../wire/envelope.ts";
import {
  commonLegacyVersion,
  LEGACY_VERSION,
  LEGACY_VERSIONS,
  META,
  MODERN_VERSION,
  MODERN_VERSIONS,
  modernVersionOf,
  withMeta,
  withoutEnvelope,
} from "../wire/eras.ts";
import { mirroredName } from "../wire/headers.ts";
import { paramHeaders } from "../wire/param-headers.ts";
import { VERSION } from "../version.ts";
import { holdCall } from "./held-call.ts";

/** How long a provider may take to answer the question whether it is modern, before the legacy handshake goes out too. */
const PROBE_MS = 2_000;
/** The error code by which a modern provider gives itself away (2026-07-28, "UnsupportedProtocolVersion"). */
const UNSUPPORTED_VERSION = -32_022;
/** Pages of one list that are read; a provider that offers more is cut there. */
const MAX_PAGES = 100;
/** Questions of one provider that wait for an answer; more are refused. */
const MAX_QUESTIONS = 1_000;
/** Tasks of one provider whose progress still finds its client; the oldest makes room. */
const MAX_TASKS = 1_000;
/** A provider that keeps saying that a list has changed is passed on once in this time, its last word always. */
const LIST_CHANGED_INTERVAL_MS = 300;

/** Something a connection has to tell apart from the ends of calls. */
export interface ConnectionEvents {
  /** Output that is no message: a banner, a log line on stdout, an overlong line. */
  noise(why: string, head: string): void;
  /** The provider says that its list of tools has changed. */
  toolsChanged(): void;
  /** The provider's own log message, as the text of its `params`. */
  logged(params: string): void;
  /** A tool as the provider listed it last. */
  tool(name: string): Tool | undefined;
  /** Whether this client wants to hear of it: log messages have levels. */
  wants(call: Call, message: Message): boolean;
  /** A notification that belongs to no call. */
  noted(message: Message): void;
  /** Progress of a task of this client, whose call has ended. */
  notedTo(client: string, text: string): void;
  /** A question that belongs to no call; undefined where there is nobody it could be for. */
  asked(question: Question): Asked | undefined;
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
  /** The call, unless the request is Hangar's own. */
  readonly call: Call | undefined;
  /** The client's own progress token, raw; put back into each progress note. */
  readonly progressToken: string | undefined;
}

/** What does not concern the calls that happen to be under way, whatever it came with. */
const CONCERNS_EVERYBODY: ReadonlySet<string> = new Set([
  "notifications/resources/updated",
  // These outlive the call they came from; who does not know the task or the elicitation ignores them.
  "notifications/tasks/status",
  "notifications/elicitation/complete",
]);

const LIST_CHANGES: ReadonlySet<string> = new Set([
  "notifications/tools/list_changed",
  "notifications/prompts/list_changed",
  "notifications/resources/list_changed",
]);

const CLIENT_INFO = JSON.stringify({ name: "mcp-hangar", version: VERSION });

/** The modern envelope of every request to a modern provider, in the members of `_meta`. */
const ENVELOPE = [
  `"${META.protocolVersion}":"${MODERN_VERSION}"`,
  `"${META.clientInfo}":${CLIENT_INFO}`,
  `"${META.clientCapabilities}":{}`,
].join(",");

const ignore = (): void => {};

/** The modern era's request that stays open for what happens meanwhile. */
export const LISTEN = "subscriptions/listen";
/** JSON-RPC 2.0 error codes. */
const METHOD_NOT_FOUND = -32_601;
const INTERNAL_ERROR = -32_603;

/** The MCP conversation with one run of a provider. Ids on this wire are its own. */
export class Connection {
  readonly #run: Run;
  readonly #events: ConnectionEvents;
  readonly #capabilities: string;
  readonly #tell: Tell;
  readonly #pending = new Map<number, Pending>();
  /** Questions without an answer yet, by the provider's own id (raw JSON text). */
  readonly #questions = new Map<string, Asked | undefined>();
  /** Who made a task, and under which progress token, by the id of the request that made it. */
  readonly #tasks = new Map<number, { readonly client: string; readonly token: string }>();
  readonly #listChanges = new Coalescer(LIST_CHANGED_INTERVAL_MS);
  #nextId = 1;
  #listens = 0;
  #handshake: Handshake | undefined;
  #exit: Exit | undefined;
  #sessionLost = false;
  #drained: (() => void) | undefined;
  #heardAt = performance.now();

  /** `capabilities` is what a legacy provider is told that its client can do, raw JSON. */
  constructor(run: Run, events: ConnectionEvents, capabilities: string, tell: Tell) {
    this.#run = run;
    this.#events = events;
    this.#capabilities = capabilities;
    this.#tell = tell;
    void run.exited.then((exit) => this.#over(exit));
  }

  /** Requests under way, Hangar's own included; subscriptions, which wait for no answer, are not. */
  get inFlight(): number {
    return this.#pending.size - this.#listens;
  }

  /** The provider said that it has forgotten the session; nothing more can be asked here. */
  get sessionLost(): boolean {
    return this.#sessionLost;
  }

  /** Settles once nothing is under way any more. */
  drained(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#pending.size === 0) resolve();
      else this.#drained = resolve;
    });
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
    this.#handshake = handshake;
    this.#run.settled?.(handshake.era, handshake.version);
    if (handshake.era === "legacy") this.#notify("notifications/initialized", undefined);
    return handshake;
  }

  async #shakeHands(known: Era | undefined): Promise<Handshake> {
    if (known === "legacy") return this.#initialize();
    const discovered = this.#discover();
    if (known === "modern") return this.#discovered(await discovered);
    if (this.#run.settled !== undefined) {
      // Over HTTP a server of either era answers what it does not know; silence is an outage, and no verdict.
      const answer = await discovered;
      return isModernAnswer(answer) ? this.#discovered(answer) : this.#initialize();
    }
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

  /** Asks again when the refusal itself says that the revision is one the provider speaks. */
  async #discover(): Promise<Reply> {
    const ask = (): Promise<Reply> => this.#request("server/discover", `{"_meta":{${ENVELOPE}}}`);
    const answer = await ask();
    if (!answer.isError || !isModernAnswer(answer)) return answer;
    const { text } = answer;
    const data = membersOf(text, membersOf(text, wholeOf(text))?.get("data"));
    const named = (itemsOf(text, data?.get("supported")) ?? []).map((span) => stringAt(text, span));
    return named.includes(MODERN_VERSION) ? ask() : answer;
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
    const offer = `{"protocolVersion":"${LEGACY_VERSION}","capabilities":${this.#capabilities},"clientInfo":${CLIENT_INFO}}`;
    const answer = await this.#request("initialize", offer);
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

  /** All tools of the provider, all pages, which may take `timeoutMs` together. Throws `provider_refused`, `timeout`. */
  async listTools(timeoutMs?: number): Promise<readonly Tool[]> {
    // By name: a provider that repeats a page, or itself, offers each tool once.
    const tools = new Map<string, Tool>();
    const seen = new Set<string>();
    let cursor: string | undefined;
    const until = performance.now() + (timeoutMs ?? 0);
    for (;;) {
      const params = cursor === undefined ? "{}" : `{"cursor":${cursor}}`;
      const leftMs = Math.max(1, Math.ceil(until - performance.now()));
      const limitMs = timeoutMs === undefined ? undefined : leftMs;
      const answer = await this.ownRequest("tools/list", params, limitMs);
      const { text } = answer;
      const body = resultOf("tools/list", answer);
      for (const item of itemsOf(text, body.get("tools")) ?? []) {
        const name = this.#toolName(text, item);
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

  /** One tool that says something twice is no reason to do without the others. */
  #toolName(text: string, item: Span): string | undefined {
    try {
      return stringAt(text, membersOf(text, item)?.get("name"));
    } catch (error) {
      const why = `tools/list has a tool that is left out: ${(error as Error).message}`;
      this.#events.noise(why, textOf(text, item).slice(0, 200));
      return undefined;
    }
  }

  /** Is it alive? Throws `timeout` when no answer comes, `provider_exited` when it has gone. */
  async check(timeoutMs: number): Promise<void> {
    // Any answer is a sign of life, also one that refuses the method.
    await this.ownRequest(this.#isModern ? "server/discover" : "ping", "{}", timeoutMs);
  }

  get #isModern(): boolean {
    return this.#handshake?.era === "modern";
  }

  /** Ends every call under way with `reason`, and tells the provider. */
  close(reason: HangarError): void {
    for (const [id, pending] of this.#pending) this.#cancel(id, pending, reason);
  }

  /** Sends one call; its end comes from the provider, a cancel, or the end of the run. */
  dispatch(call: Call, handler: CallHandler): Running {
    const { message } = call;
    const own = this.#ownAnswer(message);
    if (own !== undefined) return holdCall(own, call, handler, this.#tell);
    const id = this.#nextId++;
    const token = message.meta.get("progressToken");
    const pending: Pending = {
      handler,
      call,
      progressToken: token === undefined ? undefined : textOf(message.text, token),
    };
    const failure = this.#send(id, message.method as string, this.#paramsOf(message, id), pending);
    if (failure !== undefined) return holdCall(failure, call, handler, this.#tell);
    if (message.method === LISTEN) this.#listens++;
    return { cancel: (reason) => this.#cancel(id, pending, reason) };
  }

  /** The client's `params` as this provider is to see them: its bytes, but for the progress token and the era's envelope. */
  #paramsOf(message: Message, id: number): readonly string[] | undefined {
    const { text, params, meta } = message;
    const enveloped = modernVersionOf(message) !== undefined;
    if (enveloped && !this.#isModern) return withoutEnvelope(message, String(id));
    const token = meta.get("progressToken");
    const edits = token === undefined ? [] : [{ span: token, text: String(id) }];
    if (this.#isModern && !enveloped) return withMeta(message, ENVELOPE, edits);
    return params === undefined ? undefined : spliceParts(text, params, edits);
  }

  /** The handshake of a client of the provider's era is answered with what the provider said in its own. */
  #ownAnswer(message: Message): Outcome | undefined {
    const { method, text, body } = message;
    const handshake = this.#handshake;
    if (handshake === undefined) return undefined;
    if (method === "initialize" && modernVersionOf(message) === undefined) {
      if (handshake.era === "modern") {
        const why = `Unsupported protocol version: provider speaks ${handshake.version} only`;
        const details = { supported: MODERN_VERSIONS };
        return new HangarError("unsupported_version", why, { details });
      }
      const wanted = stringAt(text, body.get("protocolVersion"));
      if (wanted === undefined) {
        const why = "initialize needs `protocolVersion`, a string";
        return new HangarError("invalid_params", why);
      }
      const said = membersOf(handshake.text, wholeOf(handshake.text))?.get("protocolVersion");
      const version = JSON.stringify(commonLegacyVersion(wanted, handshake.version));
      const edits = said === undefined ? [] : [{ span: said, text: version }];
      const answer = splice(handshake.text, wholeOf(handshake.text), edits);
      return { kind: "reply", isError: false, text: answer };
    }
    if (method === "server/discover" && handshake.era === "legacy") {
      const why = "Method not found: the provider is of an older era; send initialize";
      return new HangarError("method_not_found", why);
    }
    return undefined;
  }

  /** Passes a client's notification on. */
  note({ method, text, params }: Message): void {
    this.#notify(method as string, params === undefined ? undefined : textOf(text, params));
  }

  #notify(method: string, params: string | undefined): void {
    const tail = params === undefined ? "}" : `,"params":${params}}`;
    this.#run.send([`{"jsonrpc":"2.0","method":${JSON.stringify(method)}${tail}`], { method });
  }

  /** Writes a request and remembers who waits for its answer; the failure when it cannot be written. */
  #send(
    id: number,
    method: string,
    params: readonly string[] | undefined,
    pending: Pending,
  ): HangarError | undefined {
    if (this.#exit !== undefined) return lost(this.#exit, false);
    const head = `{"jsonrpc":"2.0","id":${id},"method":${JSON.stringify(method)}`;
    const parts = params === undefined ? [`${head}}`] : [`${head},"params":`, ...params, "}"];
    if (!this.#run.send(parts, this.#about(id, method, pending.call))) {
      const why = "the provider reads its input too slowly; its queue is full";
      return new HangarError("overloaded", why, { retryAfterMs: 1_000 });
    }
    this.#pending.set(id, pending);
    return undefined;
  }

  #about(id: number, method: string, call: Call | undefined): About {
    if (call === undefined || this.#run.settled === undefined) return { id, method };
    const { message, headers } = call;
    const name = mirroredName(message);
    const tool =
      this.#isModern && method === "tools/call" ? this.#events.tool(name ?? "") : undefined;
    const mirrored = tool === undefined ? undefined : paramHeaders(tool, message);
    return { id, method, name, headers: { ...headers, ...mirrored } };
  }

  #forget(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    if (pending === undefined) return undefined;
    const listens = pending.call?.message.method === LISTEN;
    // Whoever it was for may never ask for the lists again.
    if (listens) this.#listChanges.flush();
    this.#pending.delete(id);
    if (listens) this.#listens--;
    if (this.#pending.size === 0) this.#drained?.();
    return pending;
  }

  #cancel(id: number, pending: Pending, reason: HangarError): void {
    if (this.#forget(id) === undefined) return;
    this.#notify(
      "notifications/cancelled",
      `{"requestId":${id},"reason":${JSON.stringify(reason.message)}}`,
    );
    this.#run.forget?.(id);
    this.#safely(() => pending.handler.end(reason.whenSent()));
  }

  /** A request of Hangar itself, in the form the provider's era asks for. Throws `provider_exited`, `overloaded`, `timeout`. */
  ownRequest(method: string, params: string, timeoutMs?: number): Promise<Reply> {
    if (!this.#isModern) return this.#request(method, params, timeoutMs);
    const rest = params === "{}" ? "" : `${params.slice(1, -1)},`;
    return this.#request(method, `{${rest}"_meta":{${ENVELOPE}}}`, timeoutMs);
  }

  #request(method: string, params: string, timeoutMs?: number): Promise<Reply> {
    return new Promise((resolve, reject) => {
      const id = this.#nextId++;
      let timer: NodeJS.Timeout | undefined;
      const handler: CallHandler = {
        note: ignore,
        ask: () => ({ withdraw: ignore }),
        pause: ignore,
        end: (outcome) => {
          clearTimeout(timer);
          if (outcome.kind === "reply") resolve(outcome);
          else reject(outcome);
        },
      };
      const pending: Pending = { handler, call: undefined, progressToken: undefined };
      const failure = this.#send(id, method, [params], pending);
      if (failure !== undefined) reject(failure);
      else if (timeoutMs !== undefined) {
        timer = setTimeout(() => {
          const why = `no answer to ${method} within ${timeoutMs / 1000} s`;
          this.#cancel(id, pending, new HangarError("timeout", why));
        }, timeoutMs);
      }
    });
  }

  /** Takes one line of the provider's output; `about` is the request it came with, where that is known. False when it is no message. */
  receive(line: string, about?: number): boolean {
    let message: Message;
    try {
      message = scanMessage(line);
    } catch (error) {
      this.unreadable((error as Error).message, line);
      return false;
    }
    this.#heardAt = performance.now();
    if (message.kind === "response") this.#answered(message);
    else if (message.kind === "request") this.#safely(() => this.#asked(message, about));
    else this.#safely(() => this.#noted(message, about));
    return true;
  }

  /** The provider wants the client to come back for the answer to a request. */
  paused(id: number): void {
    const pending = this.#pending.get(id);
    if (pending !== undefined) this.#safely(() => pending.handler.pause());
  }

  waits(id: number): boolean {
    return this.#pending.has(id);
  }

  /** Takes the news that a request gets no answer. */
  lost(id: number, why: HangarError): void {
    if (why.code === "session_lost") this.#sessionLost = true;
    const pending = this.#forget(id);
    if (pending !== undefined) this.#safely(() => pending.handler.end(why));
  }

  /** Takes output that is no message, or its beginning; if it shows whose answer it was to be, that request ends. */
  unreadable(why: string, head: string): void {
    this.#events.noise(why, head.slice(0, 200));
    const pending = this.#forget(Number(idOfAnswer(head)));
    if (pending === undefined) return;
    const what = `the provider's answer cannot be read: ${why}`;
    this.#safely(() =>
      pending.handler.end(new HangarError("unreadable_answer", what, { sent: true })),
    );
  }

  #answered(message: Message): void {
    // Nobody may wait for it: it was cancelled, or it is the provider's mistake.
    const pending = this.#forget(Number(message.id));
    if (pending === undefined) return;
    const isError = message.error !== undefined;
    const span = (isError ? message.error : message.result) as Span;
    // The end of a subscription repeats its id, which is another one on the client's side.
    const subscription = message.meta.get(META.subscriptionId);
    const id = subscription === undefined ? undefined : pending.call?.message.id;
    const text =
      subscription === undefined || id === undefined
        ? textOf(message.text, span)
        : splice(message.text, span, [{ span: subscription, text: id }]);
    const reply: Reply = { kind: "reply", isError, text };
    if (!isError) this.#keepToken(Number(message.id), pending);
    this.#safely(() => pending.handler.end(reply));
  }

  /** A task goes on under the token of the call that made it (2025-11-25, "Tasks", "Progress"). */
  #keepToken(id: number, { call, progressToken: token }: Pending): void {
    if (token === undefined || call?.message.body.has("task") !== true) return;
    this.#tasks.set(id, { client: call.caller.client, token });
    const [oldest] = this.#tasks.keys();
    if (this.#tasks.size > MAX_TASKS && oldest !== undefined) this.#tasks.delete(oldest);
  }

  /** A request of the provider: for the client whose call it belongs to, if that can be told. */
  #asked(message: Message, about: number | undefined): void {
    const id = message.id as string;
    if (message.method === "ping") return this.#reply(id, '"result":{}');
    // The first question of that id gets its answer; a second answer would be one too many.
    if (this.#questions.has(id)) return;
    if (this.#questions.size >= MAX_QUESTIONS) {
      return this.#refuse(id, INTERNAL_ERROR, "Too many questions wait for an answer");
    }
    const question: Question = {
      message,
      answer: (reply) => {
        if (!this.#questions.delete(id)) return;
        this.#reply(id, `"${reply.isError ? "error" : "result"}":${reply.text}`);
      },
      note: (note) => void this.#run.send([note.text], { method: note.method as string }),
    };
    const pending = this.#callBehind(about);
    const caller = pending?.call?.caller;
    const missing = caller === undefined ? undefined : undeclared(caller, message);
    if (missing !== undefined) {
      return this.#refuse(id, METHOD_NOT_FOUND, `The client cannot be asked ${missing}`);
    }
    // Remembered first: an answer may come before `ask` has returned.
    this.#questions.set(id, undefined);
    const asked =
      pending === undefined ? this.#events.asked(question) : this.#ask(pending.handler, question);
    if (asked === undefined) {
      this.#questions.delete(id);
      const why = `Hangar cannot tell which client ${message.method} is for: ${this.#inFlightCalls().length === 0 ? "no call is under way" : "calls of several clients are under way"}. A provider with \`scope: session\` has each client to itself.`;
      return this.#refuse(id, INTERNAL_ERROR, why);
    }
    if (this.#questions.has(id)) this.#questions.set(id, asked);
  }

  #ask(handler: CallHandler, question: Question): Asked | undefined {
    try {
      return handler.ask(question);
    } catch (error) {
      this.#tell({ type: "defect", error });
      return undefined;
    }
  }

  #reply(id: string, member: string): void {
    this.#run.send([`{"jsonrpc":"2.0","id":${id},${member}}`], {});
  }

  #refuse(id: string, code: number, message: string): void {
    this.#reply(id, `"error":{"code":${code},"message":${JSON.stringify(message)}}`);
  }

  #inFlightCalls(): Pending[] {
    return [...this.#pending.values()].filter(
      ({ call }) => call !== undefined && call.message.method !== LISTEN,
    );
  }

  /** The call that something the provider sent belongs to: the one it came with, else the last one, if all are of one client. */
  #callBehind(
    about: number | undefined,
    calls: readonly Pending[] = this.#inFlightCalls(),
  ): Pending | undefined {
    const known = about === undefined ? undefined : this.#pending.get(about);
    if (known?.call !== undefined) return known;
    const [first] = calls;
    const alone = calls.every(({ call }) => call?.caller.client === first?.call?.caller.client);
    return alone ? calls.at(-1) : undefined;
  }

  #noted(message: Message, about: number | undefined): void {
    const { method, text, params, body, meta } = message;
    if (method === "notifications/progress") return this.#progressed(message);
    if (LIST_CHANGES.has(method as string)) return this.#listChanged(message);
    const subscription = meta.get(META.subscriptionId);
    if (subscription !== undefined) return this.#subscribed(message, subscription);
    if (method === "notifications/cancelled") {
      const id = body.get("requestId");
      const asked = id === undefined ? undefined : this.#questions.get(textOf(text, id));
      if (id !== undefined) this.#questions.delete(textOf(text, id));
      asked?.withdraw(message);
      return;
    }
    if (method === "notifications/message") {
      this.#events.logged(params === undefined ? "{}" : textOf(text, params));
    }
    // A modern client that did not ask for log messages must not get any, so it was not its call.
    const calls = this.#inFlightCalls().filter(
      ({ call }) => call?.caller.era !== "modern" || this.#events.wants(call, message),
    );
    const pending = CONCERNS_EVERYBODY.has(method as string)
      ? undefined
      : this.#callBehind(about, calls);
    if (pending?.call === undefined) this.#events.noted(message);
    else if ((this.#isModern && about !== undefined) || this.#events.wants(pending.call, message)) {
      this.#safely(() => pending.handler.note(text));
    }
  }

  #progressed({ text, body }: Message): void {
    const span = body.get("progressToken");
    const id = numberAt(text, span);
    const pending = this.#pending.get(id);
    const task = this.#tasks.get(id);
    const token = pending?.progressToken ?? task?.token;
    if (span === undefined || token === undefined) return;
    const note = splice(text, wholeOf(text), [{ span, text: token }]);
    if (pending !== undefined) this.#safely(() => pending.handler.note(note));
    else if (task !== undefined) this.#safely(() => this.#events.notedTo(task.client, note));
  }

  /** Concerns everybody, or the one subscription that it names; one that is over is none. */
  #listChanged(message: Message): void {
    const { method, text, meta } = message;
    if (method === "notifications/tools/list_changed") this.#events.toolsChanged();
    const subscription = meta.get(META.subscriptionId);
    const id = numberAt(text, subscription);
    if (subscription === undefined) {
      this.#listChanges.pass(`${method}`, () => this.#safely(() => this.#events.noted(message)));
    } else if (this.#pending.has(id)) {
      this.#listChanges.pass(`${method} ${id}`, () =>
        this.#safely(() => this.#subscribed(message, subscription)),
      );
    }
  }

  /** A message on a subscription, whose id is another one on the client's side. */
  #subscribed({ text }: Message, span: Span): void {
    const pending = this.#pending.get(numberAt(text, span));
    const id = pending?.call?.message.id;
    if (pending === undefined || id === undefined) return;
    const note = splice(text, wholeOf(text), [{ span, text: id }]);
    this.#safely(() => pending.handler.note(note));
  }

  #over(exit: Exit): void {
    this.#exit = exit;
    this.#listChanges.flush();
    const ended = [...this.#pending.values()];
    this.#pending.clear();
    for (const [id, asked] of this.#questions) {
      const params = `{"requestId":${id},"reason":"the provider has ended"}`;
      const gone = `{"jsonrpc":"2.0","method":"notifications/cancelled","params":${params}}`;
      this.#safely(() => asked?.withdraw(scanMessage(gone)));
    }
    this.#drained?.();
    this.#questions.clear();
    this.#listens = 0;
    // One failure for all of them, for it is one.
    const failure = lost(exit, true);
    for (const { handler } of ended) this.#safely(() => handler.end(failure));
  }

  #safely(deliver: () => void): void {
    try {
      deliver();
    } catch (error) {
      this.#tell({ type: "defect", error });
    }
  }
}

/** The id in output that looks like a response in one of the two usual orders of members, though it is not one. */
function idOfAnswer(head: string): string | undefined {
  const first =
    /^\s*\{\s*"jsonrpc"\s*:\s*"2\.0"\s*,\s*"id"\s*:\s*(\d+)\s*,\s*"(?:result|error)"/.exec(head);
  if (first !== null) return first[1];
  const isResponse = /^\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"(?:result|error)"/.test(head);
  return isResponse ? /,\s*"id"\s*:\s*(\d+)\s*\}\s*$/.exec(head.slice(-40))?.[1] : undefined;
}

/** What the client lacks to be asked `question`, in words; undefined when it can be. */
function undeclared({ era, capabilities }: Caller, question: Message): string | undefined {
  if (era === "modern") return `${question.method}: it is of an era without requests to clients`;
  const missing = missingCapability(capabilities, question);
  return missing === undefined
    ? undefined
    : `${question.method}: it did not declare the capability ${missing}`;
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
    unanswered: sent,
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
