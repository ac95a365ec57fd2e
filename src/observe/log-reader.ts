import { Buffer } from "node:buffer";
import { type FileHandle, open, stat } from "node:fs/promises";
import { StringDecoder } from "node:string_decoder";
import { setTimeout as sleep } from "node:timers/promises";
import { logFile, setAside } from "./log-file.ts";
import { decodeLine, type LogLine } from "./log-line.ts";

/** How often a log that is followed is looked at. */
const LOOK_MS = 200;
const CHUNK_BYTES = 64 * 1024;
/** Longest line of a file that is read; Hangar itself writes none that comes near it. */
const MAX_STORED_CHARS = 256 * 1024;
const LINE_FEED = 0x0a;

/** Which log, and how much of it. */
export interface LogReading {
  readonly folder: string;
  readonly provider: string;
  /** How many of the lines there are already; the last ones. */
  readonly lines: number;
  /** Wait for more, also when the file is set aside, until `signal` aborts. */
  readonly follow: boolean;
  readonly signal: AbortSignal;
}

/** One file of a log, open, and how far it was read. */
interface Place {
  readonly file: FileHandle;
  readonly ino: bigint;
  /** What was set aside under a later name comes after it. */
  readonly after: string;
  /** It was the one that grows when it was opened. */
  readonly grew: boolean;
  readonly decoder: StringDecoder;
  offset: number;
  partial: string;
}

/** The lines of a provider's log, oldest first; ends without any when there is none. */
export async function* readLog(reading: LogReading): AsyncGenerator<LogLine> {
  const { follow, signal } = reading;
  const look = (): Promise<void> => sleep(LOOK_MS, undefined, { signal }).catch(() => {});
  let at = await lastLines(reading);
  try {
    for (;;) {
      if (at !== undefined) yield* linesAt(at);
      if (signal.aborted) return;
      if (at === undefined || !(await grows(at, reading))) {
        if (at?.grew === true && follow) {
          await look();
          yield* linesAt(at); // what another Hangar wrote while it was being set aside
        }
        const next = await following(at, reading);
        if (next !== undefined) {
          await at?.file.close();
          at = next;
          continue;
        }
      }
      if (!follow) return;
      await look();
    }
  } finally {
    await at?.file.close();
  }
}

/** Where the last `lines` lines begin. */
async function lastLines(reading: LogReading): Promise<Place | undefined> {
  const places = await openFiles(reading, "");
  let chosen = places.at(-1);
  if (reading.lines === 0 && chosen !== undefined) {
    chosen.offset = (await chosen.file.stat()).size;
    return only(chosen, places);
  }
  let left = reading.lines;
  for (const place of places.toReversed()) {
    chosen = place;
    left -= await goBack(place, left);
    if (left === 0) break;
  }
  return only(chosen, places);
}

/** The file that comes after `at`, from its beginning. */
async function following(at: Place | undefined, reading: LogReading): Promise<Place | undefined> {
  const places = await openFiles(reading, at?.after ?? "");
  const own = places.findIndex(({ ino }) => ino === at?.ino);
  return only(places[own + 1], places);
}

async function only(chosen: Place | undefined, places: readonly Place[]): Promise<typeof chosen> {
  for (const place of places) if (place !== chosen) await place.file.close();
  return chosen;
}

/** All files of a log but those that were set aside up to `after`, oldest first. */
async function openFiles({ folder, provider }: LogReading, after: string): Promise<Place[]> {
  // The one that grows is opened first: it may be set aside meanwhile, and is then found once more, which shows.
  const growing = await openAt(logFile(folder, provider), { after, grew: true });
  const places: Place[] = [];
  const names = (await setAside(folder, provider).catch(nothing)) ?? [];
  for (const name of names.filter((one) => one > after)) {
    const place = await openAt(name, { after: name, grew: false });
    if (place !== undefined) places.push(place);
  }
  if (growing === undefined) return places;
  if (places.some(({ ino }) => ino === growing.ino)) await growing.file.close();
  else places.push({ ...growing, after: names.at(-1) ?? after });
  return places;
}

async function openAt(
  path: string,
  facts: Pick<Place, "after" | "grew">,
): Promise<Place | undefined> {
  const file = await open(path).catch(nothing);
  if (file === undefined) return undefined;
  const { ino } = await file.stat({ bigint: true });
  return { file, ino, ...facts, decoder: new StringDecoder("utf8"), offset: 0, partial: "" };
}

/** What is not there, or not there any more, is no mistake. */
function nothing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== "ENOENT") throw error;
}

async function grows({ ino }: Place, { folder, provider }: LogReading): Promise<boolean> {
  const there = await stat(logFile(folder, provider), { bigint: true }).catch(nothing);
  return there?.ino === ino;
}

/** Goes to where the last `lines` lines begin, or to the beginning; returns how many lines are from there on. */
async function goBack(place: Place, lines: number): Promise<number> {
  const chunk = Buffer.alloc(CHUNK_BYTES);
  const { size } = await place.file.stat();
  let found = 0;
  for (let end = size; end > 0; end -= CHUNK_BYTES) {
    const start = Math.max(0, end - CHUNK_BYTES);
    const { bytesRead } = await place.file.read(chunk, 0, end - start, start);
    for (let at = bytesRead - 1; at >= 0; at--) {
      if (chunk[at] !== LINE_FEED || start + at === size - 1 || ++found < lines) continue;
      place.offset = start + at + 1;
      return found;
    }
  }
  return size === 0 ? 0 : found + 1;
}

async function* linesAt(place: Place): AsyncGenerator<LogLine> {
  const chunk = Buffer.alloc(CHUNK_BYTES);
  if ((await place.file.stat()).size < place.offset) place.offset = 0; // somebody has emptied it
  for (;;) {
    const { bytesRead } = await place.file.read(chunk, 0, CHUNK_BYTES, place.offset);
    if (bytesRead === 0) return;
    place.offset += bytesRead;
    const text = place.partial + place.decoder.write(chunk.subarray(0, bytesRead));
    const lines = text.split("\n");
    place.partial = (lines.pop() as string).slice(0, MAX_STORED_CHARS);
    for (const one of lines) {
      const line = decodeLine(one);
      if (line !== undefined) yield line;
    }
  }
}
