import type { Dispatcher, Pool } from "undici";
import { HangarError } from "../errors.ts";
import { headerSecrets, redactor } from "../lib/redact.ts";
import { scanMessage, textOf } from "../wire/envelope.ts";
import { encodeHeader } from "../wire/headers.ts";
import { MODERN_VERSION } from "../wire/eras.ts";
import { parseSse } from "../wire/sse.ts";
import type { About, Driver, Exit, Run, RunEvents } from "./driver.ts";
import { createOutputTail } from "./output-tail.ts";

/** Connections to one provider at once; what needs one more waits. */
const MAX_CONNECTIONS = 256;
const CONNECT_TIMEOUT_MS = 10_000;
/** Redirects within the provider's own origin that are followed for one request. */
const MAX_REDIRECTS = 3;
/** What is read of an answer that is an error. */
const MAX_ERROR_BYTES = 64 * 1024;
/** Wait before a lost stream is opened again: doubling, and back to the first only after something useful has come. */
const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 30_000;
/** Attempts to take up the stream of one answer. */
const MAX_RESUMES = 5;

export interface RemoteOptions {
  readonly endpoint: string;
  /** Sent with every request. */
  readonly headers: Readonly<Record<string, string>>;
  readonly maxMessageBytes: number;
}

/** Talks to a provider over HTTP: Streamable HTTP of both eras, or the older HTTP+SSE where the server has only that. */
export function remote(options: RemoteOptions): Driver {
  return {
    async start(events, signal) {
      // Loaded with the first remote provider, so that nobody else pays for it.
      const { Pool } = await import("undici");
      signal.throwIfAborted();
      const { origin } = new URL(options.endpoint);
      const pool = new Pool(origin, {
        connections: MAX_CONNECTIONS,
        connectTimeout: CONNECT_TIMEOUT_MS,
        // Calls have deadlines of their own, and streams may be silent for long.
        headersTimeout: 0,
        bodyTimeout: 0,
      });
      return new RemoteRun(options, pool, events);
    },
  };
}

/** A request of ours whose answer is on its way. */
interface Exchange {
  readonly about: About;
  readonly text: string;
  abort: (() => void) | undefined;
  answered: boolean;
  /** Set once the server may have acted on it. */
  sent: boolean;
  /** Nobody waits for it any more. */
  forgotten: boolean;
}

class RemoteRun implements Run {
  readonly what: string;
  readonly exited: Promise<Exit>;
  readonly #options: RemoteOptions;
  readonly #pool: Pool;
  readonly #events: RunEvents;
  readonly #tail;
  /** Servers may say what they were sent; the secrets in it are for nobody else. */
  readonly #hide: (text: string) => string;
  readonly #exchanges = new Map<number, Exchange>();
  readonly #streams = new Set<() => void>();
  readonly #exit: (exit: Exit) => void;
  #url: URL;
  #session: string | undefined;
  #era: "legacy" | "modern" | undefined;
  #version: string | undefined;
  /** HTTP+SSE: answers come on the one stream, not with the requests. */
  #oneStream = false;
  #over = false;
  #stopping: Promise<void> | undefined;

  constructor(options: RemoteOptions, pool: Pool, events: RunEvents) {
    this.#options = options;
    this.#pool = pool;
    this.#events = events;
    this.#url = new URL(options.endpoint);
    this.what = this.#url.origin + this.#url.pathname;
    this.#hide = redactor(headerSecrets(options.headers));
    this.#tail = createOutputTail(this.#hide, "http", events.printed);
    const { promise, resolve } = Promise.withResolvers<Exit>();
    this.exited = promise;
    this.#exit = resolve;
  }

  tail(): readonly string[] {
    return this.#tail.lines();
  }

