import type { Readable, Writable } from "node:stream";
import { HangarError } from "../errors.ts";
import type { Target } from "../target.ts";
import { oneLine, splitLines } from "../wire/lines.ts";
import { refusedLine, serveDuplex } from "./duplex.ts";
import type { Front, FrontOptions } from "./front.ts";
import { SLOW_BYTES, STUCK_BYTES } from "./streams.ts";

/** Time for the last answers to leave when Hangar ends, in milliseconds. */
const LAST_BYTES_MS = 500;

/** Serves one client on a pair of streams, one message a line; `closed` when the client closes its side. */
export function serveStdio(
  face: Target,
  { input, output }: { readonly input: Readable; readonly output: Writable },
  { maxMessageBytes }: FrontOptions,
): Front {
  let gone: () => void = () => {};
  let stuck = false;
  const reachable = (): boolean => output.writable && !stuck;

  function write(text: string, droppable = false): boolean {
    if (!reachable()) return false;
    if (droppable && output.writableLength > SLOW_BYTES) return true;
    if (output.writableLength > STUCK_BYTES) {
      stuck = true;
      gone();
      return false;
    }
    output.write(`${oneLine(text)}\n`);
    return output.writable;
  }

  const client = serveDuplex(face, "local", write);
  const lines = splitLines(maxMessageBytes, {
    line: (text) => client.receive(text),
    refused: (reason) => void write(refusedLine(reason, maxMessageBytes)),
  });
  const closed = new Promise<void>((resolve) => {
    gone = resolve;
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
      if (reachable()) await client.idle(graceMs, reason);
      client.close(reason);
      await new Promise<void>((resolve) => {
        if (!reachable() || output.writableLength === 0) return resolve();
        // A client that does not read must not keep the providers from being stopped.
        const late = setTimeout(resolve, LAST_BYTES_MS);
        output.write("", () => {
          clearTimeout(late);
          resolve();
        });
      });
    },
  };
}
