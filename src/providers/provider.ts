import type { ProviderConfig } from "../config/schema.ts";
import type { Driver, Exit, Run } from "../drivers/driver.ts";
import { type ErrorCode, ERRORS, HangarError, toHangarError } from "../errors.ts";
import { headerSecrets, redactor } from "../lib/redact.ts";
import type { Tell } from "../observe/events.ts";
import {
  atEnd,
  type Call,
  type CallHandler,
  type Era,
  type Outcome,
  type Question,
  type Running,
  type Target,
  type Watch,
  type Watcher,
} from "../target.ts";
import { SHARED_CAPABILITIES } from "../wire/capabilities.ts";
import { type Message, scanMessage } from "../wire/envelope.ts";
import { Connection, describeExit, type Handshake, LISTEN, type Tool } from "./connection.ts";
import { diagnose, isOverdue } from "./diagnosis.ts";
import type { EraVerdicts } from "./era-verdicts.ts";
import { holdCall } from "./held-call.ts";
import {
  COLD,
  type DeathCause,
  isRunning,
  type Lifecycle,
  type LifecycleEvent,
  next,
  type State,
} from "./lifecycle.ts";
import type { StartGate, Turn } from "./start-gate.ts";
import { Subscriptions } from "./subscriptions.ts";
import { Watchers } from "./watchers.ts";

/** Wait after closing stdin, and again after TERM, when a running provider is stopped. */
const STOP_GRACE_MS = 2_000;
/** The same for a start that failed: there is no work to save. */
const FAILED_START_GRACE_MS = 200;
/** What ending a failed start takes at worst. */
const FAILED_START_MS = 3 * FAILED_START_GRACE_MS;
/** Bounds of the wait for the answer to a health check. */
const MIN_CHECK_MS = 1_000;
const MAX_CHECK_MS = 5_000;

export interface ProviderOptions {
  readonly name: string;
  readonly config: ProviderConfig;
  readonly driver: Driver;
  /** Names what the driver runs, so that an era verdict outlives this process but not a changed configuration. */
  readonly eraKey: string;
  readonly eras: EraVerdicts;
  readonly tell: Tell;
  readonly starts: StartGate;
  /** The one client whose run it is: what it declared it can do, raw JSON. Without it the run is shared. */
  readonly ownCapabilities?: string;
}

/** What there is to know about a provider, for people and tools. Times are milliseconds since 1970. */
export interface ProviderFacts {
  readonly state: State;
  readonly since: number;
  readonly reason: string | undefined;
  readonly running: boolean;
  readonly failures: number;
  readonly retryAt: number | undefined;
  /** Why it is dead. */
  readonly cause: DeathCause | undefined;
  readonly run: number;
  /** How often it was started again by itself after a crash. */
  readonly restarts: number;
  readonly startedAt: number | undefined;
  readonly usedAt: number;
  readonly inFlight: number;
  readonly calls: number;
  readonly failedCalls: number;
  readonly succeededAt: number | undefined;
  readonly failedAt: number | undefined;
  readonly lastExit: Exit | undefined;
  readonly stderr: readonly string[];
  readonly noiseLines: number;
  readonly handshake: Handshake | undefined;
}

interface Opened {
  readonly run: Run;
  readonly connection: Connection;
  readonly handshake: Handshake;
  readonly tools: readonly Tool[];
  /** By `performance.now()`. */
  readonly readyAt: number;
}

/** A start under way. */
interface Starting {
  readonly done: Promise<void>;
  readonly stop: AbortController;
  readonly turn: Turn;
}

