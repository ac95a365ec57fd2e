/**
 * The generated files: reference pages and the JSON Schema, each from the one table in src that defines it.
 * `npm run docs` writes them; `--check` compares and names what is stale.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { FLAG_ROWS, GROUPS } from "../src/chaos/flags.ts";
import { TOOLS } from "../src/chaos/tools.ts";
import { configReference } from "../src/config/schema.ts";
import { ERRORS } from "../src/errors.ts";
import { REGISTRY_TOOLS } from "../src/front/registry-tools.ts";
import { schemaText } from "./schema.ts";

const root = join(import.meta.dirname, "..");

function generatedFrom(source: string): string {
  return `<!-- Generated from ${source} by \`npm run docs\`. Do not edit. -->`;
}

/** A Markdown table; a cell may hold anything but line breaks. */
function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  return [head, head.map(() => "---"), ...rows].map(tableRow).join("\n");
}

function tableRow(cells: readonly string[]): string {
  return `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
}

function configurationPage(): string {
  const rows = configReference().map(({ key, type, default: preset, description }) => [
    `\`${key}\``,
    type,
    preset === "" || preset === "required" ? preset : `\`${preset}\``,
    description,
  ]);
  return `${generatedFrom("src/config/schema.ts")}

# Configuration

Hangar reads the file named by \`--config\`, or else by \`MCP_CONFIG\`, or else \`config.yaml\` in the current folder.
With no file at all it serves its built-in example provider, \`math\`.
Relative paths in a file are relative to the folder the file is in.
A key that is not in this table is an error that names its line.

\`mcp-hangar config check\` reports every problem of a file at once.
For completion in an editor, write the schema beside the file with \`mcp-hangar config schema > config.schema.json\` and
begin the file with:

\`\`\`yaml
# yaml-language-server: $schema=./config.schema.json
\`\`\`

In every string \`\${NAME}\` stands for that environment variable, \`\${NAME:-default}\` gives it a default, and \`$\${\`
stands for a literal \`\${\`. A value that was put in is not expanded again.

${table(["Key", "Type", "Default", "Meaning"], rows)}
`;
}

function troubleshootingPage(): string {
  const sections = Object.entries(ERRORS).map(
    ([code, { type, jsonrpc, http, retryable, cause, fix }]) => `### \`${code}\`

${cause}

**What to do:** ${fix}

\`${type}\`, JSON-RPC ${jsonrpc}, HTTP ${http}, ${retryable ? "may succeed when repeated" : "repeating alone does not help"}.`,
  );
  return `${generatedFrom("src/errors.ts")}

# Troubleshooting

Every error of Hangar's own carries a stable code: \`error.data.code\` in a JSON-RPC error, and \`code\` in the error
object that a \`registry_*\` tool returns. The message beside it has the particulars: exit code, last lines of output, the line of
the configuration file.

Four commands answer most questions:

- \`mcp-hangar config check\` shows every problem of the configuration.
- \`mcp-hangar tools <provider>\` starts one provider by itself and lists its tools, or says why it does not start.
- \`mcp-hangar logs <provider>\` shows what a provider printed, and when it started and ended.
- \`mcp-hangar serve --log-level debug\` logs, on stderr, every start and exit, and what the providers print.

An error with any other code, or without one, comes from the provider and is passed through as it came.

## Errors by code

${sections.join("\n\n")}
`;
}

type Tool = (typeof REGISTRY_TOOLS)[number];
type Parameter = Tool["inputSchema"]["properties"][string];

function typeOf(parameter: Parameter): string {
  return parameter.enum?.map((value) => `\`${value}\``).join(", ") ?? parameter.type;
}

function defaultOf(parameter: Parameter): string {
  return parameter.default === undefined ? "" : `\`${JSON.stringify(parameter.default)}\``;
}

