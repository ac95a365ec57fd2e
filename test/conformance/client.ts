/**
 * The client of the suite's client scenarios: `node client.ts direct|hangar <url>`. It uses whatever the
 * scenario's server offers, straight or through a Hangar that it starts for this one run.
 */
import { Client, StreamableHTTPClientTransport, type Tool } from "@modelcontextprotocol/client";
import { startHangar } from "./programs.ts";

/** Below the suite's own limit, so that Hangar is always stopped by us. */
const LIMIT_MS = 100_000;
const ARGUMENTS = { string: "text", number: 1.5, integer: 1, boolean: true, array: [], object: {} };

interface ToolCall {
  readonly name: string;
  readonly arguments: Record<string, unknown>;
}

/** What some scenarios pass along besides the address. */
interface Context {
  readonly toolCalls?: readonly ToolCall[];
}

async function useEverything(url: string, revision: string, context: Context): Promise<void> {
  const client = new Client(
    { name: "conformance-client", version: "1.0.0" },
    {
      capabilities: {
        elicitation: { form: { applyDefaults: true } },
        roots: {},
        sampling: {},
      },
      versionNegotiation: { mode: revision < "2026" ? "legacy" : "auto" },
    },
  );
  client.setRequestHandler("elicitation/create", () => ({ action: "accept", content: {} }));
  await client.connect(new StreamableHTTPClientTransport(new URL(url)));
  try {
    const capabilities = client.getServerCapabilities();
    if (capabilities?.tools) {
      const { tools } = await client.listTools();
      const calls = context.toolCalls ?? tools.map((tool) => callOf(tool, tools));
      for (const call of calls) await attempt(() => client.callTool(call));
    }
    if (capabilities?.resources) {
      const { resources } = await client.listResources();
      for (const { uri } of resources) await attempt(() => client.readResource({ uri }));
    }
    if (capabilities?.prompts) {
      const { prompts } = await client.listPrompts();
      for (const { name } of prompts) await attempt(() => client.getPrompt({ name }));
    }
  } finally {
    await client.close();
  }
}

/** A call with something for every argument. */
function callOf({ name, inputSchema }: Tool, tools: readonly Tool[]): ToolCall {
  // This one wants to see what has become of another tool's schema on its way here.
  if (name === "json_schema_echo") {
    const schema = tools.find((tool) => tool.name === "json_schema_2020_12_tool")?.inputSchema;
    return { name, arguments: { schema } };
  }
  const properties = Object.entries(inputSchema.properties ?? {}).map(([key, schema]) => {
    const { type } = schema as { type?: keyof typeof ARGUMENTS };
    return [key, ARGUMENTS[type ?? "object"]];
  });
  return { name, arguments: Object.fromEntries(properties) };
}

/** Some scenarios answer with an error and look at what the client does next. */
async function attempt(call: () => Promise<unknown>): Promise<void> {
  try {
    await call();
  } catch (error) {
    process.stderr.write(`${String(error)}\n`);
  }
}

/** Rejects when the time is up, or when the suite says so. */
function tooLong(): Promise<never> {
  return new Promise((_, reject) => {
    setTimeout(() => reject(new Error(`not done within ${LIMIT_MS} ms`)), LIMIT_MS).unref();
    process.once("SIGTERM", () => reject(new Error("ended by the suite")));
  });
}

const [via, endpoint] = process.argv.slice(2);
if (endpoint === undefined) throw new Error("no address");
const revision = process.env["MCP_CONFORMANCE_PROTOCOL_VERSION"] ?? "";
const context = JSON.parse(process.env["MCP_CONFORMANCE_CONTEXT"] ?? "{}") as Context;
const hangar =
  via === "hangar" ? await startHangar("conformance", { mode: "remote", endpoint }) : undefined;
try {
  await Promise.race([useEverything(hangar?.url ?? endpoint, revision, context), tooLong()]);
} catch (error) {
  process.stderr.write(`${String(error)}\n`);
  process.exitCode = 1;
} finally {
  await hangar?.stop();
}
process.exit();
