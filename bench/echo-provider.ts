/** The provider of all arms: one tool, `echo`, on stdio. It reads and writes blocking, which is the fastest way Node has. */
import { readSync, writevSync } from "node:fs";
import { echoReply } from "./echo.ts";

const NEWLINE = Buffer.from("\n");
/** Longer than the longest line. */
const MAX_BYTES = 32 * 1024 * 1024;

const TOOL = {
  name: "echo",
  description: "Returns the text.",
  inputSchema: { type: "object", properties: { text: { type: "string" } }, required: ["text"] },
};

function answer(line: Buffer): Buffer[] {
  if (line.includes('"method":"tools/call"')) return [...echoReply(line), NEWLINE];
  const { id, method, params } = JSON.parse(line.toString("utf8")) as {
    id?: unknown;
    method: string;
    params?: { protocolVersion?: string };
  };
  if (id === undefined) return [];
  return [Buffer.from(`${JSON.stringify({ jsonrpc: "2.0", id, ...outcome(method, params) })}\n`)];
}

function outcome(method: string, params?: { protocolVersion?: string }): object {
  switch (method) {
    case "initialize":
      return {
        result: {
          protocolVersion: params?.protocolVersion,
          capabilities: { tools: {} },
          serverInfo: { name: "echo", version: "1.0.0" },
        },
      };
    case "tools/list":
      return { result: { tools: [TOOL] } };
    case "ping":
      return { result: {} };
    default:
      return { error: { code: -32_601, message: `Method not found: ${method}` } };
  }
}

/** All of it, also when the system takes only a part. */
function write(pieces: Buffer[]): void {
  const bytes = pieces.reduce((sum, piece) => sum + piece.length, 0);
  let written = pieces.length === 0 ? 0 : writevSync(1, pieces);
  while (written < bytes) written += writevSync(1, [Buffer.concat(pieces).subarray(written)]);
}

const input = Buffer.allocUnsafe(MAX_BYTES);
let filled = 0;
for (;;) {
  const read = readSync(0, input, filled, MAX_BYTES - filled, null);
  if (read === 0) break; // end of input, or a line that does not fit
  const end = filled + read;
  const data = input.subarray(0, end);
  const replies: Buffer[] = [];
  let start = 0;
  let newline = data.indexOf(NEWLINE, filled);
  while (newline >= 0) {
    replies.push(...answer(data.subarray(start, newline)));
    start = newline + 1;
    newline = data.indexOf(NEWLINE, start);
  }
  write(replies);
  input.copyWithin(0, start, end);
  filled = end - start;
}
