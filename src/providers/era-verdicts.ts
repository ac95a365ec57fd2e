import { readFile, rename, writeFile } from "node:fs/promises";
import type { Era } from "../target.ts";

/** How long a verdict holds. A stale `legacy` one would go unnoticed for ever, so it expires. */
const TTL_MS = 24 * 3600 * 1000;

interface Verdict {
  readonly era: Era;
  /** Milliseconds since 1970. */
  readonly at: number;
}

/**
 * Which era each provider turned out to be of, kept in `file` so that the next start need not ask.
 * Without a file, kept in memory. A file that cannot be read or written is as good as none.
 */
export class EraVerdicts {
  readonly #file: string | undefined;
  #verdicts: Record<string, Verdict> | undefined;
  /** The last attempt to write failed, so the file knows less than this process. */
  #unwritable = false;
  #writing: Promise<void> = Promise.resolve();

  constructor(file: string | undefined) {
    this.#file = file;
  }

  async get(key: string): Promise<Era | undefined> {
    const verdict = (await this.#load())[key];
    return verdict !== undefined && holds(verdict) ? verdict.era : undefined;
  }

  async set(key: string, era: Era): Promise<void> {
    if ((await this.get(key)) === era) return;
    await this.#update((verdicts) => ({ ...verdicts, [key]: { era, at: Date.now() } }));
  }

  async forget(key: string): Promise<void> {
    if ((await this.#load())[key] === undefined) return;
    await this.#update((verdicts) =>
      Object.fromEntries(Object.entries(verdicts).filter(([other]) => other !== key)),
    );
  }

  async #load(): Promise<Record<string, Verdict>> {
    return (this.#verdicts ??= await this.#read());
  }

  async #read(): Promise<Record<string, Verdict>> {
    if (this.#file === undefined) return {};
    try {
      return valid(JSON.parse(await readFile(this.#file, "utf8")));
    } catch {
      return {};
    }
  }

  /** Other instances write the same file, so it is read again; the last writer wins, which costs a probe at worst. */
  #update(change: (verdicts: Record<string, Verdict>) => Record<string, Verdict>): Promise<void> {
    this.#writing = this.#writing.then(async () => {
      const file = this.#file;
      const kept = file === undefined || this.#unwritable ? this.#verdicts : await this.#read();
      this.#verdicts = change(kept ?? {});
      if (file === undefined) return;
      const draft = `${file}.${process.pid}`;
      try {
        await writeFile(draft, JSON.stringify(this.#verdicts), { mode: 0o600 });
        await rename(draft, file);
        this.#unwritable = false;
      } catch {
        this.#unwritable = true;
      }
    });
    return this.#writing;
  }
}

function valid(file: unknown): Record<string, Verdict> {
  const entries = typeof file === "object" && file !== null ? Object.entries(file) : [];
  return Object.fromEntries(
    entries.filter(
      ([, verdict]) =>
        (verdict?.era === "legacy" || verdict?.era === "modern") &&
        typeof verdict.at === "number" &&
        holds(verdict),
    ),
  );
}

/** A clock that was set back must not make a verdict last longer. */
function holds({ at }: Verdict): boolean {
  const age = Date.now() - at;
  return age >= 0 && age <= TTL_MS;
}
