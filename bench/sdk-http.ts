/** The same tool as the official SDK serves it by itself: its Streamable HTTP transport, with sessions, answering with JSON. */
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import * as z from "zod";

const sessions = new Map<string, StreamableHTTPServerTransport>();

async function openSession(): Promise<StreamableHTTPServerTransport> {
  const transport: StreamableHTTPServerTransport = new StreamableHTTPServerTransport({
    sessionIdGenerator: randomUUID,
    enableJsonResponse: true,
    onsessioninitialized: (id) => void sessions.set(id, transport),
  });
  const server = new McpServer({ name: "echo", version: "1.0.0" });
  const inputSchema = { text: z.string() };
  server.registerTool("echo", { description: "Returns the text.", inputSchema }, ({ text }) => ({
    content: [{ type: "text", text }],
  }));
  await server.connect(transport);
  return transport;
}

const server = createServer((request, response) => {
  const known = sessions.get(String(request.headers["mcp-session-id"]));
  const handled = (known === undefined ? openSession() : Promise.resolve(known)).then((transport) =>
    transport.handleRequest(request, response),
  );
  handled.catch((error: unknown) => {
    process.stderr.write(`${String(error)}\n`);
    response.destroy();
  });
});
server.listen(0, "127.0.0.1", () => {
  process.stdout.write(`http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp\n`);
});
process.stdin.on("end", () => process.exit()).resume();
