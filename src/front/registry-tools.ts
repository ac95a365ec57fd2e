import { ERRORS, HangarError, toHangarError } from "../errors.ts";
import { NOISY_LINES, type Tell } from "../observe/events.ts";
import type { Tool } from "../providers/connection.ts";
import type { State } from "../providers/lifecycle.ts";
import type { ProviderFacts } from "../providers/provider.ts";
import { findProvider, type Registered, type Registry } from "../providers/registry.ts";
import { offeredTools } from "../routing/policy.ts";
import { holdCall } from "../providers/held-call.ts";
import {
  atEnd,
  type Call,
  type CallHandler,
  type Era,
  type Outcome,
  type Reply,
  type Running,
  type Target,
} from "../target.ts";
import {
  membersOf,
  type Members,
  scanMessage,
  type Span,
  stringAt,
  textOf,
  wholeOf,
} from "../wire/envelope.ts";
import { META } from "../wire/eras.ts";
import { SERVER_INFO } from "./server-info.ts";

interface Property {
  readonly type: string;
  readonly description: string;
  readonly enum?: readonly string[];
  readonly minimum?: number;
  readonly maximum?: number;
  readonly default?: unknown;
}

/** One of Hangar's own tools, as clients and the generated reference see it. */
export interface RegistryTool {
  readonly name: string;
  readonly title: string;
  readonly description: string;
  readonly inputSchema: {
    readonly type: "object";
    readonly properties: Readonly<Record<string, Property>>;
    readonly required?: readonly string[];
    readonly additionalProperties: false;
  };
  readonly outputSchema?: object;
  readonly annotations: {
    readonly readOnlyHint: boolean;
    readonly destructiveHint: boolean;
    readonly idempotentHint: boolean;
    readonly openWorldHint: boolean;
  };
}

const STATES: readonly State[] = ["cold", "initializing", "ready", "degraded", "dead"];
/** Deadlines that `registry_invoke` accepts, in seconds. */
const MIN_TIMEOUT_S = 0.1;
const MAX_TIMEOUT_S = 3_600;
/** The deadline of `registry_invoke` when the caller names none; a shorter `timeout_s` of the provider wins. */
export const INVOKE_TIMEOUT_S = 30;

const PROVIDER: Property = {
  type: "string",
  description: "Name of the provider, as registry_list shows it.",
};

const ERROR_MEMBERS = {
  error: { type: "string", description: "What went wrong, in words." },
  type: { type: "string", description: "Kind of error, such as ProviderNotFoundError." },
  code: {
    type: "string",
    description: "Stable code of the error; docs/TROUBLESHOOTING.md explains each.",
  },
  provider_id: { type: ["string", "null"] },
  operation: { type: "string" },
  details: { type: "object" },
  retryAfterMs: {
    type: "integer",
    description: "When the same call has a chance, in milliseconds.",
  },
};

/** A result of these members, or the error object instead: clients validate failed results, too. */
function output(members: Readonly<Record<string, object>>): object {
  return {
    type: "object",
    properties: { ...members, ...ERROR_MEMBERS },
    anyOf: [{ required: Object.keys(members) }, { required: ["error", "type", "code"] }],
  };
}

const READ_ONLY = {
  readOnlyHint: true,
  destructiveHint: false,
  idempotentHint: true,
  openWorldHint: false,
};

const NO_ARGUMENTS = { type: "object", properties: {}, additionalProperties: false } as const;
const PROVIDER_ONLY = {
  type: "object",
  properties: { provider: PROVIDER },
  required: ["provider"],
  additionalProperties: false,
} as const;

