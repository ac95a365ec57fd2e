/** The load generator: calls that are encoded beforehand, one under way per lane, and every answer looked at. */
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import type { Child } from "./children.ts";

/** Every id has as many digits as this one, so that it can be put into bytes that stay as they are. */
const PLACEHOLDER = 100_000_000;
/** How long after its time an answer may come before the measurement is given up, in milliseconds. */
const STALL_MS = 15_000;
/** The characters of a line in which its id must stand. */
const ID_WITHIN = 64;
const NEWLINE = 0x0a;
const END_OF_HEAD = "\r\n\r\n";

let lastId = PLACEHOLDER;

/** Bytes with holes for the id of a call. */
export class Frame {
  readonly bytes: Buffer;
  readonly #holes: readonly number[];

  /** Every occurrence of `id` in `body` is a hole. */
  constructor(head: string, body: Buffer, id: number = PLACEHOLDER) {
    this.bytes = Buffer.concat([Buffer.from(head, "latin1"), body]);
    const holes: number[] = [];
    let at = this.bytes.indexOf(String(id), head.length);
    while (at >= 0) {
      holes.push(at);
      at = this.bytes.indexOf(String(id), at + 1);
    }
    this.#holes = holes;
  }

  fill(id: number): Buffer {
    const digits = String(id);
    for (const hole of this.#holes) this.bytes.write(digits, hole, "latin1");
    return this.bytes;
  }
}

/** A text of `bytes` ASCII characters that begins with the id of its call, so that answers to each other's calls are told apart. */
export function textOf(bytes: number, id: number = PLACEHOLDER): string {
  return String(id).padEnd(bytes, "abcdefghijklmnopqrstuvwxyz ");
}

/** The pre-encoded body of a `tools/call`. */
export function callBody(params: object): Buffer {
  return Buffer.from(
    JSON.stringify({ jsonrpc: "2.0", id: PLACEHOLDER, method: "tools/call", params }),
  );
}

/** A POST of `body` on a connection that stays open. */
export function postFrame(port: number, path: string, session: string | undefined, body: Buffer) {
  const lines = [
    `POST ${path} HTTP/1.1`,
    `Host: 127.0.0.1:${port}`,
    "Content-Type: application/json",
    "Accept: application/json, text/event-stream",
    ...(session === undefined
      ? []
      : [`Mcp-Session-Id: ${session}`, "MCP-Protocol-Version: 2025-11-25"]),
    `Content-Length: ${body.length}`,
  ];
  return () => new Frame(`${lines.join("\r\n")}${END_OF_HEAD}`, body);
}

/** Looks at every byte of every answer. The first is read as JSON; from then on it is the pattern of the others. */
export class Checker {
  readonly #textBytes: number;
  #pattern: Frame | undefined;

  constructor(textBytes: number) {
    this.#textBytes = textBytes;
  }