/** The members every result of a tool has; of the tools that say so. */
function returnsOf(outputSchema: Tool["outputSchema"]): string {
  if (outputSchema === undefined) return "Returns what the provider's tool returns.";
  const { anyOf } = outputSchema as { anyOf: [{ required: string[] }] };
  return `Returns ${anyOf[0].required.map((member) => `\`${member}\``).join(", ")}.`;
}

function toolSection({ name, description, inputSchema, outputSchema, annotations }: Tool): string {
  const { properties, required = [] } = inputSchema;
  const rows = Object.entries(properties).map(([key, parameter]) => [
    `\`${key}\``,
    typeOf(parameter),
    required.includes(key) ? "required" : defaultOf(parameter),
    parameter.description,
  ]);
  const parameters =
    rows.length === 0 ? "No parameters." : table(["Parameter", "Type", "Default", "Meaning"], rows);
  const hints = Object.entries(annotations).map(([hint, value]) => `\`${hint}: ${value}\``);
  const facts = `${returnsOf(outputSchema)}\n\nAnnotations: ${hints.join(", ")}.`;
  return [`## \`${name}\``, description, parameters, facts].join("\n\n");
}

function toolsPage(): string {
  const overview = REGISTRY_TOOLS.map(({ name, title }) => [`[\`${name}\`](#${name})`, title]);
  return `${generatedFrom("src/front/registry-tools.ts")}

# Registry tools

The tools Hangar itself offers to every client, at \`/mcp\` and on stdio. Their number does not grow with the providers'.
Results come as \`structuredContent\` and, for clients that do not read it, as the same JSON in a text.

A failure is a result with \`isError: true\` and an error object instead: \`error\` (a sentence), \`code\` (see
[Troubleshooting](../TROUBLESHOOTING.md)), \`type\`, \`provider_id\`, \`operation\`, \`details\`, and \`retryAfterMs\` where waiting helps.

${table(["Tool", "What it does"], overview)}

${REGISTRY_TOOLS.map(toolSection).join("\n\n")}
`;
}

function chaosPage(): string {
  const groups = Object.entries(GROUPS).map(([group, title]) => {
    const flags = FLAG_ROWS.filter(({ flag }) => flag.group === group);
    const rows = flags.map(({ usage, flag }) => [`\`${usage}\``, flag.says]);
    return `### ${title}\n\n${table(["Flag", "The server"], rows)}`;
  });
  const tools = Object.entries(TOOLS).map(([name, { description, parameters, annotations }]) => [
    `\`${name}\``,
    Object.keys(parameters)
      .map((key) => `\`${key}\``)
      .join(", "),
    description,
    Object.entries(annotations ?? {})
      .map(([hint, value]) => `\`${hint}: ${value}\``)
      .join(", "),
  ]);
  return `${generatedFrom("src/chaos/")}

# The chaos server

\`mcp-hangar chaos-server\` is an MCP server that misbehaves as its flags say.
[How to test a gateway with it](../guide/chaos-server.md).

## Flags

They can be combined. A flag of the group that \`--on\` is about strikes the answers to tools/call unless \`--on\` names other methods.

${groups.join("\n\n")}

## Tools

${table(["Tool", "Arguments", "What it does", "Annotations"], tools)}
`;
}

const files: Record<string, string> = {
  "docs/TROUBLESHOOTING.md": troubleshootingPage(),
  "docs/reference/chaos-server.md": chaosPage(),
  "docs/reference/configuration.md": configurationPage(),
  "docs/reference/tools.md": toolsPage(),
  "schema/config.schema.json": schemaText(),
};

function isCurrent(path: string, text: string): boolean {
  return existsSync(path) && readFileSync(path, "utf8") === text;
}

const stale = Object.entries(files).filter(([path, text]) => !isCurrent(join(root, path), text));
if (process.argv.includes("--check")) {
  for (const [path] of stale) process.stderr.write(`${path} is stale: run \`npm run docs\`\n`);
  process.exitCode = stale.length === 0 ? 0 : 1;
} else {
  for (const [path, text] of stale) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
    process.stdout.write(`wrote ${path}\n`);
  }
}
if (process.exitCode !== 1)
  process.stdout.write(`${Object.keys(files).length} files are current\n`);