/** The registry tools, in the order clients see them. */
export const REGISTRY_TOOLS: readonly RegistryTool[] = [
  {
    name: "registry_list",
    title: "List providers",
    description:
      "Lists every MCP server (provider) that can be used through Hangar, with its state. Call this first. " +
      "A cold provider is not running but starts by itself on first use. Starts nothing.",
    inputSchema: {
      type: "object",
      properties: {
        state_filter: {
          type: "string",
          description: "Only providers in this state.",
          enum: STATES,
        },
      },
      additionalProperties: false,
    },
    outputSchema: output({
      providers: { type: "array", items: { type: "object" } },
      groups: { type: "array", items: { type: "object" } },
    }),
    annotations: READ_ONLY,
  },
  {
    name: "registry_start",
    title: "Start a provider",
    description:
      "Starts a provider now and waits until it is ready; does nothing if it already runs. Rarely needed, since registry_invoke " +
      "starts providers by itself; use it to retry a provider that is dead or waits for its retry, after mending the cause.",
    inputSchema: PROVIDER_ONLY,
    outputSchema: output({
      provider: { type: "string" },
      state: { type: "string" },
      tools: { type: "array", items: { type: "string" } },
    }),
    annotations: {
      readOnlyHint: false,
      destructiveHint: false,
      idempotentHint: true,
      openWorldHint: false,
    },
  },
  {
    name: "registry_stop",
    title: "Stop a provider",
    description:
      "Stops a provider and whatever it started; calls under way end with an error. It starts again on next use.",
    inputSchema: PROVIDER_ONLY,
    outputSchema: output({ stopped: { type: "string" }, reason: { type: "string" } }),
    annotations: {
      readOnlyHint: false,
      destructiveHint: true,
      idempotentHint: true,
      openWorldHint: false,
    },
  },
  {
    name: "registry_invoke",
    title: "Call a provider's tool",
    description:
      "Calls one tool of one provider and returns that tool's own result, content and structuredContent included. Starts the provider if " +
      "it is cold. Take the tool's name and arguments from registry_tools.",
    inputSchema: {
      type: "object",
      properties: {
        provider: PROVIDER,
        tool: { type: "string", description: "Name of the tool, as registry_tools shows it." },
        arguments: {
          type: "object",
          description: "Arguments for the tool, as its inputSchema asks for; none if left out.",
        },
        timeout: {
          type: "number",
          description: `Longest wait for the result, in seconds; ${INVOKE_TIMEOUT_S} if left out.`,
          minimum: MIN_TIMEOUT_S,
          maximum: MAX_TIMEOUT_S,
          default: INVOKE_TIMEOUT_S,
        },
      },
      required: ["provider", "tool"],
      additionalProperties: false,
    },
    annotations: {
      readOnlyHint: false,
      destructiveHint: true,
      idempotentHint: false,
      openWorldHint: true,
    },
  },
  {
    name: "registry_tools",
    title: "Show a provider's tools",
    description:
      "Returns the complete definitions of a provider's tools: names, descriptions, input schemas. Starts the provider if it is cold.",
    inputSchema: PROVIDER_ONLY,
    outputSchema: output({
      provider: { type: "string" },
      state: { type: "string" },
      tools: { type: "array", items: { type: "object" } },
    }),
    annotations: READ_ONLY,
  },
  {
    name: "registry_details",
    title: "Show everything about a provider",
    description:
      "Returns a provider's state and the reason for it, its tools as last seen, health figures, when it may be retried, its last exit " +
      "and the last lines it printed that are no messages (`stderr`; those of stdout are marked). `health.noisy` says that this run " +
      "has printed 1000 such lines on stdout, where only messages belong. Starts nothing. Use it to find out why a provider fails.",
    inputSchema: PROVIDER_ONLY,
    outputSchema: output({
      provider: { type: "string" },
      state: { type: "string" },
      mode: { type: "string" },
      alive: { type: "boolean" },
      tools: { type: "array", items: { type: "object" } },
      health: { type: "object" },
      idle_time: { type: ["number", "null"] },
      meta: { type: "object" },
    }),
    annotations: READ_ONLY,
  },
  {
    name: "registry_health",
    title: "Show Hangar's health",
    description: "Returns how many providers are in which state. Starts nothing.",
    inputSchema: NO_ARGUMENTS,
    outputSchema: output({
      status: { type: "string", enum: ["healthy", "degraded"] },
      providers: { type: "object" },
      groups: { type: "object" },
    }),
    annotations: READ_ONLY,
  },
];

