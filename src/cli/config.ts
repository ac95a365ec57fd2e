import { formatProblem, type Problem } from "../config/load.ts";
import { configJsonSchema } from "../config/schema.ts";
import { HangarError } from "../errors.ts";
import { EXIT } from "./exit-code.ts";
import { type CommonOptions, load } from "./open.ts";

interface CheckOptions extends CommonOptions {
  readonly json?: boolean;
}

/** Says everything that is wrong with the configuration; fails on errors, also those that cost only one provider. */
export async function checkConfig(options: CheckOptions): Promise<number> {
  const { file, providers, problems } = examine(options);
  const errors = problems.filter(({ severity }) => severity === "error").length;
  const valid = errors === 0;
  if (options.json === true) {
    process.stdout.write(`${JSON.stringify({ valid, file: file ?? null, providers, problems })}\n`);
  } else {
    for (const problem of problems) {
      process.stdout.write(`${problem.severity}: ${formatProblem(problem)}\n`);
    }
    const where = file ?? "the built-in example (there is no config.yaml)";
    const verdict = valid ? "can be used" : `has ${errors} ${errors === 1 ? "error" : "errors"}`;
    process.stdout.write(`${where} ${verdict}\n`);
  }
  return valid ? EXIT.ok : EXIT.configInvalid;
}

interface Examined {
  readonly file: string | undefined;
  /** Names, in the order of the file. */
  readonly providers: readonly string[];
  readonly problems: readonly Problem[];
}

function examine(options: CheckOptions): Examined {
  try {
    const { config, file, problems } = load(options);
    return { file, providers: [...config.providers.keys()], problems };
  } catch (error) {
    if (!(error instanceof HangarError) || error.code !== "config_invalid") throw error;
    const { file, problems } = error.details as { file: string; problems: Problem[] };
    return { file, providers: [], problems };
  }
}

/** Prints the JSON Schema of the configuration file; `--json` changes nothing, as it is JSON already. */
export async function printSchema(): Promise<number> {
  process.stdout.write(`${JSON.stringify(configJsonSchema(), undefined, 2)}\n`);
  return EXIT.ok;
}
