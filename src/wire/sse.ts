/** Writes server-sent events (WHATWG HTML, "Server-sent events"). */
import { oneLine } from "./lines.ts";

/**
 * One message as an event. A raw line break, CR included, would end the event's data early; between the tokens of
 * JSON it is only white space. `id` is what a client names when it takes up the stream again.
 */
export function sseEvent(text: string, id?: string): string {
  const head = id === undefined ? "" : `id: ${id}\n`;
  return `${head}event: message\ndata: ${oneLine(text)}\n\n`;
}

/** An event with nothing but an id and how long to wait before a reconnect (MCP 2025-11-25, "Streamable HTTP"). */
export function ssePriming(id: string, retryMs: number): string {
  return `id: ${id}\nretry: ${retryMs}\ndata: \n\n`;
}

/** A line that clients skip. */
export function sseComment(text: string): string {
  return `: ${text}\n\n`;
}

/** What stands before the data in a line: `data: `. */
const FIELD_CHARS = 6;

/** Where a parser's events go. */
export interface SseEvents {
  /** One event; `data` is empty for one that only names an id, `id` is the last one the stream has named. */
  event(data: string, type: string, id: string | undefined): void;
  /** How long to wait before a reconnect, in milliseconds. */
  retry(ms: number): void;
  /** An event that was skipped because it is longer than allowed. */
  tooLong(head: string): void;
}

/**
 * Reads server-sent events from a stream of bytes. Linear time however they arrive; holds at most about `maxChars`
 * characters of one event.
 */
export function parseSse(maxChars: number, events: SseEvents): { push(chunk: Uint8Array): void } {
  const decoder = new TextDecoder();
  let pieces: string[] = [];
  let held = 0;
  /** The line being read is too long to be kept; the event being read is. */
  let overlong = false;
  let skipping = false;
  let afterCr = false;
  let data: string[] = [];
  let dataChars = 0;
  let type = "message";
  let id: string | undefined;
  let named = false;

  function line(text: string): void {
    if (text === "") {
      if (skipping) events.tooLong(data.join("\n").slice(0, 200));
      else if (data.length > 0 || named) events.event(data.join("\n"), type, id);
      data = [];
      named = false;
      dataChars = 0;
      type = "message";
      skipping = false;
      return;
    }
    const colon = text.indexOf(":");
    if (colon === 0) return;
    const field = colon === -1 ? text : text.slice(0, colon);
    const value = colon === -1 ? "" : text.slice(text[colon + 1] === " " ? colon + 2 : colon + 1);
    if (field === "data") {
      dataChars += value.length;
      if (dataChars > maxChars) skipping = true;
      else data.push(value);
    } else if (field === "event") type = value === "" ? "message" : value;
    else if (field === "id" && !value.includes("\0")) {
      id = value;
      named = true;
    } else if (field === "retry" && /^\d+$/.test(value)) events.retry(Number(value));
  }

  function hold(piece: string): void {
    overlong ||= held + piece.length > maxChars + FIELD_CHARS;
    if (overlong) return;
    pieces.push(piece);
    held += piece.length;
  }

  return {
    push(chunk) {
      let text = decoder.decode(chunk, { stream: true });
      if (text === "") return;
      const rest = afterCr && text.startsWith("\n") ? text.slice(1) : text;
      afterCr = text.endsWith("\r");
      text = rest;
      if (text.includes("\r")) text = text.replaceAll(/\r\n?/g, "\n");
      let start = 0;
      for (;;) {
        const end = text.indexOf("\n", start);
        if (end === -1) break;
        hold(text.slice(start, end));
        const whole = pieces.length === 1 ? (pieces[0] as string) : pieces.join("");
        if (overlong) skipping = true;
        else line(whole);
        pieces = [];
        held = 0;
        overlong = false;
        start = end + 1;
      }
      if (start < text.length) hold(text.slice(start));
    },
  };
}
