import type { OutputStream } from "./events.ts";

/** One line of a provider's log. */
export interface LogLine {
  /** ISO 8601, UTC. */
  readonly time: string;
  /** Process id of the Hangar that wrote it: several may write to one file. */
  readonly hangar: number;
  /** Number of the run that it is about; of some of Hangar's own lines there is none. */
  readonly run?: number | undefined;
  /** Where it was printed, or `hangar` for what Hangar itself has to say about the run. */
  readonly stream: OutputStream | "hangar";
  readonly text: string;
}

/** Beyond what JSON escapes: characters that steer a terminal, or turn around the order of the text. */
const HIDDEN = /[\x7f-\x9f\u202a-\u202e\u2066-\u2069]/g;

/** `line` as it stands in the file: JSON, and nothing in it that a terminal would obey. */
export function encodeLine(line: LogLine): string {
  return `${JSON.stringify(line).replaceAll(HIDDEN, escaped)}\n`;
}

/** The line that `text` is; undefined where a full disk left half of one. */
export function decodeLine(text: string): LogLine | undefined {
  let line: Partial<LogLine> | null;
  try {
    line = JSON.parse(text) as Partial<LogLine> | null;
  } catch {
    return undefined;
  }
  const whole = typeof line?.time === "string" && typeof line.text === "string";
  return whole && typeof line?.stream === "string" ? (line as LogLine) : undefined;
}

/** `line` for people. */
export function readableLine({ time, run, stream, text }: LogLine): string {
  const from = stream === "hangar" ? "" : `run ${run} ${stream}: `;
  return harmless(`${time} ${from}${text}`);
}

/** What programs colour their words with (CSI), and set a terminal's title with (OSC). */
// oxlint-disable-next-line no-control-regex -- they are what is looked for
const SEQUENCE = /\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)/g;
// oxlint-disable-next-line no-control-regex -- see above
const CONTROL = /[\0-\x08\n-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/g;

/** `text` for a terminal: colours and titles are left out, all else that it would obey is made visible. */
function harmless(text: string): string {
  return text.replaceAll(SEQUENCE, "").replaceAll(CONTROL, escaped);
}

function escaped(char: string): string {
  return `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`;
}
