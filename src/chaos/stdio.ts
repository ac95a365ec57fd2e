import { HangarError, jsonRpcError, toHangarError } from "../errors.ts";
import { scanMessage } from "../wire/envelope.ts";
import { splitLines } from "../wire/lines.ts";
import { answerText } from "./answers.ts";
import type { Faults } from "./flags.ts";
import { createOutput } from "./output.ts";
import type { ChaosServer, Exchange } from "./server.ts";

const MAX_LINE_BYTES = 256 * 1024 * 1024;
/** Notifications that belong to no request are left out while so many pieces are unwritten. */
const MAX_WAITING = 1000;
const BYTE_ORDER_MARK = Buffer.from([0xef, 0xbb, 0xbf]);
const KEEP_ALIVE_MS = 60_000;

/** Lines that are no JSON-RPC message, though some of them look like one. */
const NOISE = [
  "> some-server@1.0.0 start",
  "\u001b[32mready\u001b[0m",
  "{not json",
  '{"half":',
  "[]",
  "null",
  "42",
  '{"level":30,"msg":"a log line that is JSON"}',
  '{"jsonrpc":"2.0"}',
];

/** Never settles, and keeps the process alive. */
function forEver(): Promise<never> {
  setInterval(() => undefined, KEEP_ALIVE_MS);
  return new Promise(() => undefined);
}

/** Leaves stdin open, and what comes in it unread. */
function stopReading(): void {
  process.stdin.pause();
  void forEver();
}

/** Serves the one client on stdin and stdout until it goes, or for ever if `--ignore-eof` says so. */
export async function serveStdio(server: ChaosServer, faults: Faults): Promise<void> {
  const output = createOutput(process.stdout, faults);
  const lineEnd = faults.crlf === true ? "\r\n" : "\n";
  const line = (text: string): void => output.write(Buffer.from(`${text}${lineEnd}`));
  const noise = (wanted: boolean | undefined): void => {
    if (wanted === true) NOISE.forEach(line);
  };

  function send(message: Buffer): void {
    if (faults.blankLines === true) ["", "   "].forEach(line);
    output.write(Buffer.concat([message, Buffer.from(lineEnd)]));
    noise(faults.noiseBetween);
  }

  const exchange: Exchange = {
    note: (message) => send(Buffer.from(message)),
    answer({ messages, struck }) {
      if (struck && faults.endlessLine !== undefined) output.flood(faults.endlessLine);
      else messages.forEach(send);
    },
  };
  const conversation = server.open((message) => {
    if (output.waiting < MAX_WAITING) send(Buffer.from(message));
  });

  const underWay = new Set<Promise<void>>();
  let received = 0;
  const stopsReading = (): boolean => received >= (faults.stopReadingAfter ?? Infinity);

  function receive(text: string): void {
    if (stopsReading()) return;
    received += 1;
    if (stopsReading()) stopReading();
    try {
      const done = conversation.receive(scanMessage(text), exchange);
      underWay.add(done);
      void done.finally(() => underWay.delete(done));
    } catch (error) {
      refuse(error);
    }
  }
  function refuse(error: unknown): void {
    send(Buffer.from(answerText("null", `"error":${jsonRpcError(toHangarError(error))}`)));
  }

  if (faults.bom === true) output.write(BYTE_ORDER_MARK);
  noise(faults.noiseBefore);
  const lines = splitLines(MAX_LINE_BYTES, {
    line: receive,
    refused: (reason) => refuse(new HangarError("parse_error", `the line is ${reason}`)),
  });
  process.stdin.on("data", (chunk: Buffer) => lines.push(chunk));
  if (stopsReading()) stopReading();
  await new Promise((resolve) => process.stdin.once("end", resolve));
  lines.end();
  if (faults.ignoreEof === true) await forEver();
  await Promise.all(underWay);
  noise(faults.noiseAfter);
  await output.flushed();
}
