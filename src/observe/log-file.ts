import { Buffer } from "node:buffer";
import { randomUUID } from "node:crypto";
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Tell } from "./events.ts";
import { encodeLine, type LogLine } from "./log-line.ts";

/** Lines that wait to be written; when there are more, the oldest go. */
const MAX_QUEUED_BYTES = 1024 * 1024;
/** What one write takes, so that a file with room for less is set aside in time. */
const MAX_BATCH_BYTES = 256 * 1024;
/** What is said within this time is written at once. */
const GATHER_MS = 25;
/** Wait before the next attempt when nothing can be written. */
const RETRY_MS = 1_000;
const LINE_FEED = 0x0a;

export interface LogFileOptions {
  readonly folder: string;
  readonly provider: string;
  /** The file is set aside before it gets larger than this. */
  readonly maxBytes: number;
  /** Files kept, the newest included. */
  readonly files: number;
  readonly tell: Tell;
  /** Does work when no other is being done. */
  readonly inTurn: (work: () => Promise<void>) => Promise<void>;
}

/** The file that a provider's log grows in. */
export function logFile(folder: string, provider: string): string {
  return join(folder, `${provider}.log`);
}

/**
 * Those that were set aside, oldest first. Their names are final and never used again, so that several Hangars, and
 * readers, need no lock.
 */
export async function setAside(folder: string, provider: string): Promise<string[]> {
  const names = await readdir(folder);
  return names
    .filter((name) => name.startsWith(`${provider}.`) && ROTATED.test(name))
    .toSorted()
    .map((name) => join(folder, name));
}

const ROTATED = /^[\w-]+\.\d{8}T\d{9}Z-[0-9a-f]{8}\.log$/;

/**
 * Appends lines to one provider's log. Nobody waits for it: lines are queued, and dropped when the disk is too slow,
 * or full; the next line that is written says how many. Other Hangars may write to the same file.
 */
export class LogFile {
  readonly #options: LogFileOptions;
  readonly #file: string;
  #queue: string[] = [];
  #queuedBytes = 0;
  /** Lines that were dropped before the first of the queue. */
  #missing = 0;
  #writing: Promise<void> | undefined;
  #failing = false;
  #setAsideAt = 0;
  readonly #closing = new AbortController();

  constructor(options: LogFileOptions) {
    this.#options = options;
    this.#file = logFile(options.folder, options.provider);
  }

  add(line: Pick<LogLine, "run" | "stream" | "text">): void {
    this.#queue.push(encode(line));
    this.#queuedBytes += Buffer.byteLength(this.#queue.at(-1) as string);
    this.#makeRoom();
    this.#writing ??= this.#writeAll();
  }

  /** Settles when everything is written, or cannot be. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#writing;
  }

  #makeRoom(): void {
    let dropped = 0;
    while (this.#queuedBytes > MAX_QUEUED_BYTES) {
      this.#queuedBytes -= Buffer.byteLength(this.#queue[dropped++] as string);
    }
    this.#queue.splice(0, dropped);
    this.#missing += dropped;
  }

  async #writeAll(): Promise<void> {
    let waitMs = GATHER_MS;
    while (this.#queue.length > 0) {
      const { signal } = this.#closing;
      if (waitMs > 0) await sleep(waitMs, undefined, { signal, ref: false }).catch(() => {});
      await this.#options.inTurn(() => this.#write());
      if (this.#failing && signal.aborted) break;
      waitMs = this.#failing ? RETRY_MS : 0;
    }
    this.#writing = undefined;
  }

  /** Writes what there is room for in the file, or sets it aside. The file is not kept open: it may be gone by the next time. */
  async #write(): Promise<void> {
    let file: FileHandle | undefined;
    try {
      file = await this.#open();
      const { size, ino } = await file.stat({ bigint: true });
      const begun = Number(size);
      if (begun >= this.#options.maxBytes || !(await this.#append(file, begun))) {
        await this.#setAside(ino);
      }
      this.#failing = false;
    } catch (error) {
      if (!this.#failing) {
        const { provider, tell } = this.#options;
        const { message } = error as Error;
        tell({ type: "provider_log_unwritable", provider, file: this.#file, error: message });
      }
      this.#failing = true;
    } finally {
      await file?.close().catch(() => {});
    }
  }

  async #open(): Promise<FileHandle> {
    const { folder } = this.#options;
    const append = (): Promise<FileHandle> => open(this.#file, "a+", 0o600);
    try {
      return await append();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
      for (const missing of [dirname(folder), folder]) {
        await mkdir(missing, { mode: 0o700 }).catch(() => {}); // what went wrong, open says
      }
      return append();
    }
  }

  /** False when not even the first line has room. */
  async #append(file: FileHandle, size: number): Promise<boolean> {
    const missing = this.#missing;
    const text = `-- ${missing} lines are missing here: they came faster than they could be written`;
    const gap = missing === 0 ? [] : [encode({ stream: "hangar", text })];
    // After half a line, which a full disk left, begins another.
    const start = size === 0 || (await byteAt(file, size - 1)) === LINE_FEED ? "" : "\n";
    const lines = [...gap, ...this.#queue];
    const room = Math.min(MAX_BATCH_BYTES, this.#options.maxBytes - size - start.length);
    const batch = lines.slice(0, howMany(lines, room));
    if (batch.length === 0 && size > 0) return false;
    if (batch.length === 0) batch.push(lines[0] as string); // it fits into no file
    this.#missing -= missing;
    const taken = this.#queue.splice(0, batch.length - gap.length);
    this.#queuedBytes -= bytesOf(taken);
    let written = 0;
    try {
      written = (await file.write(start + batch.join(""))).bytesWritten - start.length;
    } finally {
      const whole = howMany(batch, written);
      const left = taken.slice(Math.max(0, whole - gap.length));
      // What was dropped meanwhile came after them; one gap is enough.
      if (this.#missing > 0) this.#missing += left.length;
      else {
        this.#queue.unshift(...left);
        this.#queuedBytes += bytesOf(left);
      }
      if (whole < gap.length) this.#missing += missing;
      this.#makeRoom();
    }
    return true;
  }

  /** Makes room for another file in the place of `ino`, unless another Hangar has done so meanwhile. */
  async #setAside(ino: bigint): Promise<void> {
    if ((await stat(this.#file, { bigint: true })).ino !== ino) return;
    const { folder, provider, files } = this.#options;
    this.#setAsideAt = Math.max(Date.now(), this.#setAsideAt + 1);
    const time = new Date(this.#setAsideAt).toISOString().replaceAll(/[-:.]/g, "");
    await rename(this.#file, join(folder, `${provider}.${time}-${randomUUID().slice(0, 8)}.log`));
    const newest = (await setAside(folder, provider)).toReversed();
    for (const old of newest.slice(files - 1)) await rm(old, { force: true });
  }
}

function encode(line: Pick<LogLine, "run" | "stream" | "text">): string {
  return encodeLine({ time: new Date().toISOString(), hangar: process.pid, ...line });
}

function bytesOf(lines: readonly string[]): number {
  return lines.reduce((bytes, line) => bytes + Buffer.byteLength(line), 0);
}

/** How many of `lines`, from the first, have room in `bytes`. */
function howMany(lines: readonly string[], bytes: number): number {
  let left = bytes;
  const over = lines.findIndex((line) => (left -= Buffer.byteLength(line)) < 0);
  return over === -1 ? lines.length : over;
}

async function byteAt(file: FileHandle, position: number): Promise<number | undefined> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(1), 0, 1, position);
  return bytesRead === 0 ? undefined : buffer[0];
}
