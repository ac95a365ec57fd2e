/** Frames a byte stream into lines of text, as MCP's stdio transport writes messages. */
import { Buffer, isAscii, isUtf8 } from "node:buffer";

/** Where a splitter's lines go. What a handler throws comes out of `push` or `end`, after the other lines were delivered. */
export interface LineEvents {
  /** One line, without its LF or CRLF; never empty or blank. */
  line(text: string): void;
  /** A line that was skipped; `head` is at most 200 characters of its beginning. */
  refused(reason: "too_long" | "not_utf8", head: string): void;
}

const LINE_FEED = 0x0a;
const CARRIAGE_RETURN = 0x0d;
const BYTE_ORDER_MARK = Buffer.from([0xef, 0xbb, 0xbf]);
const MAX_HEAD_CHARACTERS = 200;
/** Enough for the head in any UTF-8 text, with a byte order mark before it. */
const HEAD_BYTES = 4 * MAX_HEAD_CHARACTERS;
const MIN_BLOCK_BYTES = 1024;

/**
 * Splits a byte stream into lines of UTF-8 text. Linear time however the bytes arrive; holds at most `maxBytes`.
 * `maxBytes` counts a line's bytes before its LF. The last line needs no LF, and a byte order mark at the very beginning is dropped.
 */
export function splitLines(
  maxBytes: number,
  events: LineEvents,
): { push(chunk: Uint8Array): void; end(): void } {
  // The begun line: copied into blocks that double in size, so that single bytes cost no more than their room.
  let blocks: Buffer[] = [];
  let usedOfLast = 0;
  let held = 0;
  let skipping = false;
  let atStart = true;

  function hold(bytes: Buffer): void {
    const last = blocks.at(-1);
    const copied = last === undefined ? 0 : bytes.copy(last, usedOfLast);
    usedOfLast += copied;
    held += copied;
    const rest = bytes.length - copied;
    if (rest === 0) return;
    const size = Math.min(Math.max(rest, held, MIN_BLOCK_BYTES), maxBytes - held);
    const block = Buffer.allocUnsafeSlow(size);
    usedOfLast = bytes.copy(block, 0, copied);
    held += usedOfLast;
    blocks.push(block);
  }

  /** The first `most` bytes of the held ones and `tail` as one buffer; nothing is held afterwards. */
  function take(tail: Buffer, most: number): Buffer {
    const last = blocks.pop();
    if (last === undefined) return tail.subarray(0, most);
    const parts = [...blocks, last.subarray(0, usedOfLast), tail];
    const taken = Buffer.concat(parts, Math.min(held + tail.length, most));
    blocks = [];
    held = 0;
    return taken;
  }

  function withoutMark(bytes: Buffer): Buffer {
    if (!atStart) return bytes;
    atStart = false;
    const marked = bytes.subarray(0, BYTE_ORDER_MARK.length).equals(BYTE_ORDER_MARK);
    return marked ? bytes.subarray(BYTE_ORDER_MARK.length) : bytes;
  }

  /** Takes the next bytes of a line; all state is settled before a handler is called. */
  function add(bytes: Buffer, ended: boolean): void {
    if (skipping) {
      skipping = !ended;
    } else if (held + bytes.length > maxBytes) {
      skipping = !ended;
      events.refused("too_long", headOf(withoutMark(take(bytes, HEAD_BYTES))));
    } else if (ended) {
      deliver(withoutMark(take(bytes, maxBytes)), events);
    } else {
      hold(bytes);
    }
  }

  return {
    push(chunk) {
      const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
      const thrown: unknown[] = [];
      let start = 0;
      while (start < bytes.length) {
        const lineFeed = bytes.indexOf(LINE_FEED, start);
        const ended = lineFeed !== -1;
        const end = ended ? lineFeed : bytes.length;
        const part = bytes.subarray(start, end);
        start = end + 1;
        try {
          add(part, ended);
        } catch (error) {
          thrown.push(error);
        }
      }
      if (thrown.length > 0) throw thrown[0];
    },
    end() {
      add(Buffer.alloc(0), true);
    },
  };
}

function deliver(bytes: Buffer, events: LineEvents): void {
  const line = bytes.at(-1) === CARRIAGE_RETURN ? bytes.subarray(0, -1) : bytes;
  const text = decodeText(line);
  if (text === undefined) events.refused("not_utf8", headOf(line));
  else if (!/^\s*$/.test(text)) events.line(text);
}

/** UTF-8 bytes as text; undefined when they are none. ASCII, which most messages are, takes an eighth of the time. */
export function decodeText(bytes: Buffer): string | undefined {
  if (isAscii(bytes)) return bytes.toString("latin1");
  return isUtf8(bytes) ? bytes.toString() : undefined;
}

/** From this length on, text is written piece by piece: putting pieces together copies them once more. */
export const LARGE_CHARS = 16 * 1024;

/** The cheapest encoding that writes `text` as UTF-8. */
export function encodingOf(text: string): "latin1" | "utf8" {
  return text.length >= LARGE_CHARS && Buffer.byteLength(text) === text.length ? "latin1" : "utf8";
}

/** How many UTF-16 units `parts` have together. */
export function lengthOf(parts: readonly string[]): number {
  let length = 0;
  for (const part of parts) length += part.length;
  return length;
}

function headOf(bytes: Buffer): string {
  return bytes.toString("utf8", 0, HEAD_BYTES).slice(0, MAX_HEAD_CHARACTERS);
}

/** A message as a single line: raw line breaks stand only between the tokens of JSON, where they are white space. */
export function oneLine(text: string): string {
  return text.includes("\n") || text.includes("\r") ? text.replaceAll(/[\r\n]/g, " ") : text;
}