  /** Throws with what is wrong. */
  check(body: Buffer, id: number): void {
    if (this.#pattern?.fill(id).equals(body)) return;
    const answer = JSON.parse(body.toString("utf8")) as {
      id?: unknown;
      error?: unknown;
      result?: { isError?: boolean; content?: { type?: string; text?: string }[] };
    };
    const [content] = answer.result?.content ?? [];
    const wrong =
      answer.id === id
        ? answer.error !== undefined || answer.result?.isError
          ? "an error"
          : content?.text === textOf(this.#textBytes, id)
            ? undefined
            : "not the text that was sent"
        : "not the id that was sent";
    if (wrong !== undefined) {
      throw new Error(`${wrong}: ${body.toString("utf8", 0, 200)}`);
    }
    this.#pattern = new Frame("", body, id);
  }
}

/** Where one call at a time can be under way. */
export interface Lane {
  send(frame: Buffer, id: number): void;
  /** Set by who sends: gets each answer, and the time at which the last byte of it was there. */
  onReply: (body: Buffer, at: number) => void;
}

export interface Link {
  readonly lanes: readonly Lane[];
  /** Rejects when no more answers can come. */
  readonly lost: Promise<never>;
  close(): void;
}

const nobody = (): void => undefined;

/** `count` connections to an HTTP server on this machine. */
export async function openHttp(port: number, count: number): Promise<Link> {
  const sockets = Array.from({ length: count }, () =>
    connect({ host: "127.0.0.1", port, noDelay: true }),
  );
  const { promise: lost, reject } = Promise.withResolvers<never>();
  lost.catch(nobody);
  await Promise.all(sockets.map((socket) => once(socket, "connect")));
  return {
    lanes: sockets.map((socket) => httpLane(socket, reject)),
    lost,
    close: () => sockets.forEach((socket) => socket.destroy()),
  };
}

function httpLane(socket: Socket, lose: (error: Error) => void): Lane {
  const lane: Lane = { send: (frame) => void socket.write(frame), onReply: nobody };
  let chunks: Buffer[] = [];
  let received = 0;
  let bodyAt = 0;
  let expected = Infinity;
  socket.on("error", lose);
  socket.on("close", () => lose(new Error("the connection was closed")));
  socket.on("data", (chunk: Buffer) => {
    try {
      chunks.push(chunk);
      received += chunk.length;
      if (expected === Infinity) {
        const start = chunks.length === 1 ? chunk : Buffer.concat(chunks);
        const end = start.indexOf(END_OF_HEAD);
        if (end < 0) return;
        bodyAt = end + END_OF_HEAD.length;
        expected = bodyAt + bodyLength(start.toString("latin1", 0, end + 2));
      }
      if (received < expected) return;
      const at = performance.now();
      if (received > expected) throw new Error("more bytes than Content-Length says");
      const whole = chunks.length === 1 ? chunk : Buffer.concat(chunks);
      chunks = [];
      received = 0;
      expected = Infinity;
      lane.onReply(whole.subarray(bodyAt), at);
    } catch (error) {
      lose(error as Error);
    }
  });
  return lane;
}

/** Throws when it is not a plain 200 whose length is known. */
function bodyLength(head: string): number {
  const length = /\r\ncontent-length: *(\d+)\r\n/i.exec(head)?.[1];
  if (head.startsWith("HTTP/1.1 200 ") && length !== undefined) return Number(length);
  throw new Error(`not a 200 with Content-Length: ${head.replaceAll("\r\n", " | ")}`);
}

/** `count` lanes on the one pipe of a provider; they tell their answers apart by id. */
export function openPipe({ stdin, stdout, lost: ended }: Child, count: number): Link {
  const { promise: lost, reject } = Promise.withResolvers<never>();
  ended.catch(reject);
  lost.catch(nobody);
  const waiting = new Map<number, Lane>();
  let chunks: Buffer[] = [];

  function reply(line: Buffer, at: number): void {
    const id = Number(/"id":(\d+)/.exec(line.toString("latin1", 0, ID_WITHIN))?.[1]);
    const lane = waiting.get(id);
    if (lane === undefined)
      throw new Error(`an answer to no call: ${line.toString("latin1", 0, 200)}`);
    waiting.delete(id);
    lane.onReply(line, at);
  }
  function take(chunk: Buffer): void {
    // One write for all calls that this chunk sets free.
    stdin.cork();
    try {
      let start = 0;
      let newline = chunk.indexOf(NEWLINE);
      while (newline >= 0) {
        const at = performance.now();
        const end = chunk.subarray(start, newline);
        reply(chunks.length === 0 ? end : Buffer.concat([...chunks, end]), at);
        chunks = [];
        start = newline + 1;
        newline = chunk.indexOf(NEWLINE, start);
      }
      if (start < chunk.length) chunks.push(chunk.subarray(start));
    } catch (error) {
      reject(error);
    }
    stdin.uncork();
  }
  stdout.on("data", take);

  const lanes = Array.from({ length: count }, () => {
    const lane: Lane = {
      onReply: nobody,
      send(frame, id) {
        waiting.set(id, lane);
        stdin.write(frame);
      },
    };
    return lane;
  });
  return { lanes, lost, close: () => void stdout.off("data", take) };
}

/** Ends with whatever of the two comes first. */
export interface Bounds {
  readonly calls: number;
  readonly timeMs: number;
}

export interface Latencies {
  /** In microseconds, sorted. */
  readonly us: Float64Array;
  readonly elapsedMs: number;
}

/** Keeps every lane of `link` busy until a bound is reached. Rejects with the first thing that is wrong with an answer. */
export async function drive(
  link: Link,
  newFrame: () => Frame,
  checker: Checker,
  { calls, timeMs }: Bounds,
): Promise<Latencies> {
  const latencies = new Float64Array(calls);
  const { promise, resolve, reject } = Promise.withResolvers<Latencies>();
  const start = performance.now();
  let started = 0;
  let ended = 0;
  for (const lane of link.lanes) {
    const frame = newFrame();
    let id = 0;
    let sentAt = 0;
    function next(): void {
      if (started === calls || performance.now() - start > timeMs) {
        if (ended < started) return;
        const us = latencies.slice(0, ended).toSorted();
        return resolve({ us, elapsedMs: performance.now() - start });
      }
      started++;
      id = ++lastId;
      const bytes = frame.fill(id);
      sentAt = performance.now();
      lane.send(bytes, id);
    }
    lane.onReply = (body, at) => {
      latencies[ended++] = (at - sentAt) * 1_000;
      try {
        checker.check(body, id);
        next();
      } catch (error) {
        reject(error);
      }
    };
    next();
  }
  const stalled = setTimeout(
    () => reject(new Error(`${started - ended} of ${started} calls were not answered`)),
    timeMs + STALL_MS,
  );
  try {
    return await Promise.race([promise, link.lost]);
  } finally {
    clearTimeout(stalled);
    for (const lane of link.lanes) lane.onReply = nobody;
  }
}
