import type { Readable, Writable } from "node:stream";
import { HangarError } from "../errors.ts";
import type { Target } from "../target.ts";
import { oneLine, splitLines } from "../wire/lines.ts";
import { refusedLine, serveDuplex } from "./duplex.ts";
import type { Front, FrontOptions } from "./front.ts";
import { SLOW_BYTES, STUCK_BYTES } from "./streams.ts";

/** Serves one client on a pair of streams, one message a line; `closed` when the client closes its side. */
export function serveStdio(
  face: Target,
  { input, output }: { readonly input: Readable; readonly output: Writable },
  { maxMessageBytes }: FrontOptions,
): Front {
  let giveUp: () => void;

  function write(text: string): boolean {
    if (!output.writable) return false;
    const unread = output.writableLength;
    if (unread > SLOW_BYTES && text.includes('"notifications/progress"')) return true;
    output.write(`${oneLine(text)}\n`);
    if (output.writableLength > STUCK_BYTES) giveUp();
    return output.writable;
  }

  const client = serveDuplex(face, "local", write);
  const lines = splitLines(maxMessageBytes, {
    line: (text) => client.receive(text),
    refused: (reason) => void write(refusedLine(reason, maxMessageBytes)),
  });
  const closed = new Promise<void>((resolve) => {
    giveUp = () => {
      output.destroy();
      resolve();
    };
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
      const reason = new HangarError("shutting_down", "Hangar is shutting down");
      if (output.writable) await client.idle(graceMs, reason);
      client.close(reason);
      await new Promise<void>((resolve) => {
        if (!output.writable || output.writableLength === 0) resolve();
        else output.write("", () => resolve());
      });
    },
  };
}
