import { closeSync, openSync, readSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, resolve } from "node:path";
import type * as z from "zod";
import { HangarError } from "../errors.ts";
import { suggest } from "../lib/suggestion.ts";
import { readDocument, shorten } from "./document.ts";
import type { Path } from "./document.ts";
import { expand } from "./expand.ts";
import { complaintsOf, isSecretPlace, pathName, unknownKeyMessage } from "./issue.ts";
import {
  clientServerSchema,
  isReservedName,
  modeSchema,
  NO_RESTART_LIMIT,
  PROVIDER_ID,
  providerSchema,
  remoteSchema,
  settingsSchema,
  UNBUILT_MODES,
  unbuiltProviderSchema,
} from "./schema.ts";
import type { Config, ProviderConfig, ProviderEntry } from "./schema.ts";

/** Something wrong in a configuration file; `line` and `column` count from 1. */
export interface Problem {
  readonly file: string;
  readonly line: number;
  readonly column: number;
  readonly message: string;
  readonly severity: "error" | "warning";
}

/** A configuration that can be served. */
export interface LoadedConfig {
  readonly config: Config;
  /** Absolute path; undefined for the built-in example. */
  readonly file: string | undefined;
  /** Warnings, and errors that make a provider unusable without refusing the file; in order of place. */
  readonly problems: readonly Problem[];
}

export interface LoadOptions {
  /** The value of `--config`. */
  readonly path: string | undefined;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  /** The provider `math` that is served when there is no file at all. */
  readonly builtin: ProviderEntry;
}

const MAX_FILE_BYTES = 1_048_576;
const MAX_PROBLEMS_IN_MESSAGE = 50;
const MAX_ID_LENGTH = 64;
const STDIO_TYPES: ReadonlySet<string> = new Set(["stdio", "local"]);

/**
 * Reads the file named by `--config`, else by MCP_CONFIG, else ./config.yaml, else the built-in example.
 * Throws `config_not_found` for a named file that is missing, and `config_invalid` with every problem of the file
 * in `details.problems`, and its absolute path in `details.file`.
 */
export function loadConfig({ path, env, cwd, builtin }: LoadOptions): LoadedConfig {
  const home = env.HOME || homedir();
  const named = path ?? (env.MCP_CONFIG === "" ? undefined : env.MCP_CONFIG);
  const shown = named ?? "config.yaml";
  const file = resolvePath(cwd, shown, home);
  const text = readText(file, shown);
  if (text !== undefined) return readConfig(text, { file, shown, env, home });
  if (named !== undefined) {
    const by = path === undefined ? "MCP_CONFIG" : "--config";
    throw new HangarError("config_not_found", `There is no file ${shown}, which ${by} names.`);
  }
  const math = { ...providerDefaults(), ...providerSchema.parse(builtin) };
  return {
    config: {
      providers: new Map([["math", { ...math, cwd: resolvePath(cwd, math.cwd, home) }]]),
      ...withRateLimit(settingsSchema.parse({}), env),
    },
    file: undefined,
    problems: [],
  };
}

/** `problem` on one line, as compilers write it. */
export function formatProblem({ file, line, column, message }: Problem): string {
  return `${file}:${line}:${column}: ${message}`;
}

interface Source {
  readonly file: string;
  /** The path as the person wrote it. */
  readonly shown: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly home: string;
}

type Fields = Readonly<Record<string, unknown>>;

/** A reference that could not be replaced, and where. */
interface Unreplaced {
  readonly path: Path;
  readonly message: string;
}

interface Expanded {
  readonly value: unknown;
  readonly unset: readonly Unreplaced[];
  readonly malformed: readonly Unreplaced[];
}

const RATE_LIMIT_VARIABLES = ["MCP_RATE_LIMIT_RPS", "MCP_RATE_LIMIT_BURST"] as const;