  send(parts: readonly string[], about: About): boolean {
    if (this.#over) return true; // its exit ends the call
    // Closing the stream is how a modern request is cancelled.
    if (this.#era === "modern" && about.method === "notifications/cancelled") return true;
    const exchange: Exchange = {
      about,
      text: parts.join(""),
      abort: undefined,
      answered: false,
      sent: false,
      forgotten: false,
    };
    if (about.id !== undefined) this.#exchanges.set(about.id, exchange);
    this.#post(exchange, this.#url, 0);
    return true;
  }

  settled(era: "legacy" | "modern", version: string): void {
    this.#era = era;
    this.#version = version;
    if (era === "legacy" && !this.#oneStream) this.#listen(undefined, FIRST_RETRY_MS);
  }

  forget(id: number): void {
    const exchange = this.#exchanges.get(id);
    if (exchange === undefined) return;
    this.#exchanges.delete(id);
    exchange.forgotten = true;
    exchange.abort?.();
  }

  stop(graceMs: number): Promise<void> {
    return (this.#stopping ??= this.#end(graceMs));
  }

  async #end(graceMs: number): Promise<void> {
    this.#over = true;
    for (const exchange of this.#exchanges.values()) exchange.abort?.();
    for (const close of this.#streams) close();
    if (this.#session !== undefined) await this.#deleteSession(graceMs);
    await this.#pool.destroy();
    this.#exit({ code: 0, signal: null });
  }

  /** Ends the session on the other side, as far as that can be done quickly. */
  #deleteSession(graceMs: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const late = setTimeout(resolve, Math.min(graceMs, 1_000));
    const done = (): void => {
      clearTimeout(late);
      resolve();
    };
    this.#dispatch("DELETE", this.#url, this.#headers({}), undefined, {
      // The dispatcher takes no handler without these.
      onRequestStart: () => {},
      onResponseStart: () => {},
      onResponseData: () => {},
      onResponseEnd: done,
      onResponseError: done,
    });
    return promise;
  }

  #headers({ id, method, name, headers }: About): Record<string, string> {
    const all: Record<string, string> = {
      ...this.#options.headers,
      ...headers,
      accept: "application/json, text/event-stream",
      "content-type": "application/json",
    };
    // Before the handshake, only the question whether the provider is modern is asked in the modern way.
    const modern = this.#era === "modern" || (this.#era === undefined && method !== "initialize");
    if (modern && method !== undefined) {
      all["mcp-protocol-version"] = this.#version ?? MODERN_VERSION;
      all["mcp-method"] = method;
      if (name !== undefined) all["mcp-name"] = encodeHeader(name);
      else if (id === undefined) delete all["mcp-name"];
    } else if (this.#version !== undefined) all["mcp-protocol-version"] = this.#version;
    if (this.#session !== undefined) all["mcp-session-id"] = this.#session;
    return all;
  }

  #dispatch(
    method: "POST" | "GET" | "DELETE",
    url: URL,
    headers: Record<string, string>,
    body: string | undefined,
    handler: Dispatcher.DispatchHandler,
  ): void {
    const path = url.pathname + url.search;
    this.#pool.dispatch({ method, path, headers, body: body ?? null }, handler);
  }

  #post(exchange: Exchange, url: URL, redirects: number): void {
    const { about, text } = exchange;
    let answer: Answer | undefined;
    this.#dispatch("POST", url, this.#headers(about), text, {
      onRequestStart: (controller) => {
        exchange.abort = () => controller.abort(new Error("no longer wanted"));
        if (exchange.forgotten || this.#over) exchange.abort();
      },
      onRequestSent: () => {
        exchange.sent = true;
      },
      onResponseStart: (controller, status, headers) => {
        if (status < 200) return;
        const location = redirectOf(status, headers, url);
        if (location !== undefined) {
          exchange.sent = false;
          controller.abort(new Redirect(location));
          return;
        }
        exchange.sent = true;
        const session = headers["mcp-session-id"];
        if (about.method === "initialize" && typeof session === "string") this.#session = session;
        answer = this.#answerOf(exchange, status, headers);
      },
      onResponseData: (_, chunk) => answer?.data(chunk),
      onResponseEnd: () => answer?.end(),
      onResponseError: (_, error) => {
        if (error instanceof Redirect) return this.#redirected(exchange, error, redirects);
        if (answer?.broken() === true) return;
        const failure = this.#networkFailure(error, exchange.sent);
        this.#failed(exchange, failure.with({ unanswered: exchange.sent && answer === undefined }));
      },
    });
  }

  #redirected(exchange: Exchange, { location }: Redirect, redirects: number): void {
    if (location.origin === this.#url.origin && redirects < MAX_REDIRECTS) {
      // What the run sends later goes there at once, and so do its GET and DELETE, which follow no redirect.
      if (this.#era === undefined) this.#url = location;
      return this.#post(exchange, location, redirects + 1);
    }
    const why =
      location.origin === this.#url.origin
        ? `it redirects more than ${MAX_REDIRECTS} times`
        : `it redirects to another origin, ${location.origin}; if that is right, set endpoint to it`;
    this.#failed(exchange, new HangarError("remote_failed", why));
  }

  /** How to read the answer to a request. */
  #answerOf(
    exchange: Exchange,
    status: number,
    headers: Readonly<Record<string, string | string[] | undefined>>,
  ): Answer {
    if (status === 200 && isEventStream(headers["content-type"])) return this.#streamed(exchange);
    const limit = status === 200 ? this.#options.maxMessageBytes : MAX_ERROR_BYTES;
    return collected(
      limit,
      (body) => this.#whole(exchange, status, headers, body),
      () => {
        const why = "its answer is larger than max_message_bytes";
        exchange.abort?.();
        this.#failed(exchange, new HangarError("remote_failed", why).whenSent());
      },
    );
  }

