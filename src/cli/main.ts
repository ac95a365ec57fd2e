import { Command, CommanderError, InvalidArgumentError, Option } from "commander";
import { FLAG_ROWS, type Flag, GROUPS } from "../chaos/flags.ts";
import { jsonRpcError, toHangarError } from "../errors.ts";
import { suggest } from "../lib/suggestion.ts";
import { VERSION } from "../version.ts";
import { EXIT, exitCodeOf } from "./exit-code.ts";
import { LOG_LEVELS } from "./log-level.ts";
import { parsePort } from "./port.ts";

/** Maps a command line to its command; the answer is the exit code. */
export async function run(argv: readonly string[]): Promise<number> {
  let code: number = EXIT.ok;
  const program = buildProgram((exit) => {
    code = exit;
  });
  try {
    await program.parseAsync([...argv], { from: "user" });
    return code;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
    const failure = toHangarError(error);
    const text = argv.includes("--json")
      ? `{"error":${jsonRpcError(failure)}}`
      : `mcp-hangar: ${failure.message}`;
    (argv.includes("--json") ? process.stdout : process.stderr).write(`${text}\n`);
    return exitCodeOf(failure.code);
  }
}

/** The commands and their options; each hands its exit code to `done`, and is imported when it is the one that runs. */
function buildProgram(done: (exitCode: number) => void): Command {
  const program = withCommonOptions(new Command("mcp-hangar"))
    .description("Runs your MCP servers: registry, gateway and supervisor.")
    .version(VERSION)
    .showHelpAfterError("(mcp-hangar --help shows how it is used)")
    .enablePositionalOptions()
    .exitOverride();

  const json = (): Option => new Option("--json", "print JSON");
  function command(
    parent: Command,
    usage: string,
    description: string,
    options: { readonly isDefault?: boolean } = {},
  ): Command {
    return withCommonOptions(parent.command(usage, options))
      .description(description)
      .exitOverride();
  }
  /** Options before the command are as good as behind it. */
  const all = <T extends object>(options: T): T => ({ ...program.opts(), ...options });

  command(program, "serve", "serve clients (what happens without a command)", { isDefault: true })
    .option("--http", "serve Streamable HTTP instead of stdio (MCP_MODE=http)")
    .option("--host <address>", "address to listen on (MCP_HTTP_HOST; default 0.0.0.0)")
    .option("--provider <name>", "serve this one provider alone on stdio, as if started directly")
    .option("--port <number>", "port to listen on (MCP_HTTP_PORT; default 8000)", portNumber)
    .allowExcessArguments()
    // Else an option of the command that was meant would be blamed, not the misspelt command.
    .allowUnknownOption()
    .action(async (options, served: Command) => {
      const [word] = served.args;
      if (word !== undefined) program.error(unknownWord(program, served, word));
      const { serve } = await import("./serve.ts");
      done(await serve(all(options)));
    });

  command(program, "call <provider> <tool> [arguments]", "call a tool; arguments are a JSON object")
    .addOption(json())
    .option("--timeout <seconds>", "longest wait for the result", positiveNumber)
    .action(async (provider, tool, args, options) => {
      const { call } = await import("./call.ts");
      done(await call(provider, tool, args, all(options)));
    });
  command(program, "tools <provider>", "list a provider's tools")
    .addOption(json())
    .action(async (provider, options) => {
      const { tools } = await import("./tools.ts");
      done(await tools(provider, all(options)));
    });

  command(
    program,
    "logs <provider>",
    "print what a provider printed, and when it started and ended",
  )
    .option("-f, --follow", "wait for more, until interrupted")
    .addOption(
      new Option("-n, --lines <number>", "how many of the lines there are; the last ones")
        .argParser(wholeNumber)
        .default(DEFAULT_LINES),
    )
    .addOption(json())
    .action(async (provider, options) => {
      const { logs } = await import("./logs.ts");
      done(await logs(provider, all(options)));
    });

  const config = program.command("config").description("look at the configuration").exitOverride();
  command(config, "check", "say what is wrong with the configuration file")
    .addOption(json())
    .action(async (options) => {
      const { checkConfig } = await import("./config.ts");
      done(await checkConfig(all(options)));
    });
  command(config, "schema", "print the JSON Schema of the configuration file")
    .addOption(json())
    .action(async () => {
      const { printSchema } = await import("./config.ts");
      done(await printSchema());
    });

  const chaos = program
    .command("chaos-server")
    .description("run an MCP server that misbehaves as it is told, to test what calls it")
    .exitOverride();
  for (const { usage, flag } of FLAG_ROWS) chaos.addOption(chaosOption(usage, flag));
  chaos.action(async (faults) => {
    const { chaosServer } = await import("./chaos-server.ts");
    done(await chaosServer(faults));
  });
  return program;
}

function withCommonOptions(command: Command): Command {
  return command
    .option("--config <file>", "configuration file (MCP_CONFIG; default ./config.yaml)")
    .option("--state-dir <folder>", "where state is kept (MCP_HANGAR_STATE_DIR)")
    .addOption(
      new Option("--log-level <level>", "least important lines to log (MCP_LOG_LEVEL)").choices(
        LOG_LEVELS,
      ),
    );
}

function chaosOption(usage: string, { group, says, value }: Flag): Option {
  const option = new Option(usage, says).helpGroup(`${GROUPS[group]}:`);
  if (value === undefined) return option;
  return option.argParser((text: string, earlier: unknown) => {
    const parsed = value.parse(text, earlier);
    if (parsed === undefined) throw new InvalidArgumentError(`It must be ${value.must}.`);
    return parsed;
  });
}

/** What to say about `word`, which is neither a command nor an option of `served`. */
function unknownWord(program: Command, served: Command, word: string): string {
  const isOption = word.startsWith("-");
  const known = isOption
    ? ["--help", "--version", ...served.options.map(({ long }) => long ?? "")]
    : program.commands.map((command) => command.name());
  const [name = word] = word.split("=", 1);
  const meant = suggest(name, known);
  const advice = meant === undefined ? "" : `; did you mean '${meant}'?`;
  return `error: unknown ${isOption ? "option" : "command"} '${name}'${advice}`;
}

function portNumber(text: string): number {
  const port = parsePort(text);
  if (port !== undefined) return port;
  throw new InvalidArgumentError("It must be a whole number from 0 to 65535.");
}

/** Lines that `logs` prints unless told. */
const DEFAULT_LINES = 100;

function wholeNumber(text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new InvalidArgumentError("It must be a whole number from 0 to 999999999.");
}

/** As for `timeout_s`; what timers cannot hold would end at once. */
const MAX_TIMEOUT_S = 3_600;

function positiveNumber(text: string): number {
  const seconds = Number(text);
  if (seconds > 0 && seconds <= MAX_TIMEOUT_S) return seconds;
  throw new InvalidArgumentError(`It must be a number greater than 0, at most ${MAX_TIMEOUT_S}.`);
}
