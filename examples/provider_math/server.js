#!/usr/bin/env node
// A whole MCP server without dependencies: one JSON-RPC 2.0 message per line on stdin and stdout.
// It speaks both families of protocol revisions: legacy (`initialize` first) and modern (each
// request describes itself in `params._meta`). Run it by hand, type a request, and see.
import { createInterface } from "node:readline";

const SERVER_INFO = { name: "provider-math", title: "Math", version: "1.0.0" };
const CAPABILITIES = { tools: {} };
const LEGACY_VERSIONS = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
const MODERN_VERSIONS = ["2026-07-28"];
const META = "io.modelcontextprotocol/";
/** The list never changes while the program runs, so anyone may keep it for an hour. */
const CACHE = { ttlMs: 3_600_000, cacheScope: "public" };

const TOOLS = [
  binaryTool("add", "Add", "Adds two numbers.", ["a", "b"], (a, b) => a + b),
  binaryTool("subtract", "Subtract", "Subtracts b from a.", ["a", "b"], (a, b) => a - b),
  binaryTool("multiply", "Multiply", "Multiplies two numbers.", ["a", "b"], (a, b) => a * b),
  binaryTool("divide", "Divide", "Divides a by b.", ["a", "b"], (a, b) => {
    if (b === 0) throw new ToolError("division by zero");
    return a / b;
  }),
  binaryTool("power", "Power", "Raises base to exponent.", ["base", "exponent"], (a, b) => a ** b),
];

/** A tool that fails says so in its result, for the model to read; the protocol itself went well. */
class ToolError extends Error {}

/** A request that cannot be answered gets a JSON-RPC error. */
class RequestError extends Error {
  constructor(code, message, data) {
    super(message);
    this.code = code;
    this.data = data;
  }
}

function binaryTool(name, title, description, parameters, compute) {
  const properties = Object.fromEntries(parameters.map((key) => [key, { type: "number" }]));
  const outputProperties = { result: { type: "number" } };
  return {
    compute,
    parameters,
    definition: {
      name,
      title,
      description,
      inputSchema: { type: "object", properties, required: parameters },
      outputSchema: { type: "object", properties: outputProperties, required: ["result"] },
      annotations: { title, readOnlyHint: true, idempotentHint: true, openWorldHint: false },
    },
  };
}

function callTool({ name, arguments: args = {} }) {
  const tool = TOOLS.find((candidate) => candidate.definition.name === name);
  if (tool === undefined) throw new RequestError(-32602, `unknown tool: ${name}`);
  try {
    const operands = tool.parameters.map((key) => {
      if (typeof args[key] !== "number") throw new ToolError(`${key} must be a number`);
      return args[key];
    });
    const output = { result: tool.compute(...operands) };
    if (!Number.isFinite(output.result)) throw new ToolError("the result is not a finite number");
    return {
      content: [{ type: "text", text: JSON.stringify(output) }],
      structuredContent: output,
    };
  } catch (error) {
    if (!(error instanceof ToolError)) throw error;
    return { content: [{ type: "text", text: error.message }], isError: true };
  }
}

const listTools = () => ({ tools: TOOLS.map((tool) => tool.definition) });

/** Revisions up to 2025-11-25: a handshake first, then requests that say nothing about themselves. */
function answerLegacy(method, params) {
  switch (method) {
    case "initialize": {
      const asked = params.protocolVersion;
      const protocolVersion = LEGACY_VERSIONS.includes(asked) ? asked : LEGACY_VERSIONS[0];
      return { protocolVersion, capabilities: CAPABILITIES, serverInfo: SERVER_INFO };
    }
    case "ping":
      return {};
    case "tools/list":
      return listTools();
    case "tools/call":
      return callTool(params);
    default:
      throw new RequestError(-32601, `method not found: ${method}`);
  }
}

/** Revision 2026-07-28: no handshake, and each result says what it is. */
function answerModern(method, params) {
  const requested = params._meta[`${META}protocolVersion`];
  if (!MODERN_VERSIONS.includes(requested)) {
    const data = { supported: MODERN_VERSIONS, requested };
    throw new RequestError(-32022, `unsupported protocol version: ${requested}`, data);
  }
  if (params._meta[`${META}clientCapabilities`] === undefined) {
    throw new RequestError(-32602, `missing _meta["${META}clientCapabilities"]`);
  }
  const complete = { resultType: "complete", _meta: { [`${META}serverInfo`]: SERVER_INFO } };
  switch (method) {
    case "server/discover":
      return {
        ...complete,
        supportedVersions: MODERN_VERSIONS,
        capabilities: CAPABILITIES,
        ...CACHE,
      };
    case "tools/list":
      return { ...complete, ...listTools(), ...CACHE };
    case "tools/call":
      return { ...complete, ...callTool(params) };
    default:
      throw new RequestError(-32601, `method not found: ${method}`);
  }
}

function answer(line) {
  let message;
  try {
    message = JSON.parse(line);
  } catch {
    send({ jsonrpc: "2.0", id: null, error: { code: -32700, message: "not JSON" } });
    return;
  }
  const { id, method, params = {} } = message;
  if (id === undefined || method === undefined) return; // a notification, or an answer to nothing we asked
  const modern = params._meta?.[`${META}protocolVersion`] !== undefined;
  try {
    const result = modern ? answerModern(method, params) : answerLegacy(method, params);
    send({ jsonrpc: "2.0", id, result });
  } catch (error) {
    const { code = -32603, message: text, data } = error;
    send({ jsonrpc: "2.0", id, error: { code, message: text, data } });
  }
}

function send(message) {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

// When stdin ends, nothing is left to wait for, and the process ends by itself.
createInterface({ input: process.stdin }).on("line", (line) => {
  if (line.trim() !== "") answer(line);
});
