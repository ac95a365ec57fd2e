/** The tools of the chaos server: what it does when it behaves, and the ways to misbehave that a call asks for. */
import { setTimeout as sleep } from "node:timers/promises";

/** What a running tool may use. */
interface ToolCall {
  /** The text of `arguments` as it came. */
  readonly raw: string;
  /** Aborted when nobody waits for the answer any more. */
  readonly signal: AbortSignal;
  /** Notes that the tool has done something with `key`. */
  readonly record: (tool: string, key: string) => void;
  /** Tells whoever asked for progress. */
  readonly progress: (done: number, total: number) => void;
  /** Process ids of the server's children. */
  readonly children: readonly number[];
}

interface Parameter {
  readonly type: "string" | "integer";
  readonly description: string;
  readonly minimum?: number;
  readonly maximum?: number;
}

interface Tool {
  readonly description: string;
  /** As tools/list gives them. */
  readonly annotations?: Readonly<Record<string, boolean>>;
  readonly parameters: Readonly<Record<string, Parameter>>;
  readonly required?: readonly string[];
  /** Gives the result, the text of an object. */
  run(args: Arguments, call: ToolCall): string | Promise<string>;
}

/** Checked against the parameters; what the tool requires is there. */
type Arguments = Readonly<Record<string, string | number | undefined>>;

/** A request that is answered with a JSON-RPC error. */
export class RequestError extends Error {
  readonly code: number;
  /** The HTTP status it has in the modern era. */
  readonly status: number;
  readonly data: unknown;
  constructor(code: number, message: string, status = 200, data?: unknown) {
    super(message);
    this.code = code;
    this.status = status;
    this.data = data;
  }
}

export const INVALID_PARAMS = -32602;
const MAX_MS = 2 ** 31 - 1;
const MAX_BYTES = 256 * 1024 * 1024;

const MS: Parameter = { type: "integer", description: "Milliseconds", minimum: 0, maximum: MAX_MS };
const KEY: Parameter = { type: "string", description: "Which one; `default` unless told" };

const counters = new Map<string, number>();
const stored = new Map<string, string>();

export const TOOLS: Readonly<Record<string, Tool>> = {
  echo: {
    description: "Returns its arguments, byte for byte, as structured content and as text",
    annotations: { readOnlyHint: true },
    parameters: {},
    run: (_, { raw }) => structured(raw),
  },
  sleep: {
    description: "Returns after that time",
    annotations: { readOnlyHint: true },
    parameters: { ms: MS },
    required: ["ms"],
    run: async ({ ms }, { signal }) => {
      await sleep(Number(ms), undefined, { signal }).catch(() => undefined);
      return structuredOf({ slept_ms: ms });
    },
  },
  count: {
    description: "Adds 1 to a counter and returns it; calling it twice is not calling it once",
    annotations: { readOnlyHint: false, destructiveHint: false, idempotentHint: false },
    parameters: { key: KEY },
    run: ({ key = "default" }, { record }) => {
      const name = String(key);
      const value = (counters.get(name) ?? 0) + 1;
      counters.set(name, value);
      record("count", name);
      return structuredOf({ key: name, value });
    },
  },
  read: {
    description: "Returns what `put` has stored, or null",
    annotations: { readOnlyHint: true },
    parameters: { key: KEY },
    run: ({ key = "default" }, { record }) => {
      record("read", String(key));
      return structuredOf({ key, value: stored.get(String(key)) ?? null });
    },
  },
  put: {
    description: "Stores a value; calling it twice is calling it once",
    annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: true },
    parameters: { key: KEY, value: { type: "string", description: "What to store" } },
    required: ["value"],
    run: ({ key = "default", value }, { record }) => {
      stored.set(String(key), String(value));
      record("put", String(key));
      return structuredOf({ key, value });
    },
  },
  fail: {
    description: "Returns a result that is an error (`isError`)",
    parameters: {},
    run: () => '{"content":[{"type":"text","text":"failed as told"}],"isError":true}',
  },
  error: {
    description: "Is answered with a JSON-RPC error of that code",
    parameters: { code: { type: "integer", description: "The code; -32603 unless told" } },
    run: ({ code = -32603 }) => {
      throw new RequestError(Number(code), "failed as told");
    },
  },
  progress: {
    description: "Reports progress that many times, and then returns",
    annotations: { readOnlyHint: true },
    parameters: {
      steps: { type: "integer", description: "How often", minimum: 0 },
      every_ms: { ...MS, description: "Milliseconds before each report; 0 unless told" },
    },
    required: ["steps"],
    run: async ({ steps, every_ms = 0 }, { signal, progress }) => {
      for (let step = 1; step <= Number(steps) && !signal.aborted; step += 1) {
        await sleep(Number(every_ms), undefined, { signal }).catch(() => undefined);
        progress(step, Number(steps));
      }
      return structuredOf({ steps });
    },
  },
  big: {
    description: "Returns a text of that many bytes",
    annotations: { readOnlyHint: true },
    parameters: {
      bytes: { type: "integer", description: "How many", minimum: 0, maximum: MAX_BYTES },
    },
    required: ["bytes"],
    run: ({ bytes }) => `{"content":[{"type":"text","text":"${"x".repeat(Number(bytes))}"}]}`,
  },
  exit: {
    description: "Ends the process at once, without an answer",
    parameters: {
      code: { type: "integer", description: "1 unless told", minimum: 0, maximum: 255 },
    },
    run: ({ code = 1 }) => process.exit(Number(code)),
  },
  pid: {
    description: "Returns the ids of the process and of the children that flags made it start",
    annotations: { readOnlyHint: true },
    parameters: {},
    run: (_, { children }) => structuredOf({ pid: process.pid, children }),
  },
  block: {
    description: "Does nothing else for that time: no other message is read or answered",
    annotations: { readOnlyHint: true },
    parameters: { ms: MS },
    required: ["ms"],
    run: ({ ms }) => {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Number(ms));
      return structuredOf({ blocked_ms: ms });
    },
  },
};

