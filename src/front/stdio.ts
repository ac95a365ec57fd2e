import type { Readable, Writable } from "node:stream";
import { HangarError } from "../errors.ts";
import type { Target } from "../target.ts";
import { oneLine, splitLines } from "../wire/lines.ts";
import { refusedLine, serveDuplex } from "./duplex.ts";
import type { Front, FrontOptions } from "./front.ts";

/** Serves one client on a pair of streams, one message a line; `closed` when the client closes its side. */
export function serveStdio(
  face: Target,
  { input, output }: { readonly input: Readable; readonly output: Writable },
  { maxMessageBytes }: FrontOptions,
): Front {
  function write(text: string): boolean {
    return output.write(`${oneLine(text)}\n`) || output.writable;
  }

  const client = serveDuplex(face, "local", write);
  const lines = splitLines(maxMessageBytes, {
    line: (text) => client.receive(text),
    refused: (reason) => void write(refusedLine(reason, maxMessageBytes)),
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