const BY_NAME = new Map(REGISTRY_TOOLS.map((tool) => [tool.name, tool]));

/** How long a modern client may keep the list of these tools, which never changes, in milliseconds. */
const LIST_TTL_MS = 3_600_000;

const LIST = {
  legacy: JSON.stringify({ tools: REGISTRY_TOOLS }),
  modern: complete(
    JSON.stringify({ tools: REGISTRY_TOOLS, ttlMs: LIST_TTL_MS, cacheScope: "public" }),
    "modern",
  ),
};

/** The target behind `/mcp`: Hangar's own tools. */
export function registryTools(registry: Registry, tell: Tell): Target {
  return {
    name: "registry",
    available: true,
    dispatch(call, handler) {
      const { method } = call.message;
      if (method === "tools/call") return callTool(registry, call, handler, tell);
      const outcome: Outcome =
        method === "tools/list"
          ? reply(LIST[call.caller.era])
          : new HangarError("method_not_found", `Method not found: ${method}`);
      return holdCall(outcome, call, handler, tell);
    },
    // The list of these tools never changes. Runs that are this client's alone may ask it, and end with it.
    watch(watcher) {
      const own = [...registry.values()].filter(
        ({ provider }) => provider.config.scope === "session",
      );
      const quiet = { ...watcher, note: () => {} };
      const watches = own.map(({ target }) => target.watch(quiet));
      return {
        note: (message) => watches.forEach((watch) => watch.note(message)),
        close: () => watches.forEach((watch) => watch.close()),
      };
    },
  };
}

function callTool(registry: Registry, call: Call, handler: CallHandler, tell: Tell): Running {
  const { message, caller } = call;
  const { text } = message;
  const name = stringAt(text, message.body.get("name"));
  const tool = BY_NAME.get(name ?? "");
  if (tool === undefined) {
    const failure = new HangarError("invalid_params", `Unknown tool: ${name ?? "(no name)"}`);
    return holdCall(failure, call, handler, tell);
  }
  let provider_id: string | null = null;
  // Errors of our own tools are results with `isError`, which a model can read and act on.
  const asResult = (error: unknown): Reply =>
    reply(errorResult(toHangarError(error), provider_id, tool.name, caller.era));
  try {
    const args = readArguments(text, message.body.get("arguments"), tool);
    const named = args.get("provider");
    if (typeof named === "string") provider_id = named;
    if (tool.name === "registry_invoke") {
      const inner = innerCall(call, args);
      const registered = findProvider(registry, provider_id as string);
      return registered.target.dispatch(
        inner,
        atEnd(handler, (outcome) => handler.end(adapt(outcome, registered, caller.era, asResult))),
      );
    }
    const result = run(registry, tool.name, args).then(
      (structured) => reply(toolResult(structured, caller.era)),
      asResult,
    );
    return holdCall(result, call, handler, tell);
  } catch (error) {
    return holdCall(asResult(error), call, handler, tell);
  }
}

type Arguments = ReadonlyMap<string, string | number | Span>;

/** The arguments of one of our tools: strings and numbers as values, objects as where they stand in `text`. */
function readArguments(text: string, span: Span | undefined, tool: RegistryTool): Arguments {
  const { properties, required = [] } = tool.inputSchema;
  const members: Members | undefined =
    span === undefined || textOf(text, span) === "null" ? new Map() : membersOf(text, span);
  if (members === undefined) throw invalid(`\`arguments\` of ${tool.name} must be an object`);
  const args = new Map<string, string | number | Span>();
  for (const [name, value] of members) {
    const property = Object.hasOwn(properties, name) ? properties[name] : undefined;
    if (property === undefined) {
      const known = Object.keys(properties).join(", ") || "none";
      throw invalid(`${tool.name} has no argument \`${name}\`; it has: ${known}`);
    }
    if (textOf(text, value) === "null") continue; // as good as left out
    args.set(name, readArgument(text, value, name, property));
  }
  for (const name of required) {
    if (!args.has(name)) throw invalid(`${tool.name} needs the argument \`${name}\``);
  }
  return args;
}

