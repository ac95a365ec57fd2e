import * as z from "zod";

/**
 * The one definition of the configuration file: types, defaults, checks, the JSON Schema for editors and the table
 * in the docs all come from here. A key stands here only when something outside sees what it does.
 */

/** What a provider may be called. */
export const PROVIDER_ID = /^[a-zA-Z][a-zA-Z0-9_-]{0,63}$/;

/** Modes a file may name already; such a provider is listed as dead, and its other keys are not looked at. */
export const UNBUILT_MODES = ["container", "docker", "podman", "group"] as const;

export const modeSchema = z.enum(["subprocess", "remote", ...UNBUILT_MODES]).default("subprocess");

const DAY_S = 86_400;
const KIB = 1024;
const MIB = 1024 * KIB;

/** True for names that every JavaScript object already has, and which therefore may name nothing of ours. */
export function isReservedName(name: string): boolean {
  return name === "prototype" || Object.hasOwn(Object.prototype, name);
}

// An operating system takes no NUL in arguments, variables and paths.
const text = z
  .string()
  .refine((value) => !value.includes("\0"), "must not contain a NUL character");
const filledText = text.min(1);
const environmentName = z
  .string()
  .regex(/^[^=\s\0]{1,256}$/, "is not a name for an environment variable")
  .refine((name) => !isReservedName(name), "cannot be used as a name");

const env = z.record(environmentName, text);

function seconds(min: number, max: number, value: number) {
  return z.number().min(min).max(max).default(value);
}

/** What every provider has, however it is run. */
const common = {
  enabled: z
    .boolean()
    .default(true)
    .describe(
      "`false` keeps the entry but leaves the provider out: it is not listed and cannot be called.",
    ),
  description: z
    .string()
    .optional()
    .describe("One sentence about the provider, shown by `registry_list`."),
  idle_ttl_s: seconds(0, 7 * DAY_S, 300).describe(
    "The provider is stopped when no call has been in flight for this many seconds; `0` means never.",
  ),
  health_check_interval_s: seconds(0.1, 3600, 60).describe(
    "Seconds between two health checks while the provider runs.",
  ),
  max_consecutive_failures: z
    .int()
    .min(1)
    .max(100)
    .default(3)
    .describe("Failures in a row after which the provider counts as `degraded`."),
  startup_timeout_s: seconds(0.1, 3600, 60).describe(
    "Longest wait, in seconds, from the start of the program to its answer to the MCP handshake.",
  ),
  timeout_s: seconds(0.1, 3600, 60).describe(
    "Longest wait for the answer to a call, in seconds, unless the call says otherwise; each progress notification starts it anew.",
  ),
  max_timeout_s: seconds(0.1, 86_400, 3600).describe(
    "Longest time any call may take, in seconds, whatever its progress and whatever the caller asks for.",
  ),
  tool_timeouts_s: z
    .record(filledText, z.number().min(0.1).max(86_400))
    .default({})
    .describe(
      "`timeout_s` for some tools: a glob over tool names, and seconds; the first that matches counts.",
    ),
  max_concurrency: z
    .int()
    .min(1)
    .max(100_000)
    .default(256)
    .describe("Calls that the provider works on at once; further ones wait."),
  max_queue: z
    .int()
    .min(0)
    .max(100_000)
    .default(1024)
    .describe("Calls that wait for their turn; more are refused as `overloaded`."),
  circuit_breaker: z
    .strictObject({
      failure_rate: z
        .number()
        .gt(0)
        .max(1)
        .default(0.5)
        .describe(
          "Share of the last calls (100 at most, of the last minute) that must have failed.",
        ),
      slow_call_s: seconds(0, 86_400, 0).describe(
        "A call that took longer counts as failed, in seconds; `0` means never.",
      ),
      min_calls: z
        .int()
        .min(1)
        .max(100)
        .default(10)
        .describe("With fewer calls to judge by, the breaker stays closed."),
      open_s: seconds(0.1, 3600, 30).describe(
        "How long no call is let through, in seconds; doubles, up to ten times this, while trials fail.",
      ),
      half_open_calls: z
        .int()
        .min(1)
        .max(100)
        .default(3)
        .describe("Calls let through to try the provider out; the others are refused meanwhile."),
      force: z
        .enum(["open", "closed"])
        .optional()
        .describe(
          "`open` refuses every call, `closed` refuses none; left out, the figures decide.",
        ),
    })
    .prefault({})
    .describe(
      "Calls are refused for a while when too many have failed: timeouts, exits, failed starts, network errors. What the provider answers, errors included, is no failure.",
    ),
  trust_annotations: z
    .boolean()
    .default(false)
    .describe(
      "`true`: calls of tools that the provider marks as read-only or idempotent are sent again when their answer was lost.",
    ),
  retry: z
    .strictObject({
      tools: z
        .array(filledText)
        .default([])
        .describe("Globs; calls of tools that match are sent again when their answer was lost."),
      budget: z
        .number()
        .min(0)
        .max(1)
        .default(0.2)
        .describe(
          "Share of the calls under way that may be repetitions; three may in any case, unless it is `0`.",
        ),
    })
    .prefault({})
    .describe("What is sent again when its answer was lost."),
  protocol: z
    .enum(["auto", "legacy", "modern"])
    .default("auto")
    .describe(
      "Protocol family the provider speaks: `legacy` (2024-11-05 to 2025-11-25), `modern` (2026-07-28), or `auto` to find out.",
    ),
  tools: z
    .strictObject({
      allow: z
        .array(filledText)
        .default(["*"])
        .describe("Globs; only tools that match one of them are offered and can be called."),
      deny: z
        .array(filledText)
        .default([])
        .describe(
          "Globs; tools that match one of them are neither offered nor callable, even if allowed.",
        ),
    })
    .prefault({})
    .describe("Which of the provider's tools there are, by name."),
  scope: z
    .enum(["shared", "session"])
    .default("shared")
    .describe(
      "`shared`: all clients use one run of the provider. `session`: each client has a run of its own, which sees that client's capabilities and may ask it at any time.",
    ),
};

