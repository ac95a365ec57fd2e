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
  /** Pieces of several writes; nothing may come between those. */
  let slow = 0;
  let last: Promise<unknown> = Promise.resolve();

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

  /** Begins at once when it can, so that what was written is out should the process exit next. */
  function queue(job: () => Promise<void>, isSlow: boolean): void {
    const running = slow === 0 ? job() : last.then(job);
    waiting += 1;
    if (isSlow) slow += 1;
    last = Promise.all([last, running]).then(() => {
      waiting -= 1;
      if (isSlow) slow -= 1;
    });
  }

  return {
    write: (bytes) => queue(() => (byteByByte ? trickle(bytes) : put(bytes)), byteByByte),
    flood: (bytes) => queue(() => pour(bytes), true),
    async flushed() {
      await last;
    },
    get waiting() {
      return waiting;
    },
  };
}
