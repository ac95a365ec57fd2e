import type { Readable, Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import type { Target } from "../target.ts";
import { oneLine, splitLines } from "../wire/lines.ts";
import { refusedLine, serveDuplex } from "./duplex.ts";
import { cutOff, type Front, type FrontOptions, LAST_BYTES_MS } from "./front.ts";
import { SLOW_BYTES, STUCK_BYTES } from "./streams.ts";

/** How long a client that has closed its side is taken to wait for answers, in milliseconds: it may as well be gone. */
const LAST_ANSWERS_MS = 5_000;
const LOOK_MS = 10;

/** Serves one client on a pair of streams, one message a line; `closed` when it has closed its side and got its answers. */
export function serveStdio(
  face: Target,
  { input, output }: { readonly input: Readable; readonly output: Writable },
  { maxMessageBytes }: FrontOptions,
): Front {
  const gone = Promise.withResolvers<void>();
  const inputEnded = Promise.withResolvers<void>();
  let stuck = false;
  const reachable = (): boolean => output.writable && !stuck;

  function write(text: string, droppable = false): boolean {
    if (!reachable()) return false;
    if (droppable && output.writableLength > SLOW_BYTES) return true;
    if (output.writableLength > STUCK_BYTES) {
      stuck = true;
      gone.resolve();
      return false;
    }
    output.write(`${oneLine(text)}\n`);
    return output.writable;
  }

  const client = serveDuplex(face, "local", write);
  const lines = splitLines(maxMessageBytes, {
    line: (text) => client.receive(text),
    refused: (reason, head) => void write(refusedLine(reason, head, maxMessageBytes)),
  });
  function endInput(): void {
    client.silence();
    inputEnded.resolve();
  }
  input.on("data", (chunk: Buffer) => lines.push(chunk));
  input.once("end", () => {
    lines.end();
    endInput();
  });
  input.once("error", endInput);
  // A client that no longer reads is gone.
  output.once("error", () => gone.resolve());
  const answered = inputEnded.promise.then(() => client.drain(LAST_ANSWERS_MS, cutOff()));

  return {
    closed: Promise.race([gone.promise, answered]),
    async drain(graceMs) {
      const until = performance.now() + graceMs;
      // A client that has closed its side as well waits for nothing that takes time.
      const over = Promise.race([gone.promise, inputEnded.promise]);
      if (reachable()) await Promise.race([client.drain(graceMs, cutOff()), over]);
      client.close(cutOff());
      input.pause();
      if (reachable()) await flush(output, Math.max(until, performance.now() + LAST_BYTES_MS));
    },
  };
}

/** Lets what was written go out, but waits for no reader that takes nothing, and for none longer than `until`. */
async function flush(output: Writable, until: number): Promise<void> {
  let left = output.writableLength;
  let takenAt = performance.now();
  while (output.writable && left > 0) {
    const now = performance.now();
    if (now >= until || now - takenAt >= LAST_BYTES_MS) return;
    await sleep(LOOK_MS);
    if (output.writableLength < left) takenAt = performance.now();
    left = output.writableLength;
  }
}