function readConfig(text: string, { file, shown, env, home }: Source): LoadedConfig {
  const document = readDocument(text);
  const refusals: Problem[] = document.problems.map((problem) => ({
    file: shown,
    ...problem,
    severity: "error",
  }));
  const others: Problem[] = [];
  const folder = dirname(file);

  function problemAt(
    path: Path,
    part: "key" | "value",
    message: string,
    severity: Problem["severity"] = "error",
  ): Problem {
    return { file: shown, ...document.position(path, part), message, severity };
  }

  /** `value` as `schema` makes it, or undefined with the complaints noted. */
  function check<S extends z.ZodType>(
    schema: S,
    path: Path,
    given: unknown,
    { value, unset }: Expanded,
  ): z.output<S> | undefined {
    const result = schema.safeParse(value);
    if (result.success) return result.data;
    // What an unset variable would have said is not known, so its raw text is no mistake.
    const unknown = new Set(unset.map((one) => pathName(one.path)));
    const doubtful = new Set<PropertyKey | undefined>();
    let certain = 0;
    for (const issue of result.error.issues) {
      const at = pathName([...path, ...(issue.path as Path)]);
      if (issue.code !== "invalid_type" && unknown.has(at)) {
        doubtful.add(issue.path[0]);
        continue;
      }
      certain++;
      for (const complaint of complaintsOf(issue, schema, path, given)) {
        refusals.push(problemAt(complaint.path, complaint.part, complaint.message));
      }
    }
    if (certain > 0 || !isMap(value)) return undefined;
    const sound = Object.entries(value).filter(([key]) => !doubtful.has(key));
    return schema.safeParse(Object.fromEntries(sound)).data;
  }

  /** `value` without the keys that `schema` does not know; each gets a warning. */
  function dropForeignKeys(value: Fields, path: Path, known: readonly string[]): Fields {
    return Object.fromEntries(
      Object.entries(value).filter(([key]) => {
        if (known.includes(key)) return true;
        const close = suggest(key, known);
        const advice = close === undefined ? "" : `; did you mean \`${close}\`?`;
        const name = pathName([...path, shorten(key)]);
        const message = `\`${name}\` is not a key of Hangar and is ignored${advice}`;
        others.push(problemAt([...path, key], "key", message, "warning"));
        return false;
      }),
    );
  }

  function refuse({ path, message }: Unreplaced): void {
    refusals.push(problemAt(path, "value", `\`${pathName(path)}\`: ${message}`));
  }

  /** Notes why a provider cannot be run, and returns the reasons as one text. */
  function reasons(causes: readonly Unreplaced[]): { unusable?: string } {
    const texts = causes.map(({ path, message }) => {
      const problem = problemAt(path, "value", `\`${pathName(path)}\`: ${message}`);
      others.push(problem);
      return `${message} (${pathName(path)}, ${shown}:${problem.line}:${problem.column})`;
    });
    return texts.length === 0 ? {} : { unusable: texts.join("; ") };
  }

  function readProvider(path: Path, given: unknown): ProviderConfig | undefined {
    const fields = isMap(given) ? given : {};
    const modePath = [...path, "mode"];
    const expandedMode = expandTree(fields.mode, modePath, env);
    const mode = check(modeSchema, modePath, fields.mode, expandedMode);
    const unbuilt = UNBUILT_MODES.find((one) => one === mode);
    if (unbuilt !== undefined) {
      const expanded = expandTree({ ...fields, mode }, path, env);
      const entry = check(unbuiltProviderSchema, path, given, expanded);
      if (entry === undefined) return undefined;
      const { enabled, description } = entry;
      const causes = enabled
        ? [{ path: modePath, message: `mode \`${unbuilt}\` is not built yet` }]
        : [];
      return {
        ...providerDefaults(),
        mode: unbuilt,
        enabled,
        cwd: folder,
        ...(description === undefined ? {} : { description }),
        ...reasons(causes),
      };
    }
    const expanded = expandTree(given, path, env);
    // The mode is checked already, against all there will be.
    const value = isMap(given)
      ? { ...(expanded.value as Fields), mode: mode ?? "subprocess" }
      : given;
    const schema = mode === "remote" ? remoteSchema : providerSchema;
    const before = refusals.length;
    const entry = check(schema, path, given, { ...expanded, value });
    for (const one of expanded.malformed) refuse(one);
    if (entry === undefined) {
      // Nothing is wrong with it but a variable without which it cannot even be read.
      const dead = refusals.length === before && mode !== undefined;
      return dead
        ? { ...providerDefaults(), mode, cwd: folder, ...reasons(expanded.unset) }
        : undefined;
    }
    const all = {
      ...providerDefaults(),
      ...(mode === "remote" ? { restart: NO_RESTART_LIMIT } : {}),
      ...entry,
    };
    return {
      ...all,
      cwd: resolvePath(folder, all.cwd, home),
      ...reasons(entry.enabled ? expanded.unset : []),
    };
  }

  function readClientServer(path: Path, given: unknown): ProviderConfig | undefined {
    const known = isMap(given)
      ? dropForeignKeys(given, path, Object.keys(clientServerSchema.shape))
      : given;
    const expanded = expandTree(known, path, env);
    const entry = check(clientServerSchema, path, given, expanded);
    if (entry === undefined) return undefined;
    const { command, args, url, type } = entry;
    const causes = [...expanded.unset, ...expanded.malformed];
    if (url !== undefined && command !== undefined) {
      causes.push({ path, message: "there is both `command` and `url`; keep one" });
    } else if (url === undefined && command === undefined) {
      causes.push({ path, message: "there is neither `command` nor `url`" });
    } else if (url === undefined && type !== undefined && !STDIO_TYPES.has(type)) {
      causes.push({
        path: [...path, "type"],
        message: "an entry with `command` is of type `stdio`",
      });
    }
    if (type !== undefined && STDIO_TYPES.has(type) && url !== undefined) {
      causes.push({
        path: [...path, "type"],
        message: "an entry with `url` is not of type `stdio`",
      });
    }
    const enabled = entry.enabled && !entry.disabled;
    return {
      ...providerDefaults(),
      mode: url === undefined ? "subprocess" : "remote",
      command: command === undefined ? [] : [command, ...args],
      ...(url === undefined ? {} : { endpoint: url, restart: NO_RESTART_LIMIT }),
      headers: entry.headers,
      env: entry.env,
      cwd: resolvePath(folder, entry.cwd, home),
      enabled,
      ...reasons(enabled ? causes : []),
    };
  }

  function readProviders(top: Fields): Map<string, ProviderConfig> {
    const providers = new Map<string, ProviderConfig>();
    const own = blockOf(top, "providers");
    for (const [id, given] of Object.entries(own)) {
      const path = ["providers", id];
      if (isReservedName(id)) {
        refusals.push(problemAt(path, "key", `\`${id}\` cannot be used as a name`));
      } else if (!PROVIDER_ID.test(id)) {
        const message = `\`${shorten(id)}\` cannot name a provider: a letter first, then letters, digits, \`_\` and \`-\`, at most ${MAX_ID_LENGTH} in all`;
        refusals.push(problemAt(path, "key", message));
      }
      const provider = readProvider(path, given);
      if (provider !== undefined) providers.set(id, provider);
    }
    const foreign = blockOf(top, "mcpServers");
    const taken = new Set([
      ...Object.keys(own),
      ...Object.keys(foreign).filter((id) => PROVIDER_ID.test(id)),
    ]);
    for (const [name, given] of Object.entries(foreign)) {
      const path = ["mcpServers", name];
      if (isReservedName(name)) {
        refusals.push(problemAt(path, "key", `\`${name}\` cannot be used as a name`));
      } else if (Object.hasOwn(own, name)) {
        refusals.push(
          problemAt(path, "key", `\`${name}\` is also in \`providers\`; rename one of them`),
        );
      }
      let id = name;
      if (!PROVIDER_ID.test(name)) {
        id = mappedId(name, taken);
        taken.add(id);
        const message = `${JSON.stringify(shorten(name))} cannot name a provider; it is called \`${id}\` here`;
        others.push(problemAt(path, "key", message, "warning"));
      }
      const provider = readClientServer(path, given);
      if (provider !== undefined) providers.set(id, provider);
    }
    return providers;
  }

  function blockOf(top: Fields, key: "providers" | "mcpServers"): Fields {
    const block = top[key] ?? {};
    if (isMap(block) && top[key] !== null) return block;
    const message =
      top[key] === null
        ? `\`${key}\` is empty; write \`${key}: {}\` if that is meant`
        : `\`${key}\` must be a map of name to entry`;
    refusals.push(problemAt([key], "value", message));
    return {};
  }

  function readSettings(top: Fields): z.output<typeof settingsSchema> | undefined {
    const { providers, mcpServers, ...given } = top;
    const known = Object.keys(settingsSchema.shape);
    // A file with `mcpServers` alone is a client's own settings file.
    const foreignAllowed = providers === undefined && mcpServers !== undefined;
    const value = foreignAllowed ? dropForeignKeys(given, [], known) : given;
    if (!foreignAllowed) {
      for (const key of Object.keys(given).filter((one) => !known.includes(one))) {
        const message = unknownKeyMessage(key, "", ["providers", "mcpServers", ...known]);
        refusals.push(problemAt([key], "key", message));
      }
    }
    const expanded = expandTree(pick(value, known), [], env);
    for (const one of [...expanded.unset, ...expanded.malformed]) refuse(one);
    const settings = check(settingsSchema, [], given, expanded);
    if (settings === undefined) return undefined;
    const limited = withRateLimit(settings, env);
    if (settings.logging.file === undefined) return limited;
    const logFile = resolvePath(folder, settings.logging.file, home);
    return { ...limited, logging: { ...settings.logging, file: logFile } };
  }

  const top = document.value;
  if (top === undefined) throw invalid({ file, shown }, refusals);
  if (!isMap(top) || (top.providers === undefined && top.mcpServers === undefined)) {
    const message = `${shown} has neither \`providers\` nor \`mcpServers\`; it must be a map with at least one of them`;
    refusals.push(problemAt([], "value", message));
  }
  const fields = isMap(top) ? top : {};
  const providers = readProviders(fields);
  const settings = readSettings(fields);
  if (settings === undefined || refusals.length > 0)
    throw invalid({ file, shown }, [...refusals, ...others]);
  return { config: { providers, ...settings }, file, problems: inOrder(others) };
}

