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
