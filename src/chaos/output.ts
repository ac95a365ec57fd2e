import type { Writable } from "node:stream";
import { setImmediate as turn, setTimeout as sleep } from "node:timers/promises";
import type { Faults } from "./flags.ts";

/** Writes to one stream, one piece after the other. */
export interface Output {
  write(bytes: Buffer): void;
  /** Writes that many bytes, with no line feed among them. */
  flood(bytes: number): void;
  /** Settles when everything so far is written, or cannot be. */
  flushed(): Promise<void>;
  /** Pieces that are not written yet. */
  readonly waiting: number;
}

const FLOOD_CHUNK = Buffer.alloc(64 * 1024, "x");

/** An output that is as slow, and as torn, as `faults` say. */
export function createOutput(stream: Writable, { split, dripMs }: Faults): Output {
  const byteByByte = split === true || dripMs !== undefined;
  let waiting = 0;
  let last: Promise<void> = Promise.resolve();

  const put = (bytes: Buffer): Promise<void> =>
    new Promise((resolve) => {
      stream.write(bytes, () => resolve());
    });

  async function trickle(bytes: Buffer): Promise<void> {
    for (let at = 0; at < bytes.length && !stream.destroyed; at += 1) {
      await put(bytes.subarray(at, at + 1));
      await (dripMs === undefined ? turn() : sleep(dripMs));
    }
  }

  async function pour(bytes: number): Promise<void> {
    for (let left = bytes; left > 0 && !stream.destroyed; left -= FLOOD_CHUNK.length) {
      await put(FLOOD_CHUNK.subarray(0, left));
    }
  }

  function queue(job: () => Promise<void>): void {
    const idle = waiting === 0;
    waiting += 1;
    // At once when nothing is before it, so that it is out should the process exit next.
    last = (idle ? job() : last.then(job)).then(() => {
      waiting -= 1;
    });
  }

  return {
    write: (bytes) => queue(() => (byteByByte ? trickle(bytes) : put(bytes))),
    flood: (bytes) => queue(() => pour(bytes)),
    flushed: () => last,
    get waiting() {
      return waiting;
    },
  };
}