/** A server elsewhere costs this machine nothing when it fails: it is tried again for ever, after growing waits. */
export const NO_RESTART_LIMIT = { limit: Infinity, window_s: 0, healthy_s: 10 };

export const providerSchema = z
  .strictObject({
    mode: z.literal("subprocess").default("subprocess").describe("How the provider is run."),
    command: z
      .array(filledText)
      .min(1)
      .max(100)
      .describe("The program and its arguments, one list entry each. No shell reads it."),
    env: env
      .default({})
      .describe(
        "Environment variables for the program, beside a minimal set (PATH, HOME and the like).",
      ),
    inherit_env: z
      .array(environmentName)
      .default([])
      .describe(
        "Names of variables of Hangar's own environment that are handed on to the program.",
      ),
    cwd: filledText
      .default(".")
      .describe(
        "Folder the program runs in; relative paths start at the configuration file's folder.",
      ),
    restart: z
      .strictObject({
        limit: z
          .int()
          .min(1)
          .max(100)
          .default(5)
          .describe("So many crashes or failed starts within `window_s` make the provider `dead`."),
        window_s: seconds(1, DAY_S, 60).describe("The time in which they are counted, in seconds."),
        healthy_s: seconds(0, DAY_S, 300).describe(
          "A provider that was ready for so many seconds is forgiven its earlier crashes.",
        ),
      })
      .prefault({})
      .describe(
        "When a provider that crashes is given up. Before that, it is started again after a wait that grows from at most 0.5 s to 60 s.",
      ),
    ...common,
  })
  .describe("A provider: one MCP server that Hangar starts, watches and stops.");

const endpoint = z
  .string()
  .refine(
    (value) => /^https?:$/.test(URL.parse(value)?.protocol ?? ""),
    "must be a URL that begins with http:// or https://",
  )
  .refine(
    (value) =>
      (URL.parse(value)?.username ?? "") === "" && (URL.parse(value)?.password ?? "") === "",
    "must not contain a user or password; put them into `headers`, as `Authorization: Basic ...`",
  );

/** A header that Hangar sets itself, or that would change how the message is read. */
const OWN_HEADER = /^(?:host|content-.*|accept|connection|transfer-encoding|mcp-.*|te|upgrade)$/i;

const headers = z.record(
  z
    .string()
    .regex(/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}$/, "is not a name for an HTTP header")
    .refine((name) => !OWN_HEADER.test(name), "is set by Hangar itself"),
  z.string().regex(/^[\t\x20-\x7e\x80-\xff]*$/, "must be one line"),
);

export const remoteSchema = z
  .strictObject({
    mode: z.literal("remote").describe("How the provider is run."),
    endpoint: endpoint.describe(
      "URL of an MCP server that runs elsewhere: Streamable HTTP, or the older HTTP+SSE.",
    ),
    headers: headers
      .default({})
      .describe("HTTP headers sent with every request to `endpoint`, such as `Authorization`."),
    ...common,
  })
  .describe("A provider that somebody else runs; Hangar connects to it.");

export const unbuiltProviderSchema = z
  .looseObject({
    mode: z.enum(UNBUILT_MODES),
    enabled: common.enabled,
    description: common.description,
  })
  .describe(
    "A mode that this version does not run yet: the provider is listed as dead, and its other keys are not checked.",
  );