function invalid(
  { file, shown }: Pick<Source, "file" | "shown">,
  problems: readonly Problem[],
): HangarError {
  const ordered = inOrder(problems);
  const errors = ordered.filter((problem) => problem.severity === "error");
  const lines = errors.slice(0, MAX_PROBLEMS_IN_MESSAGE).map((one) => `\n  ${formatProblem(one)}`);
  const more = errors.length - lines.length;
  const rest = more > 0 ? `\n  and ${more} more` : "";
  return new HangarError("config_invalid", `${shown} cannot be used:${lines.join("")}${rest}`, {
    details: { file, problems: ordered },
  });
}

function inOrder(problems: readonly Problem[]): Problem[] {
  return problems.toSorted((a, b) => a.line - b.line || a.column - b.column);
}

/** What every key of a provider is when the file does not say; `command` is empty. */
function providerDefaults(): ProviderConfig {
  return { ...providerSchema.parse({ command: ["-"] }), command: [], headers: {} };
}

type Settings = z.output<typeof settingsSchema>;

/** `settings` with what the environment says about the rate limit, should the file say nothing. Throws `config_invalid`. */
function withRateLimit(settings: Settings, env: Source["env"]): Settings {
  const [rps, burst] = RATE_LIMIT_VARIABLES.map((name) => {
    const given = env[name];
    return given === undefined || given === "" ? undefined : Number(given);
  });
  if (settings.rate_limit !== undefined || rps === undefined) return settings;
  const { success, data } = settingsSchema.shape.rate_limit.safeParse({ rps, burst });
  if (success) return { ...settings, rate_limit: data };
  const why = `${RATE_LIMIT_VARIABLES.join(" and ")} must be numbers above 0, the second a whole one; found ${RATE_LIMIT_VARIABLES.map((name) => env[name] ?? "nothing").join(" and ")}`;
  throw new HangarError("config_invalid", why);
}