  /** An answer that came in one piece. */
  #whole(
    exchange: Exchange,
    status: number,
    headers: Readonly<Record<string, string | string[] | undefined>>,
    body: string,
  ): void {
    const { id, method } = exchange.about;
    if (this.#oneStream && status >= 200 && status < 300) {
      if (id !== undefined) this.#exchanges.delete(id);
      return; // the answer comes on the stream
    }
    if (status === 202 || status === 204) {
      if (id === undefined) return;
      const why = `it answered a request with HTTP ${status} and nothing more`;
      return this.#failed(exchange, new HangarError("remote_failed", why).whenSent());
    }
    if (status === 200) {
      if (body.trim() !== "") this.#deliver(exchange, body);
      if (id !== undefined && !exchange.answered) {
        const why = `its answer is no MCP message: ${this.#hide(body.slice(0, 100))}`;
        this.#failed(exchange, new HangarError("remote_failed", why).whenSent());
      }
      return;
    }
    this.#tail.push(`HTTP ${status} to ${method ?? "a response"}: ${body.slice(0, 300)}\n`);
    if (id === undefined) return;
    if (status === 401 || status === 403) {
      const challenge = headers["www-authenticate"];
      const why = `it answered HTTP ${status}${challenge === undefined ? "" : ` (${this.#hide(String(challenge))})`}`;
      const details = { status };
      return this.#failed(exchange, new HangarError("remote_unauthorized", why, { details }));
    }
    // It says that it never processed the request, so it can be sent again in a new session.
    if (status === 404 && this.#session !== undefined && method !== "initialize") {
      return this.#failed(exchange, new HangarError("session_lost", "it forgot the session"));
    }
    const error = errorIn(body, id);
    if (error !== undefined) return this.#deliver(exchange, error);
    if (method === "initialize" && [400, 404, 405].includes(status)) {
      return this.#fallBack(exchange);
    }
    const details = { status };
    const retryAfterMs = retryAfter(headers["retry-after"]);
    if (status === 429 || status === 503) {
      const why = `it answered HTTP ${status}`;
      return this.#failed(
        exchange,
        new HangarError("remote_failed", why, { details, retryAfterMs }),
      );
    }
    if (this.#era === undefined && status >= 400 && status < 500) {
      // No word of the modern era, so it is of the other one.
      const message = JSON.stringify(`HTTP ${status}`);
      this.#deliver(
        exchange,
        `{"jsonrpc":"2.0","id":${id},"error":{"code":-32601,"message":${message}}}`,
      );
      return;
    }
    const why = `it answered HTTP ${status}: ${this.#hide(body.slice(0, 200))}`;
    this.#failed(
      exchange,
      new HangarError("remote_failed", why, {
        ...{ details, retryAfterMs, sent: true },
        unanswered: status === 502 || status === 504,
      }),
    );
  }

  /** An answer that comes as events, the response last. */
  #streamed(exchange: Exchange): Answer {
    let last: string | undefined;
    let retryMs = FIRST_RETRY_MS;
    let resumes = 0;
    let tooLong = false;
    const over = (): boolean => {
      const { id } = exchange.about;
      if (exchange.answered || exchange.forgotten || this.#over || id === undefined) return true;
      if (this.#era === "modern" || last === undefined || resumes++ >= MAX_RESUMES) return false;
      const timer = setTimeout(() => {
        this.#streams.delete(cancel);
        this.#resume(exchange, last as string, reader());
      }, retryMs);
      const cancel = (): void => clearTimeout(timer);
      this.#streams.add(cancel);
      return true;
    };
    const ended = (): void => {
      const { id } = exchange.about;
      if (over()) {
        if (id !== undefined && this.#events.waits(id)) this.#events.paused(id);
        return;
      }
      const why = tooLong
        ? "its answer is larger than max_message_bytes"
        : "it ended the stream without an answer";
      this.#failed(exchange, new HangarError("remote_failed", why).whenSent());
    };
    /** One for each stream: what a stream that broke had begun is not the beginning of the next. */
    const reader = (): Answer => {
      const parser = parseSse(this.#options.maxMessageBytes, {
        event: (data, _, id) => {
          last = id === "" ? undefined : id;
          if (data === "") return;
          resumes = 0;
          this.#deliver(exchange, data);
        },
        retry: (ms) => {
          retryMs = Math.min(ms, LONGEST_RETRY_MS);
        },
        tooLong: (head) => {
          tooLong = true;
          this.#tooLong(head);
        },
      });
      return { data: (chunk) => parser.push(chunk), end: ended, broken: over };
    };
    return reader();
  }

  /** Takes up the stream of an answer where it broke off (legacy era). */
  #resume(exchange: Exchange, last: string, reader: Answer): void {
    const headers = { ...this.#headers({}), "last-event-id": last };
    let usable = false;
    this.#dispatch("GET", this.#url, headers, undefined, {
      onRequestStart: (controller) => {
        exchange.abort = () => controller.abort(new Error("no longer wanted"));
        if (exchange.forgotten || this.#over) exchange.abort();
      },
      onResponseStart: (controller, status) => {
        usable = status === 200;
        if (!usable) controller.abort(new Error(`HTTP ${status}`));
      },
      onResponseData: (_, chunk) => reader.data(chunk),
      onResponseEnd: () => reader.end(),
      onResponseError: () => {
        if (usable ? reader.broken() : false) return;
        reader.end();
      },
    });
  }

  /** Keeps a GET open for what belongs to no call (legacy era). A server that has none says 405. */
  #listen(last: string | undefined, waitMs: number): void {
    if (this.#over) return;
    let from = last;
    let wait = waitMs;
    let wanted = true;
    let close = (): void => {};
    const again = (): void => {
      this.#streams.delete(close);
      if (!wanted || this.#over) return;
      const timer = setTimeout(
        () => {
          this.#streams.delete(cancel);
          this.#listen(from, Math.min(wait * 2, LONGEST_RETRY_MS));
        },
        wait * (0.5 + Math.random() / 2),
      );
      const cancel = (): void => clearTimeout(timer);
      this.#streams.add(cancel);
    };
    const parser = parseSse(this.#options.maxMessageBytes, {
      event: (data, _, id) => {
        from = id === "" ? undefined : id;
        if (data === "") return;
        // Only now: a server that takes the stream and drops it at once must not be asked all the time.
        wait = FIRST_RETRY_MS;
        this.#line(data);
      },
      retry: (ms) => {
        wait = Math.max(FIRST_RETRY_MS, Math.min(ms, LONGEST_RETRY_MS));
      },
      tooLong: (head) => this.#tooLong(head),
    });
    const headers = {
      ...this.#headers({}),
      accept: "text/event-stream",
      ...(last === undefined ? {} : { "last-event-id": last }),
    };
    this.#dispatch("GET", this.#url, headers, undefined, {
      onRequestStart: (controller) => {
        close = () => controller.abort(new Error("no longer wanted"));
        this.#streams.add(close);
      },
      onResponseStart: (controller, status, { "content-type": type }) => {
        if (status === 200 && isEventStream(type)) return;
        // What is no stream may be a server, or a proxy before it, that is not well.
        wanted = status === 200 || status === 429 || status >= 500;
        controller.abort(new Error(`HTTP ${status}`));
      },
      onResponseData: (_, chunk) => parser.push(chunk),
      onResponseEnd: again,
      onResponseError: again,
    });
  }

  /** The server knows no Streamable HTTP: a GET opens the one stream, which first names where to post. */
  #fallBack(exchange: Exchange): void {
    let named = false;
    let close = (): void => {};
    const ended = (why: HangarError): void => {
      this.#streams.delete(close);
      if (!named) return this.#failed(exchange, why);
      // With its stream the conversation is over.
      if (!this.#over) void this.stop(0);
    };
    const parser = parseSse(this.#options.maxMessageBytes, {
      event: (data, type) => {
        if (type !== "endpoint") {
          if (data !== "") this.#line(data);
          return;
        }
        if (named) return;
        named = true;
        const url = URL.parse(data, this.#url.href);
        if (url === null || url.origin !== this.#url.origin) {
          const why = `its stream names another origin to post to: ${data.slice(0, 100)}`;
          return this.#failed(exchange, new HangarError("remote_failed", why));
        }
        this.#url = url;
        this.#post(exchange, url, 0);
      },
      retry: () => {},
      tooLong: (head) => this.#tooLong(head),
    });
    this.#oneStream = true;
    const headers = { ...this.#options.headers, accept: "text/event-stream" };
    this.#dispatch("GET", this.#url, headers, undefined, {
      onRequestStart: (controller) => {
        close = () => controller.abort(new Error("no longer wanted"));
        this.#streams.add(close);
      },
      onResponseStart: (controller, status, { "content-type": type }) => {
        if (status === 200 && isEventStream(type)) return;
        controller.abort(new Error(`it speaks neither Streamable HTTP nor HTTP+SSE (${status})`));
      },
      onResponseData: (_, chunk) => parser.push(chunk),
      onResponseEnd: () => ended(new HangarError("remote_failed", "it ended its event stream")),
      onResponseError: (_, error) => ended(new HangarError("remote_failed", error.message)),
    });
  }

  #line(text: string, about?: number): void {
    if (!this.#events.line(text, about)) this.#tail.add("http", text);
  }

  #tooLong(head: string): void {
    this.#events.refused("too_long", head);
    this.#tail.add("http", head);
  }

  #deliver(exchange: Exchange, text: string): void {
    const { id } = exchange.about;
    this.#line(text, id);
    if (id === undefined || this.#events.waits(id)) return;
    exchange.answered = true;
    this.#exchanges.delete(id);
  }

  #failed({ about, forgotten }: Exchange, why: HangarError): void {
    const { id } = about;
    this.#tail.push(`${why.message}\n`);
    if (id === undefined || forgotten) return;
    this.#exchanges.delete(id);
    this.#events.lost(id, why);
  }

  #networkFailure(error: Error, sent: boolean): HangarError {
    const { code } = error as NodeJS.ErrnoException;
    const what = `${this.what}: ${code === undefined ? error.message : `${code} ${error.message}`}`;
    return sent
      ? new HangarError("remote_failed", `the connection broke: ${what}`, { sent, cause: error })
      : new HangarError("remote_unreachable", `cannot reach ${what}`, { cause: error });
  }
}

