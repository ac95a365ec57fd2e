import type { Readable, Writable } from "node:stream";
import { HangarError, toHangarError } from "../errors.ts";
import type { Era, Outcome, Target } from "../target.ts";
import { type Message, scanMessage } from "../wire/envelope.ts";
import { oneLine, splitLines } from "../wire/lines.ts";
import { CallsUnderWay, endpoint, eraOf, requireEnvelope } from "./endpoint.ts";
import { errorText, responseText } from "./response.ts";
import type { Front, FrontOptions } from "./front.ts";

/** Serves one client on a pair of streams, one message a line; `closed` when the client closes its side. */
export function serveStdio(
  target: Target,
  { input, output }: { readonly input: Readable; readonly output: Writable },
  { maxMessageBytes, tell }: FrontOptions,
): Front {
  const face = endpoint(target, tell);
  const calls = new CallsUnderWay();
  let idle: (() => void) | undefined;

  function write(text: string): void {
    output.write(`${oneLine(text)}\n`);
  }

  function finish(id: string, outcome: Outcome): void {
    // A client that cancelled a request no longer waits for its response.
    const unwanted = outcome.kind === "failure" && outcome.code === "cancelled";
    if (!unwanted) write(responseText(id, outcome));
    if (calls.size === 0) idle?.();
  }

  function request(message: Message): void {
    const id = message.id as string;
    const era: Era = eraOf(message);
    try {
      if (era === "modern") requireEnvelope(message);
      calls.dispatch(
        face,
        { message, caller: { principal: "local", era } },
        { note: write, end: (outcome) => finish(id, outcome) },
      );
    } catch (error) {
      write(responseText(id, toHangarError(error)));
    }
  }

  function receive(text: string): void {
    let message: Message;
    try {
      message = scanMessage(text);
    } catch (error) {
      write(errorText(toHangarError(error)));
      return;
    }
    if (message.kind === "request") request(message);
    else if (message.method === "notifications/cancelled") calls.cancel(message);
  }

  const lines = splitLines(maxMessageBytes, {
    line: receive,
    refused: (reason) =>
      write(
        errorText(
          reason === "too_long"
            ? new HangarError(
                "message_too_large",
                `The message is larger than ${maxMessageBytes} bytes`,
              )
            : new HangarError("parse_error", "The message is not valid UTF-8"),
        ),
      ),
  });
  const closed = new Promise<void>((resolve) => {
    input.on("data", (chunk: Buffer) => lines.push(chunk));
    input.once("end", () => {
      lines.end();
      resolve();
    });
    input.once("error", () => resolve());
    // A client that no longer reads is gone.
    output.once("error", () => resolve());
  });

  return {
    closed,
    async drain(graceMs) {
      input.pause();
      if (calls.size > 0 && output.writable) {
        const { promise, resolve } = Promise.withResolvers<void>();
        idle = resolve;
        const late = setTimeout(resolve, graceMs);
        await promise;
        clearTimeout(late);
      }
      calls.cancelAll(new HangarError("shutting_down", "Hangar is shutting down"));
      await new Promise<void>((resolve) => {
        if (!output.writable || output.writableLength === 0) resolve();
        else output.write("", () => resolve());
      });
    },
  };
}