function readArgument(
  text: string,
  span: Span,
  name: string,
  { type, enum: allowed, minimum = 0, maximum = 0 }: Property,
): string | number | Span {
  const found = shorten(textOf(text, span));
  switch (type) {
    case "string": {
      const value = stringAt(text, span);
      if (value === undefined) throw invalid(`\`${name}\` must be a string, found ${found}`);
      if (allowed !== undefined && !allowed.includes(value)) {
        throw invalid(`\`${name}\` must be one of ${allowed.join(", ")}, found ${found}`);
      }
      return value;
    }
    case "number": {
      const value = Number(textOf(text, span));
      if (Number.isNaN(value) || value < minimum || value > maximum) {
        throw invalid(`\`${name}\` must be a number from ${minimum} to ${maximum}, found ${found}`);
      }
      return value;
    }
    default:
      // Only a look at it: what is inside is the provider's business.
      if (text[span.start] !== "{") throw invalid(`\`${name}\` must be an object, found ${found}`);
      return span;
  }
}

function invalid(message: string): HangarError {
  return new HangarError("invalid_arguments", `invalid_arguments: ${message}`);
}

function shorten(text: string): string {
  return text.length > 60 ? `${text.slice(0, 60)}...` : text;
}

/** Members of a call's params that mean Hangar's own tool. */
const OWN_MEMBERS: readonly string[] = ["name", "arguments", "task"];

/** The provider's own `tools/call` inside a `registry_invoke`; the arguments stay the bytes they came as. */
function innerCall({ message, caller }: Call, args: Arguments): Call {
  // Also what a modern client repeats a call with, after it has answered the provider's questions.
  // No `task`: a client could not ask here what became of it, and Hangar declares none (2025-11-25, "Tasks").
  const others = [...message.body].filter(([key]) => !OWN_MEMBERS.includes(key));
  const given = args.get("arguments") as Span | undefined;
  // Joined once, as large arguments are copied by it.
  const text = [
    '{"jsonrpc":"2.0","id":0,"method":"tools/call","params":{"name":',
    JSON.stringify(args.get("tool")),
    ',"arguments":',
    given === undefined ? "{}" : textOf(message.text, given),
    ...others.map(([key, span]) => `,${JSON.stringify(key)}:${textOf(message.text, span)}`),
    "}}",
  ].join("");
  const timeout = args.get("timeout") as number | undefined;
  return {
    message: scanMessage(text),
    caller,
    ...(timeout === undefined ? {} : { timeoutMs: timeout * 1000 }),
  };
}

/** What the provider answered, in the form the client's era has for it. */
function adapt(
  outcome: Outcome,
  { provider }: Registered,
  era: Era,
  asResult: (error: unknown) => Reply,
): Outcome {
  if (outcome.kind === "failure") return outcome.code === "cancelled" ? outcome : asResult(outcome);
  const { text, isError } = outcome;
  const members = membersOf(text, wholeOf(text));
  if (isError) {
    const said = stringAt(text, members?.get("message")) ?? text;
    return asResult(
      new HangarError("tool_failed", `tool_error: ${said}`, {
        details: { error: JSON.parse(text) },
      }),
    );
  }
  const resultType = members?.get("resultType");
  const type = stringAt(text, resultType) ?? "complete";
  // A modern client answers the questions of a modern provider by calling again.
  const passes = type === "complete" || (type === "input_required" && era === "modern");
  if (members === undefined || !passes) {
    const what = resultType === undefined ? "no object" : textOf(text, resultType);
    return asResult(
      new HangarError(
        "not_translatable",
        `provider ${provider.name} answered with a result that registry_invoke cannot pass on: ${what}`,
      ),
    );
  }
  if ((era === "modern") === (resultType !== undefined)) return outcome;
  return reply(era === "modern" ? withResultType(text, members) : withoutResultType(text, members));
}

