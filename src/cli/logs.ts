import { join } from "node:path";
import { stateFolder } from "../config/state-dir.ts";
import { logFile } from "../observe/log-file.ts";
import { encodeLine, readableLine } from "../observe/log-line.ts";
import { type LogReading, readLog } from "../observe/log-reader.ts";
import { unknownProvider } from "../providers/registry.ts";
import { EXIT } from "./exit-code.ts";
import { type CommonOptions, load } from "./open.ts";
import { firstSignal } from "./signal.ts";

interface LogsOptions extends CommonOptions {
  readonly follow?: boolean;
  /** How many of the lines there are; the last ones. */
  readonly lines: number;
  readonly json?: boolean;
}

/** Prints the end of a provider's log from its files, whether a Hangar runs or not; with `--follow` also what comes. */
export async function logs(provider: string, options: LogsOptions): Promise<number> {
  const { config } = load(options);
  if (!config.providers.has(provider)) throw unknownProvider(config.providers.keys(), provider);
  const folder = join(stateFolder(options.stateDir, process.env), "logs");
  const kept = config.logging.provider_log_files > 0;
  const follow = options.follow === true && kept;
  const ended = new AbortController();
  let code: number = EXIT.ok;
  void firstSignal(EXIT.interrupted).then(() => {
    code = EXIT.interrupted;
    ended.abort();
  });
  // Who reads it has seen enough, as in `| head -1`.
  process.stdout.once("error", () => ended.abort());
  const reading = { folder, provider, lines: options.lines, follow, signal: ended.signal };
  if (await isEmpty(reading)) {
    const file = logFile(folder, provider);
    const why = kept ? `${file} will have it` : "logging.provider_log_files is 0, so none is kept";
    process.stderr.write(`mcp-hangar: there is no log of provider ${provider} yet; ${why}\n`);
  }
  for await (const line of readLog(reading)) {
    process.stdout.write(options.json === true ? encodeLine(line) : `${readableLine(line)}\n`);
  }
  return code;
}

async function isEmpty(reading: LogReading): Promise<boolean> {
  const first = await readLog({ ...reading, lines: 1, follow: false }).next();
  return first.done === true;
}
