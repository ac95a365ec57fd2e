import { Buffer } from "node:buffer";
import type { OutputStream } from "../observe/events.ts";

/** One line of output, in characters; what is longer is cut. */
const MAX_LINE_CHARS = 16 * 1024;
const MAX_LINES = 50;
const MAX_TAIL_LINE_CHARS = 1000;

/** The last lines that a run has printed and that are no messages: bounded, and with secrets taken out. */
export interface OutputTail {
  /** A piece of the stream that is cut into lines here. */
  push(chunk: string): void;
  /** A whole line. */
  add(stream: OutputStream, line: string): void;
  /** Nothing more will be pushed: what is left is a line, too. */
  end(): void;
  /** At most 50 lines of at most 1000 characters, oldest first; those of stdout are marked. */
  lines(): readonly string[];
}

/** For output that is pushed from `pushed`; `told` receives each line as it comes, whatever it came from. */
export function createOutputTail(
  redact: (text: string, cut?: boolean) => string,
  pushed: OutputStream,
  told: (stream: OutputStream, line: string) => void,
): OutputTail {
  const kept: string[] = [];
  let partial = "";

  function add(stream: OutputStream, line: string): void {
    const cut = line.length > MAX_LINE_CHARS;
    const text = redact(line.slice(0, MAX_LINE_CHARS), cut).trimEnd() + (cut ? "…" : "");
    if (text === "") return;
    kept.push(copyOf(`${stream === "stdout" ? "stdout: " : ""}${text}`));
    if (kept.length > MAX_LINES) kept.shift();
    told(stream, text);
  }

  return {
    push(chunk) {
      const lines = chunk.split("\n");
      const last = lines.pop() as string;
      for (const line of lines) {
        add(pushed, partial + line);
        partial = "";
      }
      // The rest of an endless line is of no use; its beginning is enough.
      if (partial.length <= MAX_LINE_CHARS) partial += last;
    },
    add,
    end() {
      add(pushed, partial);
      partial = "";
    },
    lines() {
      const begun = redact(partial.slice(0, MAX_TAIL_LINE_CHARS), true);
      return begun.trim() === "" ? [...kept] : [...kept, begun];
    },
  };
}

/** The beginning of `text`, which does not keep the rest of a larger text in memory. */
function copyOf(text: string): string {
  return Buffer.from(text.slice(0, MAX_TAIL_LINE_CHARS)).toString();
}