/** Runs one of the tools other than registry_invoke; the answer is the JSON text of its structured result. */
async function run(registry: Registry, tool: string, args: Arguments): Promise<string> {
  switch (tool) {
    case "registry_list":
      return list(registry, args.get("state_filter") as State | undefined);
    case "registry_health":
      return health(registry);
  }
  const registered = findProvider(registry, args.get("provider") as string);
  const { provider } = registered;
  switch (tool) {
    case "registry_start": {
      await provider.start("manual");
      registered.gate.open();
      const tools = offeredTools(provider.tools, provider.config.tools).map(({ name }) => name);
      return JSON.stringify({ ...names(provider), state: provider.facts.state, tools });
    }
    case "registry_stop":
      registered.gate.cancelWaiting(
        new HangarError("provider_stopped", `provider ${provider.name} was stopped by hand`),
      );
      await provider.stop("shutdown");
      return JSON.stringify({
        stopped: provider.name,
        provider_id: provider.name,
        reason: "shutdown",
      });
    case "registry_tools": {
      const tools = offeredTools(await provider.listTools(), provider.config.tools);
      const head = JSON.stringify({ ...names(provider), state: provider.facts.state });
      return withTools(head, tools);
    }
    case "registry_details":
      return details(registered);
    default:
      throw new HangarError("internal", `registry tool ${tool} has no code`);
  }
}

type ProviderOf = Registered["provider"];

/** Both spellings: the original's code said `provider`, its documentation `provider_id`. */
function names({ name }: ProviderOf): { provider: string; provider_id: string } {
  return { provider: name, provider_id: name };
}

/** The object `head` with the tools' own definitions as its member `tools`, byte for byte. */
function withTools(head: string, tools: readonly Tool[]): string {
  return `${head.slice(0, -1)},"tools":[${tools.map(({ text }) => text).join(",")}]}`;
}

function list(registry: Registry, filter: State | undefined): string {
  const providers = [...registry.values()]
    .map(({ provider }) => ({ provider, facts: provider.facts }))
    .filter(({ facts }) => filter === undefined || facts.state === filter)
    .map(({ provider, facts }) => ({
      ...names(provider),
      state: facts.state,
      mode: provider.config.mode,
      alive: facts.running,
      is_alive: facts.running,
      tools_count: offeredTools(provider.tools, provider.config.tools).length,
      health_status: healthStatus(facts),
      ...(provider.config.description === undefined
        ? {}
        : { description: provider.config.description }),
      ...(facts.reason === undefined ? {} : { reason: facts.reason }),
    }));
  return JSON.stringify({ providers, groups: [] });
}

function healthStatus({ state, failures }: ProviderFacts): string {
  switch (state) {
    case "ready":
      return failures === 0 ? "healthy" : "degraded";
    case "degraded":
      return "degraded";
    case "dead":
      return "unhealthy";
    default:
      return "unknown";
  }
}

