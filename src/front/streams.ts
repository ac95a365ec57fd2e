import type { ServerResponse } from "node:http";
import { sseComment, sseEvent, ssePriming } from "../wire/sse.ts";

/** What is kept of a session's events, so that a client that lost a stream can take it up again. */
const MAX_KEPT_EVENTS = 256;
const MAX_KEPT_CHARS = 1024 * 1024;
/** What all sessions together keep of replies that are longer than that. */
const MAX_LONG_CHARS = 64 * 1024 * 1024;
/** Bytes that a client has not read yet: from the first on it gets no more progress, from the second on nothing, and its
 * stream is cut. One message may be longer than that. */
export const SLOW_BYTES = 1024 * 1024;
export const STUCK_BYTES = 16 * 1024 * 1024;
/** How long a client should wait before it takes up a lost stream, in milliseconds. */
const RETRY_MS = 1_000;

const HEAD = {
  "Content-Type": "text/event-stream",
  "Cache-Control": "no-cache, no-transform",
  "X-Accel-Buffering": "no",
};

interface Kept {
  readonly stream: EventStream;
  readonly seq: number;
  readonly text: string;
}

let longChars = 0;

/** The event streams of one session, and the memory they share. */
export class EventStreams {
  readonly #kept: Kept[] = [];
  readonly #streams = new Map<number, EventStream>();
  #keptChars = 0;
  #nextNo = 0;

  open(): EventStream {
    const stream = new EventStream(this.#nextNo++, {
      keep: (seq, text) => this.#keep(stream, seq, text),
      after: (seq) => this.#kept.filter((one) => one.stream === stream && one.seq > seq),
    });
    this.#streams.set(stream.no, stream);
    return stream;
  }

  /** The stream that the event `id` was of, and where in it; undefined when it is not remembered. */
  find(id: string): { readonly stream: EventStream; readonly seq: number } | undefined {
    const [, no, seq] = /^(\d+)-(\d+)$/.exec(id) ?? [];
    const stream = this.#streams.get(Number(no));
    return stream === undefined ? undefined : { stream, seq: Number(seq) };
  }

  /** Ends all connections; the last messages may still be on their way out. */
  close(): void {
    for (const stream of this.#streams.values()) if (!stream.finished) stream.pause();
    this.#streams.clear();
    for (const { text } of this.#kept.splice(0)) this.#count(text.length, -1);
  }

  #keep(stream: EventStream, seq: number, text: string): void {
    const isLong = text.length > MAX_KEPT_CHARS;
    // Without its reply a client would wait for ever; a long notification is not worth what it would push out.
    if (isLong && (!stream.finished || longChars + text.length > MAX_LONG_CHARS)) {
      this.#forget(stream);
      return;
    }
    this.#kept.push({ stream, seq, text });
    this.#count(text.length, 1);
    while (this.#kept.length > MAX_KEPT_EVENTS || this.#keptChars > MAX_KEPT_CHARS) {
      const oldest = this.#kept.shift();
      if (oldest === undefined) return;
      this.#count(oldest.text.length, -1);
      this.#forget(oldest.stream);
    }
  }

  /** A finished stream of which nothing is left cannot be taken up any more. */
  #forget(stream: EventStream): void {
    if (stream.finished && this.#kept.every((one) => one.stream !== stream)) {
      this.#streams.delete(stream.no);
    }
  }

  #count(chars: number, sign: 1 | -1): void {
    if (chars > MAX_KEPT_CHARS) longChars += sign * chars;
    else this.#keptChars += sign * chars;
  }
}

interface Memory {
  keep(seq: number, text: string): void;
  after(seq: number): readonly Kept[];
}

/** One event stream to a client: over one HTTP response after the other, if the client takes it up again. */
export class EventStream {
  readonly no: number;
  readonly #memory: Memory | undefined;
  #seq = 0;
  /** The last event that was written to a response. */
  #written = 0;
  #response: ServerResponse | undefined;
  #finished = false;

  /** Without a memory, events have no ids: the modern era takes up nothing. */
  constructor(no: number, memory?: Memory) {
    this.no = no;
    this.#memory = memory;
  }

  get finished(): boolean {
    return this.#finished;
  }

  /** Whether somebody listens. */
  get attached(): boolean {
    return this.#response !== undefined;
  }

  /**
   * Goes on over `response`, with what came after event `seq`, or after what was written last. A response that was
   * attached before is ended. `primed` begins with an event that has nothing but an id, so that the client can
   * take up the stream before anything has happened.
   */
  attach(response: ServerResponse, options: { readonly seq?: number; readonly primed?: boolean }) {
    this.#response?.end();
    this.#response = response;
    response.once("close", () => {
      if (this.#response === response) this.#response = undefined;
    });
    if (!response.headersSent) response.writeHead(200, HEAD);
    response.flushHeaders();
    if (options.primed === true) response.write(ssePriming(this.#id(this.#seq), RETRY_MS));
    for (const { seq, text } of this.#memory?.after(options.seq ?? this.#written) ?? []) {
      response.write(sseEvent(text, this.#id(seq)));
      this.#written = seq;
    }
    if (this.#finished) response.end();
  }

  /** One message. `droppable` ones are left out while the client is slow, and whatever comes after the end. */
  send(text: string, droppable = false): void {
    if (!this.#finished) this.#put(text, droppable);
  }

  #put(text: string, droppable = false): void {
    const response = this.#response;
    if (droppable && response !== undefined && response.writableLength > SLOW_BYTES) return;
    const seq = ++this.#seq;
    this.#memory?.keep(seq, text);
    if (response === undefined) return;
    if (response.writableLength > STUCK_BYTES) return this.cut();
    response.write(sseEvent(text, this.#memory === undefined ? undefined : this.#id(seq)));
    this.#written = seq;
  }

  /** The last message, if there is one. */
  end(text?: string): void {
    if (this.#finished) return;
    this.#finished = true;
    if (text !== undefined) this.#put(text);
    this.#response?.end();
    // What is on its way shall arrive, even if the session is closed next.
    this.#response = undefined;
  }

  /** Ends the connection, not the stream: the client comes back for the rest. */
  pause(): void {
    this.#response?.end();
    this.#response = undefined;
  }

  keepAlive(): void {
    if (this.#finished) return;
    if (this.#response?.writableLength === 0) this.#response.write(sseComment("keep-alive"));
  }

  /** Breaks the connection, not the stream. */
  cut(): void {
    this.#response?.destroy();
    this.#response = undefined;
  }

  #id(seq: number): string {
    return `${this.no}-${seq}`;
  }
}
