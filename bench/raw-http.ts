/** What `node:http` itself costs here: the same echo, and no MCP besides. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { echoReply } from "./echo.ts";

const server = createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.on("end", () => {
    const body = Buffer.concat(echoReply(Buffer.concat(chunks)));
    response
      .writeHead(200, { "Content-Type": "application/json", "Content-Length": body.length })
      .end(body);
  });
});
server.listen(0, "127.0.0.1", () => {
  process.stdout.write(`http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp\n`);
});
process.stdin.on("end", () => process.exit()).resume();