function details({ provider, gate }: Registered): string {
  const facts = provider.facts;
  const breaker = gate.breaker();
  const { calls, failedCalls, retryAt } = facts;
  const now = Date.now();
  const ago = (at: number | undefined): number | null =>
    at === undefined ? null : (now - at) / 1000;
  const seconds = (at: number | undefined): number | null => (at === undefined ? null : at / 1000);
  const retryIn = retryAt === undefined ? null : Math.max(0, (retryAt - now) / 1000);
  const { handshake } = facts;
  const head = JSON.stringify({
    ...names(provider),
    state: facts.state,
    since: seconds(facts.since),
    reason: facts.reason ?? null,
    mode: provider.config.mode,
    description: provider.config.description ?? null,
    alive: facts.running,
    is_alive: facts.running,
    run: facts.run,
    restarts: facts.restarts,
    in_flight: facts.inFlight,
    queued: gate.queued(),
    retries: gate.retries(),
    circuit_breaker: {
      state: breaker.state,
      forced: breaker.forced,
      calls: breaker.calls,
      failures: breaker.failures,
      retry_after_s: breaker.retryAfterMs / 1000,
    },
    dead_because: facts.cause ?? null,
    health_status: healthStatus(facts),
    health: {
      consecutive_failures: facts.failures,
      total_invocations: calls,
      total_failures: failedCalls,
      success_rate: calls === 0 ? 1 : (calls - failedCalls) / calls,
      can_retry: facts.state !== "dead" && (retryIn === null || retryIn === 0),
      time_until_retry: retryIn,
      last_success_ago: ago(facts.succeededAt),
      last_failure_ago: ago(facts.failedAt),
      last_success_at: seconds(facts.succeededAt),
      last_failure_at: seconds(facts.failedAt),
      noisy: facts.noiseLines >= NOISY_LINES,
    },
    idle_time: facts.running && facts.inFlight === 0 ? ago(facts.usedAt) : null,
    last_exit:
      facts.lastExit === undefined
        ? null
        : { exit_code: facts.lastExit.code, signal: facts.lastExit.signal },
    stderr: facts.stderr,
    noise_lines: facts.noiseLines,
  });
  const meta = JSON.stringify({
    protocol: handshake?.era ?? null,
    protocol_version: handshake?.version ?? null,
    tools_count: offeredTools(provider.tools, provider.config.tools).length,
    started_at: seconds(facts.startedAt),
  });
  const init = `"meta":${meta.slice(0, -1)},"init_result":${handshake?.text ?? "{}"}}`;
  const whole = withTools(head, offeredTools(provider.tools, provider.config.tools));
  return `${whole.slice(0, -1)},${init}}`;
}

function health(registry: Registry): string {
  const by_state: Record<State, number> = {
    cold: 0,
    initializing: 0,
    ready: 0,
    degraded: 0,
    dead: 0,
  };
  for (const { provider } of registry.values()) by_state[provider.facts.state]++;
  return JSON.stringify({
    status: by_state.degraded + by_state.dead === 0 ? "healthy" : "degraded",
    providers: { total: registry.size, ...by_state, by_state },
    groups: { total: 0, by_state: {}, total_members: 0, healthy_members: 0 },
  });
}

function errorResult(
  error: HangarError,
  provider_id: string | null,
  operation: string,
  era: Era,
): string {
  const structured = JSON.stringify({
    error: error.message,
    provider_id,
    operation,
    details: error.details,
    type: ERRORS[error.code].type,
    code: error.code,
    ...(error.retryAfterMs === undefined ? {} : { retryAfterMs: Math.ceil(error.retryAfterMs) }),
    ...(error.sent ? { sent: true } : {}),
  });
  return toolResult(structured, era, true);
}

/** A tool result with `structured`, a JSON object's text, as structured content and as text for those who cannot read it. */
function toolResult(structured: string, era: Era, isError = false): string {
  const content = `{"content":[{"type":"text","text":${JSON.stringify(structured)}}],"structuredContent":${structured}`;
  return complete(`${content}${isError ? ',"isError":true' : ""}}`, era);
}

/** One of our own results, a JSON object's text, with what modern clients require of every result. */
function complete(result: string, era: Era): string {
  if (era === "legacy") return result;
  const members = `"resultType":"complete","_meta":{"${META.serverInfo}":${SERVER_INFO}},`;
  return `{${members}${result.slice(1)}`;
}

/** A legacy provider's result for a modern client, which requires that it says its type. */
function withResultType(result: string, members: Members): string {
  return `{"resultType":"complete"${members.size > 0 ? "," : ""}${result.slice(1)}`;
}

/** A modern provider's result for a legacy client, which knows no types of results. */
function withoutResultType(result: string, members: Members): string {
  const others = [...members]
    .filter(([key]) => key !== "resultType")
    .map(([key, span]) => `${JSON.stringify(key)}:${textOf(result, span)}`);
  return `{${others.join(",")}}`;
}

function reply(text: string): Reply {
  return { kind: "reply", isError: false, text };
}
