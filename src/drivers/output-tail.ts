const MAX_LINES = 50;
const MAX_LINE_CHARS = 1000;

/** The last lines of a provider's stderr, bounded and with secrets taken out. */
export interface OutputTail {
  push(chunk: string): void;
  /** At most 50 lines of at most 1000 characters, oldest first. */
  lines(): readonly string[];
}

/** `told` receives each complete line as it is kept. */
export function createOutputTail(
  redact: (text: string) => string,
  told: (line: string) => void,
): OutputTail {
  const kept: string[] = [];
  let partial = "";

  function keep(line: string): void {
    const text = redact(line.slice(0, MAX_LINE_CHARS).trimEnd());
    if (text === "") return;
    kept.push(text);
    if (kept.length > MAX_LINES) kept.shift();
    told(text);
  }

  return {
    push(chunk) {
      const lines = chunk.split("\n");
      const last = lines.pop() as string;
      for (const line of lines) {
        keep(partial + line);
        partial = "";
      }
      // The rest of an endless line is of no use; its beginning is enough.
      if (partial.length < MAX_LINE_CHARS) partial += last;
    },
    lines: () => (partial === "" ? [...kept] : [...kept, redact(partial.slice(0, MAX_LINE_CHARS))]),
  };
}