/** Takes the body of an answer. */
interface Answer {
  data(chunk: Buffer): void;
  end(): void;
  /** The connection broke; true when that is no failure. */
  broken(): boolean;
}

/** A body that is read to its end, up to `maxBytes`. */
function collected(maxBytes: number, done: (body: string) => void, tooLarge: () => void): Answer {
  const chunks: Buffer[] = [];
  let length = 0;
  return {
    data(chunk) {
      if (length > maxBytes) return;
      length += chunk.length;
      chunks.push(chunk);
      if (length > maxBytes) tooLarge();
    },
    end() {
      if (length <= maxBytes) done(Buffer.concat(chunks).toString("utf8"));
    },
    broken: () => length > maxBytes,
  };
}

function isEventStream(type: string | string[] | undefined): boolean {
  return String(type).toLowerCase().startsWith("text/event-stream");
}

class Redirect extends Error {
  readonly location: URL;

  constructor(location: URL) {
    super(`redirected to ${location.href}`);
    this.location = location;
  }
}

function redirectOf(
  status: number,
  { location }: Readonly<Record<string, string | string[] | undefined>>,
  from: URL,
): URL | undefined {
  if (status < 300 || status >= 400 || typeof location !== "string") return undefined;
  return URL.parse(location, from.href) ?? undefined;
}

/** The JSON-RPC error in `body`, as the answer to request `id`: servers that refuse early often do not know the id. */
function errorIn(body: string, id: number): string | undefined {
  try {
    const { text, error } = scanMessage(body);
    if (error === undefined) return undefined;
    return `{"jsonrpc":"2.0","id":${id},"error":${textOf(text, error)}}`;
  } catch {
    return undefined;
  }
}

/** `Retry-After` in milliseconds: seconds, or a date (RFC 9110, 10.2.3). */
function retryAfter(value: string | string[] | undefined): number | undefined {
  if (typeof value !== "string") return undefined;
  const ms = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Number.isNaN(ms) || ms < 0 ? undefined : ms;
}
