import { oneLine } from "./lines.ts";

/**
 * One message as a server-sent event. A raw line break would end the event's data early; between
 * the tokens of JSON it is only white space.
 */
export function sseEvent(text: string): string {
  return `event: message\ndata: ${oneLine(text)}\n\n`;
}