function isMap(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function pick(value: Fields, keys: readonly string[]): Fields {
  return Object.fromEntries(Object.entries(value).filter(([key]) => keys.includes(key)));
}

/** `value` with the variables in all its texts replaced. */
function expandTree(value: unknown, path: Path, env: Source["env"]): Expanded {
  const unset: Unreplaced[] = [];
  const malformed: Unreplaced[] = [];
  function visit(here: unknown, at: Path): unknown {
    if (typeof here === "string") {
      const result = expand(here, env);
      for (const name of result.unset) {
        unset.push({ path: at, message: `environment variable ${name} is not set` });
      }
      for (const reference of result.malformed) {
        const what = isSecretPlace(at) ? "a reference" : `\`${shorten(reference)}\``;
        const message = `${what} is not a variable: write \`\${NAME}\` or \`\${NAME:-default}\`, or \`$\${\` for a plain \`\${\``;
        malformed.push({ path: at, message });
      }
      return result.text;
    }
    if (Array.isArray(here)) return here.map((item, index) => visit(item, [...at, index]));
    if (!isMap(here)) return here;
    return Object.fromEntries(
      Object.entries(here).map(([key, item]) => [key, visit(item, [...at, key])]),
    );
  }
  return { value: visit(value, path), unset, malformed };
}

/** A provider id made of `name` that is not in `taken`; the same every time. */
function mappedId(name: string, taken: ReadonlySet<string>): string {
  const plain = name.replaceAll(/[^a-zA-Z0-9_-]/gu, "-");
  const base = (/^[a-zA-Z]/.test(plain) ? plain : `p-${plain}`).slice(0, MAX_ID_LENGTH);
  for (let count = 1; ; count++) {
    const suffix = count === 1 ? "" : `-${count}`;
    const id = base.slice(0, MAX_ID_LENGTH - suffix.length) + suffix;
    if (!taken.has(id)) return id;
  }
}

/** `path` from `folder`, with a leading `~` standing for `home`. */
function resolvePath(folder: string, path: string, home: string): string {
  if (path === "~") return home;
  return path.startsWith("~/") ? resolve(home, path.slice(2)) : resolve(folder, path);
}

/** The file's text, or undefined when there is no such file. Reads pipes, too. */
function readText(file: string, shown: string): string | undefined {
  const refuse = (message: string): never => {
    throw invalid({ file, shown }, [
      { file: shown, line: 1, column: 1, message, severity: "error" },
    ]);
  };
  let bytes: Buffer;
  try {
    bytes = readAtMost(file, MAX_FILE_BYTES + 1);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    return refuse(`the file cannot be read (${code})`);
  }
  if (bytes.length > MAX_FILE_BYTES)
    return refuse(`the file is larger than ${MAX_FILE_BYTES} bytes`);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return refuse("the file is not valid UTF-8");
  }
}

function readAtMost(file: string, limit: number): Buffer {
  const descriptor = openSync(file, "r");
  try {
    const buffer = Buffer.alloc(limit);
    let length = 0;
    while (length < limit) {
      const count = readSync(descriptor, buffer, length, limit - length, null);
      if (count === 0) break;
      length += count;
    }
    return buffer.subarray(0, length);
  } finally {
    closeSync(descriptor);
  }
}