/** How tools/list describes the tool of that name; one that is not in the table takes no arguments. */
export function describeTool(name: string): object {
  const tool = Object.hasOwn(TOOLS, name) ? TOOLS[name] : undefined;
  const { description = "Returns its name", parameters = {}, required, annotations } = tool ?? {};
  const inputSchema = {
    type: "object",
    properties: parameters,
    ...(required === undefined ? {} : { required }),
  };
  return { name, description, inputSchema, ...(annotations === undefined ? {} : { annotations }) };
}

/** Runs the tool of that name with the arguments that `call.raw` is the text of. */
export async function runTool(name: string, call: ToolCall): Promise<string> {
  const tool = TOOLS[name];
  if (tool === undefined) return structuredOf({ tool: name });
  return await tool.run(checked(tool, JSON.parse(call.raw)), call);
}

function checked({ parameters, required = [] }: Tool, args: unknown): Arguments {
  if (typeof args !== "object" || args === null || Array.isArray(args)) {
    throw new RequestError(INVALID_PARAMS, "`arguments` must be an object");
  }
  const given = args as Record<string, unknown>;
  for (const [key, { type, minimum = -Infinity, maximum = Infinity }] of Object.entries(
    parameters,
  )) {
    const value = given[key];
    const fits =
      value === undefined
        ? !required.includes(key)
        : type === "string"
          ? typeof value === "string"
          : Number.isInteger(value) && Number(value) >= minimum && Number(value) <= maximum;
    if (fits) continue;
    const what = `\`${key}\` must be ${type === "string" ? "a string" : "a whole number"}`;
    const range = minimum === -Infinity ? "" : ` from ${minimum}`;
    const most = maximum === Infinity ? "" : ` to ${maximum}`;
    throw new RequestError(INVALID_PARAMS, `${what}${range}${most}`);
  }
  return given as Arguments;
}

function structuredOf(value: object): string {
  return structured(JSON.stringify(value));
}

/** A result whose structured content is the text `json`, and whose text is it too. */
function structured(json: string): string {
  const text = JSON.stringify(json);
  return `{"content":[{"type":"text","text":${text}}],"structuredContent":${json}}`;
}
