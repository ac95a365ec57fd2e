import type { Front } from "../front/front.ts";
import { VERSION } from "../version.ts";
import { EXIT } from "./exit-code.ts";
import { HangarError } from "../errors.ts";
import { parsePort } from "./port.ts";
import { type CommonOptions, open, type Opened } from "./open.ts";
import { firstSignal } from "./signal.ts";
import { bearerToken } from "./token.ts";

export interface ServeOptions extends CommonOptions {
  readonly http?: boolean;
  readonly host?: string;
  readonly port?: number;
  /** The one provider to serve on stdio, as if the client had started it itself. */
  readonly provider?: string;
}

const DEFAULT_HOST = "0.0.0.0";
const DEFAULT_PORT = 8000;

/** Serves until the client goes (stdio) or a signal comes; a second signal ends at once. */
export async function serve(options: ServeOptions): Promise<number> {
  const http = options.http === true || process.env["MCP_MODE"] === "http";
  if (http && options.provider !== undefined) {
    const why = "--provider is for stdio; over HTTP each provider has its own address, /mcp/<name>";
    throw new HangarError("invalid_arguments", why);
  }
  const signalled = firstSignal(EXIT.failure);
  const opened = open(options);
  const { hangar, tell } = opened;
  process.on("unhandledRejection", (error) => tell({ type: "defect", error }));
  process.on("uncaughtException", (error) => {
    tell({ type: "defect", error });
    process.exit(EXIT.failure);
  });
  const front: Front = http
    ? await serveHttp(opened, options)
    : hangar.serveStdio({ input: process.stdin, output: process.stdout }, options.provider);
  const reason = await Promise.race([
    signalled,
    front.closed.then(() => "the client closed the connection"),
  ]);
  await hangar.close(reason);
  process.stdin.destroy();
  // A client that has stopped reading must not keep Hangar alive.
  if (process.stdout.writableLength + process.stderr.writableLength > 0) process.exit(EXIT.ok);
  return EXIT.ok;
}

async function serveHttp(opened: Opened, options: ServeOptions): Promise<Front> {
  const { hangar, loaded, stateDir } = opened;
  const host = options.host ?? (process.env["MCP_HTTP_HOST"] || DEFAULT_HOST);
  const port = options.port ?? portFromEnv(process.env["MCP_HTTP_PORT"]) ?? DEFAULT_PORT;
  const { token, news } = bearerToken(stateDir, process.env["MCP_HANGAR_TOKEN"]);
  // Before anything can fail: a token that was made is kept, and told only this once.
  if (news !== undefined) process.stderr.write(`${news}\n`);
  const front = await hangar.serveHttp({ host, port, token });
  const names = [...hangar.registry.keys()];
  const first = names[0];
  // In another terminal nothing else says which configuration is meant.
  const named = options.config ?? (process.env["MCP_CONFIG"] || undefined);
  const config = named === undefined ? "" : ` --config ${shellWord(loaded.file ?? named)}`;
  const lines = [
    `MCP Hangar ${VERSION} serves ${front.url}`,
    `  configuration: ${loaded.file ?? "none, so the built-in example"}`,
    `  providers: ${names.join(", ") || "none"}`,
    "Try next, in another terminal:",
    ...(first === "math" ? [`  npx mcp-hangar call math add '{"a": 5, "b": 3}'${config}`] : []),
    `  npx mcp-hangar tools ${first ?? "<provider>"}${config}`,
    `Or give this to an MCP client: {"mcpServers": {"mcp-hangar": {"url": "${front.url}"}}}`,
  ];
  process.stderr.write(`${lines.join("\n")}\n`);
  return front;
}

/** `text` as one word for a shell. */
function shellWord(text: string): string {
  return /^[\w./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

function portFromEnv(value: string | undefined): number | undefined {
  if (value === undefined || value === "") return undefined;
  const port = parsePort(value);
  if (port !== undefined) return port;
  throw new HangarError("config_invalid", `MCP_HTTP_PORT must be a port number, found ${value}`);
}
