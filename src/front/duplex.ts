import { randomUUID } from "node:crypto";
import { HangarError, toHangarError } from "../errors.ts";
import type { CallHandler, Outcome, Target } from "../target.ts";
import { idIn, isProgress, type Message, scanMessage } from "../wire/envelope.ts";
import { Client } from "./client.ts";
import { eraOf, requireEnvelope } from "./endpoint.ts";
import { takesNoMore } from "./front.ts";
import { responseText } from "./response.ts";

/** One client at the other end of a channel that carries everything both ways: a pair of pipes, or an SSE stream and its POSTs. */
export interface Duplex {
  /** Takes one message of the client. */
  receive(text: string): void;
  /** Takes no new call, and settles when none is under way any more, at the latest after `graceMs`; ends what has no end of its own with `reason`. */
  drain(graceMs: number, reason: HangarError): Promise<void>;
  /** The client answers nothing any more, but may still read. */
  silence(): void;
  /** The client has gone. */
  close(reason: HangarError): void;
}

/** `write` takes whole messages, of which it may leave out `droppable` ones; false when the client can no longer be reached. */
export function serveDuplex(
  face: Target,
  principal: string,
  write: (text: string, droppable?: boolean) => boolean,
): Duplex {
  const base = { principal, client: randomUUID() };
  const client = new Client(face, { ...base, era: "legacy", capabilities: "{}" });
  const modern = { ...base, era: "modern", capabilities: "{}" } as const;
  let draining = false;
  const waiting = new Set<() => void>();

  function finish(id: string, outcome: Outcome): void {
    // A client that cancelled a request no longer waits for its response.
    const unwanted = outcome.kind === "failure" && outcome.code === "cancelled";
    if (!unwanted) write(responseText(id, outcome));
    if (client.size === 0) for (const rest of waiting) rest();
  }

  function request(message: Message): void {
    const id = message.id as string;
    const era = eraOf(message);
    const handler: CallHandler = {
      note: (text) => void write(text, isProgress(text)),
      ask: (question) => client.ask(question, (text) => write(text)),
      pause: () => {}, // this channel stays open
      end: (outcome) => finish(id, outcome),
    };
    try {
      if (draining) throw takesNoMore();
      if (era === "modern") requireEnvelope(message);
      const caller = era === "modern" ? modern : client.caller;
      client.dispatch({ message, caller }, handler, (text) => write(text));
    } catch (error) {
      write(responseText(id, toHangarError(error)));
    }
  }

  return {
    receive(text) {
      let message: Message;
      try {
        message = scanMessage(text);
      } catch (error) {
        write(responseText(idIn(text), toHangarError(error)));
        return;
      }
      if (message.kind === "request") request(message);
      else if (message.kind === "response") client.answered(message);
      else client.noted(message);
    },
    async drain(graceMs, reason) {
      draining = true;
      client.cancelEndless(reason);
      if (client.size === 0) return;
      const { promise, resolve } = Promise.withResolvers<void>();
      waiting.add(resolve);
      const late = setTimeout(resolve, graceMs);
      await promise;
      clearTimeout(late);
      waiting.delete(resolve);
    },
    silence: () => client.silence(),
    close: (reason) => client.close(reason),
  };
}

/** What a client is told of a line that is no message and begins with `head`. */
export function refusedLine(
  reason: "too_long" | "not_utf8",
  head: string,
  maxBytes: number,
): string {
  return responseText(
    idIn(head),
    reason === "too_long"
      ? new HangarError("message_too_large", `The message is larger than ${maxBytes} bytes`)
      : new HangarError("parse_error", "The message is not valid UTF-8"),
  );
}
