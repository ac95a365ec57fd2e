import { constants } from "node:fs";
import { access, stat } from "node:fs/promises";
import { delimiter, isAbsolute, join, resolve } from "node:path";
import { HangarError } from "../errors.ts";
import { redactor } from "../lib/redact.ts";
import { encodingOf, LARGE_CHARS, lengthOf, oneLine, splitLines } from "../wire/lines.ts";
import type { Driver, Run } from "./driver.ts";
import type { Guardian } from "./guardian.ts";
import { createOutputTail } from "./output-tail.ts";
import { type ProcessGroup, spawnGroup } from "./process-group.ts";

/** What a provider's process gets of Hangar's own environment; everything else must be declared. */
const INHERITED = [
  "HOME",
  "LANG",
  "LC_ALL",
  "LC_CTYPE",
  "LOGNAME",
  "PATH",
  "SHELL",
  "TERM",
  "TMPDIR",
  "TZ",
  "USER",
];

/** Bytes written to a provider that it has not read yet; more is refused. */
const MAX_UNREAD_BYTES = 8 * 1024 * 1024;

/** Errors of the system that pass when something else ends. */
const SHORTAGES: ReadonlySet<string | undefined> = new Set([
  "EMFILE",
  "ENFILE",
  "EAGAIN",
  "ENOMEM",
]);
const SHORTAGE_FIX =
  "the machine or a limit of Hangar's process (`ulimit -n`, `ulimit -u`) allows no more";

export interface SubprocessOptions {
  readonly command: readonly string[];
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  /** Names of variables passed on from Hangar's own environment. */
  readonly inherit_env: readonly string[];
  readonly maxLineBytes: number;
  readonly guardian: Guardian;
}

/** Runs a provider as a child process that speaks MCP on stdin and stdout. No shell is involved. */
export function subprocess(options: SubprocessOptions): Driver {
  return {
    async start(events, signal) {
      const env = childEnvironment(options, process.env);
      const [command = "", ...args] = options.command;
      await requireFolder(options.cwd);
      const file = await findCommand(command, options.cwd, env["PATH"] ?? "");
      signal.throwIfAborted();
      const { cwd, guardian } = options;
      const group = await spawnGroup(file, args, { cwd, env, guardian }).catch((error) => {
        const why = `cannot run ${command}: ${(error as Error).message}`;
        throw SHORTAGES.has((error as NodeJS.ErrnoException).code)
          ? new HangarError("start_failed", `${why}; ${SHORTAGE_FIX}`, { cause: error })
          : notStartable(why, error);
      });
      const output = createOutputTail(redactor(env), "stderr", events.printed);
      group.stderr.setEncoding("utf8").on("data", (chunk: string) => output.push(chunk));
      const lines = splitLines(options.maxLineBytes, {
        line: (text) => {
          if (!events.line(text)) output.add("stdout", text);
        },
        refused: (reason, head) => {
          events.refused(reason, head);
          output.add("stdout", head);
        },
      });
      group.stdout.on("data", (chunk: Buffer) => lines.push(chunk));
      group.stdout.on("end", () => lines.end());
      const writer = lineWriter(group);
      return {
        what: `pid ${group.pid}`,
        send: (parts) => writer.send(parts),
        exited: group.exited.then((exit) => {
          output.end();
          return exit;
        }),
        tail: () => output.lines(),
        stop(graceMs) {
          // What was sent just before, that calls are cancelled, say, goes out before stdin ends.
          writer.flush();
          return group.stop(graceMs);
        },
      } satisfies Run;
    },
  };
}

/** One write to the pipe for all messages of one turn of the event loop; large ones go by themselves, in pieces. */
function lineWriter({ stdin }: ProcessGroup): {
  send(parts: readonly string[]): boolean;
  flush(): void;
} {
  let batch = "";
  function flush(): void {
    const text = batch;
    batch = "";
    if (text !== "") stdin.write(text);
  }
  function send(parts: readonly string[]): boolean {
    if (stdin.writableLength + batch.length > MAX_UNREAD_BYTES) return false;
    if (!stdin.writable) return true; // it is going; its exit ends the call
    if (lengthOf(parts) < LARGE_CHARS) {
      if (batch === "") setImmediate(flush);
      batch += `${oneLine(parts.join(""))}\n`;
      return true;
    }
    flush();
    stdin.cork();
    for (const part of parts) stdin.write(oneLine(part), encodingOf(part));
    stdin.write("\n");
    stdin.uncork();
    return true;
  }
  return { send, flush };
}

function childEnvironment(
  { env, inherit_env, guardian }: SubprocessOptions,
  own: NodeJS.ProcessEnv,
): Record<string, string> {
  const child: Record<string, string> = {};
  for (const name of [...INHERITED, ...inherit_env]) {
    const value = own[name];
    if (value !== undefined) child[name] = value;
  }
  // Servers built on some frameworks open a network port when their environment says so.
  return { ...child, MCP_TRANSPORT: "stdio", ...env, HANGAR_INSTANCE: guardian.instance };
}

async function requireFolder(cwd: string): Promise<void> {
  const found = await stat(cwd).catch(() => undefined);
  if (found?.isDirectory()) return;
  throw notStartable(
    `its working folder ${cwd} ${found === undefined ? "does not exist" : "is not a folder"} (key cwd)`,
  );
}

/**
 * The path of `command`, looked up as a shell would: names in PATH, paths against `cwd`.
 * `node` is always found: desktop clients start programs with a poor PATH.
 */
async function findCommand(command: string, cwd: string, path: string): Promise<string> {
  if (command.includes("/") || isAbsolute(command)) {
    const file = resolve(cwd, command);
    const problem = await whyNotExecutable(file);
    if (problem === undefined) return file;
    throw notStartable(`cannot run ${command}: ${file} ${problem}`);
  }
  let forbidden: string | undefined;
  for (const folder of path.split(delimiter)) {
    if (folder === "") continue;
    const file = join(resolve(cwd, folder), command);
    const problem = await whyNotExecutable(file);
    if (problem === undefined) return file;
    if (problem !== MISSING) forbidden ??= `${file} ${problem}`;
  }
  if (command === "node") return process.execPath;
  throw notStartable(
    forbidden === undefined
      ? `command not found: ${command} is in no folder of Hangar's PATH`
      : `cannot run ${command}: ${forbidden}`,
  );
}

const MISSING = "does not exist";

async function whyNotExecutable(file: string): Promise<string | undefined> {
  const found = await stat(file).catch(() => undefined);
  if (found === undefined) return MISSING;
  if (!found.isFile()) return "is not a file";
  return access(file, constants.X_OK).then(
    () => undefined,
    () => "is not executable",
  );
}

function notStartable(message: string, cause?: unknown): HangarError {
  return new HangarError("not_startable", message, { cause });
}