export const clientServerSchema = z
  .looseObject({
    command: filledText.optional().describe("The program."),
    args: z.array(text).default([]).describe("The program's arguments."),
    env: env.default({}).describe("Environment variables for the program."),
    cwd: providerSchema.shape.cwd,
    enabled: providerSchema.shape.enabled,
    disabled: z
      .boolean()
      .default(false)
      .describe("`true` leaves the provider out, as `enabled: false` does."),
    type: z
      .string()
      .optional()
      .describe(
        "`stdio` for an entry with `command`; `http`, `streamable-http` or `sse` for one with `url`.",
      ),
    url: endpoint.optional().describe("URL of a remote server, as `endpoint` of a provider."),
    headers: headers.default({}).describe("HTTP headers sent with every request to `url`."),
  })
  .describe(
    "A server as MCP clients describe it; keys of theirs that are unknown here only cause a warning.",
  );

const origin = z
  .string()
  .regex(
    /^[A-Za-z][A-Za-z0-9+.-]*:\/\/[^\s/?#@*\\]+$/,
    "must be an origin: scheme, host and perhaps a port, without path or wildcard, such as `https://app.example.com`",
  )
  // Browsers send it like this, with the default port left out.
  .transform((value) => {
    const known = /^https?:/i.test(value) && URL.canParse(value);
    return known ? new URL(value).origin : value.toLowerCase();
  });

const level = z.preprocess(
  // Python's names, as in configuration files of the original.
  (value) => (typeof value === "string" ? value.toLowerCase().replace("warning", "warn") : value),
  z.enum(["debug", "info", "warn", "error"]),
);

/** Everything in the file that belongs to no provider. */
export const settingsSchema = z.strictObject({
  logging: z
    .strictObject({
      level: level
        .prefault("info")
        .describe("The least important lines that are still logged; capitals are accepted, too."),
      file: filledText
        .optional()
        .describe("File the log is appended to, instead of stderr; missing folders are created."),
      provider_log_max_bytes: z
        .int()
        .min(128 * KIB)
        .max(1024 * MIB)
        .default(10 * MIB)
        .describe(
          "Size, in bytes, that one file of a provider's own log may have; then it is set aside and another begun.",
        ),
      provider_log_files: z
        .int()
        .min(0)
        .max(100)
        .default(3)
        .describe(
          "Files kept of each provider's own log (what it prints, and its starts and ends), the newest included; `0` keeps none.",
        ),
    })
    .prefault({})
    .describe("The log."),
  allowed_origins: z
    .array(origin)
    .prefault([])
    .describe("Web origins, beside those of this machine, whose pages may use Hangar over HTTP."),
  max_calls: z
    .int()
    .min(1)
    .max(1_000_000)
    .default(10_000)
    .describe("Calls under way in all, waiting ones included; more are refused as `overloaded`."),
  rate_limit: z
    .strictObject({
      rps: z
        .number()
        .gt(0)
        .max(1_000_000)
        .describe("Requests per second that each client may make in the long run."),
      burst: z
        .int()
        .min(1)
        .max(1_000_000)
        .optional()
        .describe("Requests at once after a pause; twice `rps` if left out."),
    })
    .optional()
    .describe(
      "Requests beyond this are refused as `overloaded`, for each principal on its own; off when left out. MCP_RATE_LIMIT_RPS and MCP_RATE_LIMIT_BURST stand in for it.",
    ),
  max_message_bytes: z
    .int()
    .min(KIB)
    .max(256 * MIB)
    .default(16 * MIB)
    .describe("Largest single MCP message, in bytes, in either direction."),
  shutdown_grace_s: seconds(0, 3600, 25).describe(
    "How long, in seconds, calls under way may go on when Hangar is told to end; the rest is then cancelled.",
  ),
});

const fileSchema = z
  .strictObject({
    providers: z
      .record(
        z.string().regex(PROVIDER_ID),
        z.union([providerSchema, remoteSchema, unbuiltProviderSchema]),
      )
      .optional()
      .describe("The providers, by name."),
    mcpServers: z
      .record(z.string(), clientServerSchema)
      .optional()
      .describe("More providers, in the shape of an MCP client's settings file."),
    ...settingsSchema.shape,
  })
  .describe("Configuration of MCP Hangar. It needs `providers` or `mcpServers`.");

/** What a subprocess provider's entry may look like in the file. */
export type ProviderEntry = z.input<typeof providerSchema>;

/** A provider with all defaults applied; keys as in YAML, `cwd` absolute. */
export type ProviderConfig = Readonly<
  Omit<z.output<typeof providerSchema>, "mode"> & {
    mode: z.output<typeof modeSchema>;
    /** Of a remote provider; `command` is empty then. */
    endpoint?: string;
    headers: Readonly<Record<string, string>>;
    /** Why it cannot be run although it was configured; the reason is made to be shown. */
    unusable?: string;
  }
>;

/** A whole configuration: defaults applied, variables replaced, paths absolute. */
export interface Config {
  readonly providers: ReadonlyMap<string, ProviderConfig>;
  readonly logging: Readonly<z.output<typeof settingsSchema>["logging"]>;
  readonly allowed_origins: readonly string[];
  readonly max_calls: number;
  readonly rate_limit?: { readonly rps: number; readonly burst?: number | undefined } | undefined;
  readonly max_message_bytes: number;
  readonly shutdown_grace_s: number;
}

interface JsonSchema {
  readonly type?: string;
  readonly const?: string;
  readonly enum?: readonly string[];
  readonly default?: unknown;
  readonly description?: string;
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly additionalProperties?: JsonSchema | boolean;
  readonly anyOf?: readonly JsonSchema[];
  readonly required?: readonly string[];
  readonly minimum?: number;
  readonly maximum?: number;
}

/** The JSON Schema (draft 2020-12) of the file, for editors. */
export function configJsonSchema(): JsonSchema {
  const { $schema, ...schema } = z.toJSONSchema(fileSchema, {
    target: "draft-2020-12",
    io: "input",
  });
  return { $schema, title: "MCP Hangar configuration", ...schema } as JsonSchema;
}

/** One row of the table of configuration keys; `key` is like `providers.<id>.tools.allow`. */
export interface ReferenceRow {
  readonly key: string;
  readonly type: string;
  /** As it would be written in the file; empty when there is none, `required` when there must be a value. */
  readonly default: string;
  readonly description: string;
}

/** Every key of the file, nested ones after the one they belong to. */
export function configReference(): ReferenceRow[] {
  return rowsOf(configJsonSchema(), "");
}

function rowsOf(schema: JsonSchema, prefix: string): ReferenceRow[] {
  return Object.entries(propertiesOf(schema)).flatMap(([name, property]) => {
    const key = prefix + name;
    const row = {
      key,
      type: typeName(property),
      default: defaultText(property, isRequired(schema, name)),
      description: property.description ?? "",
    };
    const entry = property.additionalProperties;
    if (typeof entry !== "object") return [row, ...rowsOf(property, `${key}.`)];
    return [row, ...rowsOf(entry, `${key}.<id>.`)];
  });
}

/** All properties of a map, or of every kind that it may be of; of a key that several kinds have, the first kind's. */
function propertiesOf({ properties, anyOf }: JsonSchema): Readonly<Record<string, JsonSchema>> {
  if (anyOf === undefined) return properties ?? {};
  return Object.assign({}, ...anyOf.toReversed().map((kind) => kind.properties), {
    mode: {
      enum: anyOf.flatMap((kind) => kindsIn(kind.properties?.["mode"])),
      default: "subprocess",
      description: anyOf[0]?.properties?.["mode"]?.description,
    },
  });
}

/** Of several kinds, those that have the key at all must all require it. */
function isRequired(schema: JsonSchema, name: string): boolean {
  const kinds = (schema.anyOf ?? [schema]).filter(({ properties = {} }) => name in properties);
  return kinds.length > 0 && kinds.every(({ required }) => required?.includes(name) === true);
}

function kindsIn(mode: JsonSchema | undefined): readonly string[] {
  return mode?.enum ?? (mode?.const === undefined ? [] : [mode.const]);
}

function defaultText(schema: JsonSchema, required: boolean): string {
  if (required) return "required";
  if (schema.default === undefined || schema.properties !== undefined) return "";
  return typeof schema.default === "string" ? schema.default : JSON.stringify(schema.default);
}

function typeName(schema: JsonSchema): string {
  if (schema.const !== undefined) return `\`${schema.const}\``;
  if (schema.enum !== undefined) {
    return schema.enum.map((value) => `\`${value}\``).join(", ");
  }
  switch (schema.type) {
    case "string":
      return "text";
    case "boolean":
      return "`true` or `false`";
    case "integer":
      return `whole number, ${range(schema.minimum, schema.maximum)}`;
    case "number":
      return `number, ${range(schema.minimum, schema.maximum)}`;
    case "array":
      return "list of text";
    default:
      return schema.properties === undefined && schema.additionalProperties !== undefined
        ? mapName(schema.additionalProperties)
        : "map";
  }
}

function mapName(entry: JsonSchema | boolean): string {
  return typeof entry === "object" && entry.type === "string"
    ? "map of name to text"
    : "map of name to entry";
}

function range(minimum: number | undefined, maximum: number | undefined): string {
  return `${minimum ?? "any"} to ${maximum ?? "any"}`;
}