/** One managed MCP server: started on first use, watched, stopped when idle. */
export class Provider implements Target {
  readonly name: string;
  readonly config: ProviderConfig;
  readonly #driver: Driver;
  readonly #eraKey: string;
  readonly #eras: EraVerdicts;
  readonly #tell: Tell;
  readonly #starts: StartGate;
  /** Takes the secrets it was given out of what goes to the log. */
  readonly #hide: ReturnType<typeof redactor>;
  readonly #ownCapabilities: string | undefined;
  readonly #watchers = new Watchers();
  readonly #subscriptions = new Subscriptions(
    () => this.#closed === undefined && this.#lifecycle.state !== "dead",
  );

  #lifecycle: Lifecycle;
  #since = Date.now();
  #starting: Starting | undefined;
  /** It ran until it crashed, and is to be brought back. */
  #crashed = false;
  #restart: NodeJS.Timeout | undefined;
  #restarts = 0;
  #opened: Opened | undefined;
  /** Runs whose session is lost, with what is still under way in them. */
  readonly #retired = new Set<Opened>();
  #stopping: Promise<void> = Promise.resolve();
  #renewing: Promise<void> | undefined;
  /** Why nothing starts it any more. */
  #closed: HangarError | undefined;

  #tools: readonly Tool[] = [];
  #toolsStale = false;
  #refreshing: Promise<readonly Tool[]> | undefined;

  #startedAt: number | undefined;
  #usedAt = Date.now();
  #checkedAt = performance.now();
  #checking = false;
  #calls = 0;
  #failedCalls = 0;
  #succeededAt: number | undefined;
  #failedAt: number | undefined;
  #lastExit: Exit | undefined;
  #lastTail: readonly string[] = [];
  #noiseLines = 0;

  constructor(options: ProviderOptions) {
    this.name = options.name;
    this.config = options.config;
    this.#driver = options.driver;
    this.#eraKey = options.eraKey;
    this.#eras = options.eras;
    this.#tell = options.tell;
    this.#starts = options.starts;
    this.#hide = redactor({ ...this.config.env, ...headerSecrets(this.config.headers) });
    this.#ownCapabilities = options.ownCapabilities;
    const { unusable } = options.config;
    this.#lifecycle =
      unusable === undefined
        ? COLD
        : { ...COLD, state: "dead", reason: unusable, cause: "permanent" };
  }

  get available(): boolean {
    return this.#refusal() === undefined;
  }

  /** True while calls go straight to a running process. */
  get running(): boolean {
    return this.#opened !== undefined;
  }

  /** The tools as last listed; empty before the first start. */
  get tools(): readonly Tool[] {
    return this.#tools;
  }

  /** The provider said that they have changed since. */
  get toolsStale(): boolean {
    return this.#toolsStale;
  }

  /** How long nothing has been in flight, in milliseconds; 0 while something is, or while it does not run. */
  idleMs(now: number): number {
    const connection = this.#opened?.connection;
    return connection === undefined || connection.inFlight > 0 ? 0 : now - this.#usedAt;
  }

  get facts(): ProviderFacts {
    const now = this.#lifecycle;
    return {
      state: now.state,
      since: this.#since,
      reason: "reason" in now ? now.reason : undefined,
      running: this.running,
      failures: now.failures,
      retryAt: "retryAt" in now ? wallClock(now.retryAt) : undefined,
      cause: "cause" in now ? now.cause : undefined,
      restarts: this.#restarts,
      run: now.run,
      startedAt: this.#startedAt,
      usedAt: this.#usedAt,
      inFlight: this.#opened?.connection.inFlight ?? 0,
      calls: this.#calls,
      failedCalls: this.#failedCalls,
      succeededAt: this.#succeededAt,
      failedAt: this.#failedAt,
      lastExit: this.#lastExit,
      stderr: this.#opened?.run.tail() ?? this.#lastTail,
      noiseLines: this.#noiseLines,
      handshake: this.#opened?.handshake,
    };
  }

  /** One call; starts the provider if it is cold, and a new session if the provider has forgotten the last. */
  dispatch(call: Call, handler: CallHandler): Running {
    this.#calls++;
    this.#usedAt = Date.now();
    const watched = this.#watch(handler);
    const connection = this.#opened?.connection;
    const lost = connection?.sessionLost === true;
    if (connection !== undefined && !lost) return this.#pass(connection, call, watched);
    const ready = (lost ? this.#renew() : this.start("call")).then(() => {
      const opened = this.#connection();
      const dispatch: Target["dispatch"] = (held, to) => this.#pass(opened, held, to);
      return { dispatch };
    });
    return holdCall(ready, call, watched, this.#tell);
  }

  watch(watcher: Watcher): Watch {
    this.#watchers.add(watcher);
    return {
      note: (message) => {
        // Which roots changed is one client's affair; a shared run cannot be told.
        if (this.#isShared && message.method === "notifications/roots/list_changed") return;
        this.#opened?.connection.note(message);
      },
      close: () => {
        for (const uri of this.#watchers.remove(watcher)) {
          this.#wish("resources/unsubscribe", { uri });
        }
      },
    };
  }

  get #isShared(): boolean {
    return this.#ownCapabilities === undefined;
  }

  #pass(connection: Connection, call: Call, handler: CallHandler): Running {
    switch (call.message.method) {
      case "resources/subscribe":
      case "resources/unsubscribe":
      case "logging/setLevel":
        return this.#watchers.pass(connection, call, handler, this.#tell);
      case LISTEN:
        return this.#subscriptions.listen(connection, call, handler);
      default:
        return connection.dispatch(call, handler);
    }
  }

  /** A request of ours about what clients wish; its failure is the provider's affair. */
  #wish(method: string, params: object): void {
    const asked = this.#opened?.connection.ownRequest(
      method,
      JSON.stringify(params),
      this.config.timeout_s * 1000,
    );
    asked?.catch(() => {});
  }

  /** Tells a new run what the clients had told the one before, and the clients what has changed since. */
  #resume(connection: Connection, changed: boolean): void {
    const { uris, level } = this.#watchers.wishes;
    if (level !== undefined) this.#wish("logging/setLevel", { level });
    for (const uri of uris) this.#wish("resources/subscribe", { uri });
    this.#subscriptions.resume(connection);
    if (!changed) return;
    this.#watchers.note(scanMessage(`{"jsonrpc":"2.0","method":"${TOOLS_CHANGED}"}`));
    this.#subscriptions.announceTools(TOOLS_CHANGED);
  }

  /**
   * Makes it run; callers of a start under way share it. A `call` is refused while the provider waits
   * for its retry or is dead; `manual` starts from any state; `restart` is for what crashed, and nobody waits for it.
   * Throws why it did not come up.
   */
  async start(by: "call" | "manual" | "restart"): Promise<void> {
    if (this.#starting !== undefined) {
      if (by !== "restart") this.#starting.turn.hurry();
      return this.#starting.done;
    }
    if (this.#opened !== undefined) return;
    const refusal = this.#closed ?? (by === "call" ? this.#refusal() : undefined);
    if (refusal !== undefined) throw refusal;
    clearTimeout(this.#restart);
    const stop = new AbortController();
    const turn = this.#starts.turn(by !== "restart", stop.signal);
    const done = this.#startRun(turn, stop.signal).finally(() => {
      turn.leave();
      this.#starting = undefined;
    });
    this.#starting = { done, stop, turn };
    return done;
  }

  /**
   * Starts it again when its wait is over, and again until it comes up or is dead: its clients had it, and want it back.
   * One that would be idle by then waits for its next call instead.
   */
  #bringBack(): void {
    const now = this.#lifecycle;
    if (!this.#crashed || now.state !== "degraded" || now.retryAt === undefined) return;
    const ttlMs = this.config.idle_ttl_s * 1000;
    this.#restart = setTimeout(() => {
      if (ttlMs > 0 && Date.now() - this.#usedAt >= ttlMs) return;
      this.#restarts++;
      this.start("restart").catch(() => {});
    }, now.retryAt - performance.now()).unref();
  }

  /** Stops it, from whatever it is doing; settles when nothing of it is left. Not a failure. */
  async stop(reason: string): Promise<void> {
    const stopped = new HangarError(
      "provider_stopped",
      `provider ${this.name} was stopped: ${reason}`,
    );
    this.#crashed = false;
    clearTimeout(this.#restart);
    this.#starting?.stop.abort(stopped);
    await this.#starting?.done.catch(() => {});
    const opened = this.#opened;
    this.#apply({ type: "stopped" });
    if (opened !== undefined) {
      this.#opened = undefined;
      this.#tell({ type: "provider_stopped", provider: this.name, reason });
    }
    const over = opened === undefined ? [...this.#retired] : [...this.#retired, opened];
    this.#retired.clear();
    for (const one of over) {
      one.connection.close(stopped);
      this.#end(one);
    }
    await this.#stopping;
  }

  /**
   * Starts another run in the place of one whose session the remote provider forgot, unless that has happened
   * meanwhile. Concurrent callers share it; what is under way in the old run goes on there.
   */
  #renew(): Promise<void> {
    return (this.#renewing ??= this.#replace().finally(() => {
      this.#renewing = undefined;
    }));
  }

  async #replace(): Promise<void> {
    const lost = this.#opened;
    if (lost?.connection.sessionLost === true) {
      this.#opened = undefined;
      this.#apply({ type: "stopped" });
      this.#tell({ type: "provider_stopped", provider: this.name, reason: "session lost" });
      this.#retired.add(lost);
      void lost.connection.drained().then(() => {
        if (this.#retired.delete(lost)) this.#end(lost);
      });
    }
    await this.start("call");
  }

  /** Gives up a start under way, whose calls are not sent yet, and refuses later ones; calls of a running one go on. */
  startNoMore(why: HangarError): void {
    this.#closed ??= why;
    this.#starting?.stop.abort(this.#closed);
  }

  /** Stops it for good. */
  async close(why: HangarError): Promise<void> {
    this.startNoMore(why);
    await this.stop(why.message);
    this.#subscriptions.endAll(why);
  }

  /** The tools as of now: started if need be, read again after the provider said that they changed. */
  async listTools(): Promise<readonly Tool[]> {
    await this.start("call");
    return this.#toolsStale ? this.refreshTools() : this.#tools;
  }

  /** Reads the tools again. Concurrent callers share one reading. */
  async refreshTools(): Promise<readonly Tool[]> {
    return (this.#refreshing ??= this.#readTools().finally(() => {
      this.#refreshing = undefined;
    }));
  }

  async #readTools(): Promise<readonly Tool[]> {
    const { connection } = this.#open();
    this.#toolsStale = false;
    try {
      this.#tools = await connection.listTools(this.config.timeout_s * 1000);
    } catch (error) {
      this.#toolsStale = true;
      throw error;
    }
    return this.#tools;
  }

  /**
   * One health check of a running provider. Anything it said since the last check is proof enough,
   * and a call within its deadline may keep a single-threaded provider from answering.
   */
  async check(): Promise<void> {
    const opened = this.#opened;
    if (opened === undefined || this.#checking) return;
    const { connection } = opened;
    const { run } = this.#lifecycle;
    const heard = connection.heardAt > this.#checkedAt;
    this.#checkedAt = performance.now();
    if (heard) {
      this.#apply({ type: "check_passed", run });
      return;
    }
    this.#checking = true;
    try {
      const patience = this.config.health_check_interval_s * 1000;
      await connection.check(Math.min(MAX_CHECK_MS, Math.max(MIN_CHECK_MS, patience)));
      // This answer must not count again, or every second check would ask nothing.
      this.#checkedAt = performance.now();
      this.#apply({ type: "check_passed", run });
    } catch (error) {
      if (connection.sessionLost) return void this.#renew().catch(() => {});
      if (connection.inFlight > 0) return;
      const reason = `health check failed: ${toHangarError(error).message}`;
      this.#apply({ type: "check_failed", run, reason });
    } finally {
      this.#checking = false;
    }
  }

  async #startRun(turn: Turn, signal: AbortSignal): Promise<void> {
    this.#apply({ type: "start" });
    const { run } = this.#lifecycle;
    let timeout = NEVER;
    try {
      // Never two runs at once; who gives up need not wait for that.
      await Promise.race([this.#stopping, turn.givenUp]);
      await turn.come;
      const began = performance.now();
      timeout = AbortSignal.timeout(handshakeMs(this.config.startup_timeout_s * 1000));
      const opened = await this.#openRun(AbortSignal.any([signal, timeout]));
      if (signal.aborted) {
        await opened.run.stop(FAILED_START_GRACE_MS);
        throw signal.reason;
      }
      const changed = run > 1 && textsOf(this.#tools) !== textsOf(opened.tools);
      this.#opened = opened;
      this.#tools = opened.tools;
      this.#toolsStale = false;
      this.#startedAt = this.#usedAt = Date.now();
      this.#checkedAt = performance.now();
      this.#crashed = false;
      this.#apply({ type: "started", run });
      this.#tell({
        type: "provider_started",
        provider: this.name,
        run,
        what: opened.run.what,
        era: opened.handshake.era,
        version: opened.handshake.version,
        tools: opened.tools.length,
        durationMs: Math.round(performance.now() - began),
      });
      this.#resume(opened.connection, changed);
      void opened.run.exited.then((exit) => this.#exited(opened, run, exit));
    } catch (error) {
      const failure = timeout.aborted && !signal.aborted ? this.#tooSlow() : toHangarError(error);
      if (!signal.aborted) this.#failed(run, failure);
      throw failure;
    }
  }

  /** Starts a run and shakes hands; leaves nothing behind when that fails. */
  async #openRun(signal: AbortSignal): Promise<Opened> {
    const { protocol } = this.config;
    if (protocol !== "auto") return this.#attempt(protocol, signal);
    const remembered = await this.#eras.get(this.#eraKey);
    const opened = await this.#attempt(remembered, signal).catch((error) => {
      const endedItself = toHangarError(error).details["before_answer"] === true;
      // It answers, but not as it did: it may be of the other era by now. And some legacy servers end
      // themselves on any request before `initialize`; they get it first then.
      const mayBeTheEra = remembered === undefined ? endedItself : !endedItself;
      void this.#eras.forget(this.#eraKey);
      if (signal.aborted || !mayBeTheEra) throw error;
      return this.#attempt(remembered === undefined ? "legacy" : undefined, signal);
    });
    void this.#eras.set(this.#eraKey, opened.handshake.era);
    return opened;
  }

  async #attempt(known: Era | undefined, signal: AbortSignal): Promise<Opened> {
    let connection: Connection | undefined;
    const about = { provider: this.name, run: this.#lifecycle.run };
    this.#noiseLines = 0;
    const run = await this.#driver.start(
      {
        line: (text, id) => connection?.receive(text, id) === true,
        printed: (stream, line) => this.#tell({ type: "provider_output", ...about, stream, line }),
        paused: (id) => connection?.paused(id),
        waits: (id) => connection?.waits(id) === true,
        lost: (id, why) => connection?.lost(id, why),
        refused: (reason, head) =>
          connection === undefined
            ? this.#noise(REFUSED[reason], head)
            : connection.unreadable(REFUSED[reason], head),
      },
      signal,
    );
    const { what } = run;
    this.#tell({ type: "run_began", ...about, what });
    void run.exited.then((exit) =>
      this.#tell({ type: "run_ended", ...about, what, how: describeExit(exit) }),
    );
    const abandon = (): void => void run.stop(FAILED_START_GRACE_MS);
    signal.addEventListener("abort", abandon, { once: true });
    try {
      signal.throwIfAborted();
      const events = {
        noise: (why: string, head: string) => this.#noise(why, head),
        toolsChanged: () => {
          this.#toolsStale = true;
        },
        logged: (params: string) =>
          this.#tell({ type: "provider_log", provider: this.name, params: this.#hide(params) }),
        tool: (name: string) => this.#tools.find((tool) => tool.name === name),
        wants: (call: Call, message: Message) => this.#watchers.wants(call, message),
        noted: (message: Message) => this.#watchers.note(message),
        notedTo: (client: string, text: string) => this.#watchers.tell(client, text),
        asked: (question: Question) => (this.#isShared ? undefined : this.#watchers.ask(question)),
      };
      const capabilities = this.#ownCapabilities ?? SHARED_CAPABILITIES;
      connection = new Connection(run, events, capabilities, this.#tell);
      const handshake = await connection.open(known);
      const tools = handshake.hasTools ? await connection.listTools() : [];
      return { run, connection, handshake, tools, readyAt: performance.now() };
    } catch (error) {
      await run.stop(FAILED_START_GRACE_MS);
      this.#lastTail = run.tail();
      throw signal.aborted ? signal.reason : await this.#explain(toHangarError(error), run);
    } finally {
      signal.removeEventListener("abort", abandon);
    }
  }

  /** `error` with what the run left to say: its exit, the end of its stderr, a hint. */
  async #explain(error: HangarError, run: Run): Promise<HangarError> {
    const own = error.code === "provider_exited";
    const exit = await run.exited;
    const stderr = this.#lastTail;
    this.#lastExit = exit;
    const what = own
      ? `provider ${this.name} ended with ${describeExit(exit)} before it had answered the handshake`
      : `provider ${this.name} did not start: ${error.message}`;
    // What trying again does not mend stays what it is.
    const code = error.code === "remote_unauthorized" ? error.code : "start_failed";
    const advice = code === "start_failed" ? "" : `\n${ERRORS[code].fix}`;
    // What a server on the network answered is in `what` already, and hints for programs do not fit it.
    const why =
      this.config.mode === "remote"
        ? what + advice
        : diagnose(what, own ? exit : undefined, stderr);
    return new HangarError(code, why, {
      retryAfterMs: error.retryAfterMs,
      details: {
        stderr,
        ...(own ? { exit_code: exit.code, signal: exit.signal, before_answer: true } : {}),
      },
      cause: error,
    });
  }

  #failed(run: number, failure: HangarError): void {
    if (!ERRORS[failure.code].retryable) {
      this.#apply({ type: "impossible", run, reason: failure.message });
      return;
    }
    const { message: reason, retryAfterMs } = failure;
    const at = performance.now();
    this.#apply({ type: "failed", run, reason, at, random: Math.random(), retryAfterMs });
    this.#bringBack();
  }

  #exited(opened: Opened, run: number, exit: Exit): void {
    if (this.#opened !== opened) return; // it was stopped
    this.#opened = undefined;
    this.#lastExit = exit;
    this.#lastTail = opened.run.tail();
    this.#end(opened);
    const reason = diagnose(`it ended by itself with ${describeExit(exit)}`, exit, this.#lastTail);
    const at = performance.now();
    const upMs = at - opened.readyAt;
    this.#apply({ type: "failed", run, reason, at, upMs, random: Math.random() });
    this.#crashed = true;
    this.#bringBack();
  }

  /** Ends what is left of a run; the next start waits for it. */
  #end({ run }: Opened): void {
    this.#lastTail = run.tail();
    this.#stopping = Promise.all([this.#stopping, run.stop(STOP_GRACE_MS)]).then(() => {});
  }

  /** Why a call may not start it now. */
  #refusal(): HangarError | undefined {
    const now = this.#lifecycle;
    if (this.#closed !== undefined) return this.#closed;
    if (now.state === "dead") {
      const details = { cause: now.cause };
      return new HangarError("provider_dead", `provider ${this.name} is dead: ${now.reason}`, {
        details,
      });
    }
    if (now.state !== "degraded" || now.retryAt === undefined) return undefined;
    const retryAfterMs = now.retryAt - performance.now();
    if (retryAfterMs <= 0) return undefined;
    return new HangarError(
      "provider_degraded",
      `Cannot start provider ${this.name}: backoff not elapsed, retry in ${(retryAfterMs / 1000).toFixed(1)}s; last failure: ${now.reason}`,
      { retryAfterMs, details: { time_until_retry_s: Math.ceil(retryAfterMs) / 1000 } },
    );
  }

  /** The connection of a provider that has just been started. */
  #connection(): Connection {
    return this.#open().connection;
  }

  #open(): Opened {
    if (this.#opened !== undefined) return this.#opened;
    throw new HangarError("provider_stopped", `provider ${this.name} ended right after its start`);
  }

  #tooSlow(): HangarError {
    const seconds = this.config.startup_timeout_s;
    const what = `provider ${this.name} did not answer the handshake within startup_timeout_s (${seconds} s)`;
    return new HangarError("start_timeout", diagnose(what, undefined, this.#lastTail), {
      details: { stderr: this.#lastTail },
    });
  }

  /** Counts how a call ended, and takes it as news about the provider's health where it is some. */
  #watch(handler: CallHandler): CallHandler {
    const since = performance.now();
    return atEnd(handler, (outcome) => {
      this.#count(outcome, performance.now() - since);
      handler.end(outcome);
    });
  }

  #count(outcome: Outcome, tookMs: number): void {
    const now = Date.now();
    const { run, failures } = this.#lifecycle;
    this.#usedAt = now;
    if (outcome.kind === "reply") {
      if (outcome.isError) {
        this.#failedCalls++;
        this.#failedAt = now;
      } else this.#succeededAt = now;
      if (failures > 0) this.#apply({ type: "check_passed", run });
      return;
    }
    this.#failedCalls++;
    this.#failedAt = now;
    if (isOverdue(outcome, tookMs) || UNWELL.has(outcome.code)) {
      this.#apply({ type: "check_failed", run, reason: outcome.message });
    }
  }

  #noise(why: string, head: string): void {
    this.#noiseLines++;
    this.#tell({
      type: "provider_noise",
      provider: this.name,
      why,
      head: this.#hide(head, true),
      count: this.#noiseLines,
    });
  }

  #apply(event: LifecycleEvent): void {
    const from = this.#lifecycle;
    this.#lifecycle = next(from, event, this.config);
    const now = this.#lifecycle;
    if (now === from) return;
    if (now.state === from.state && isRunning(now) === isRunning(from)) return;
    this.#since = Date.now();
    this.#tell({
      type: "provider_state",
      provider: this.name,
      from: from.state,
      state: now.state,
      ...("reason" in now ? { reason: now.reason } : {}),
    });
    if (now.state === "dead") {
      const why = `provider ${this.name} is dead: ${now.reason}`;
      this.#subscriptions.endAll(new HangarError("provider_dead", why));
    }
  }
}

/** The deadline of a start that has not begun. */
const NEVER = new AbortController().signal;

/** The part of a start's time that the handshake may take; the rest is for ending what did not come up. */
function handshakeMs(startupMs: number): number {
  return Math.max(startupMs - FAILED_START_MS, startupMs / 2);
}

const TOOLS_CHANGED = "notifications/tools/list_changed";

/** How a call of a remote provider ends when the provider is not well. */
const UNWELL: ReadonlySet<ErrorCode> = new Set(["remote_unreachable", "remote_failed"]);

function textsOf(tools: readonly Tool[]): string {
  return tools.map(({ text }) => text).join();
}

const REFUSED = {
  too_long: "a line longer than max_message_bytes",
  not_utf8: "a line that is not UTF-8",
} as const;

/** A time of `performance.now()` in milliseconds since 1970. */
function wallClock(at: number): number {
  return Date.now() + at - performance.now();
}
