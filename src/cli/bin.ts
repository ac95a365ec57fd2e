#!/usr/bin/env node
// Checks what everything else relies on before anything else is loaded.
import { Console } from "node:console";
import module from "node:module";

const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
if (major < 22 || (major === 22 && minor < 18)) {
  process.stderr.write(
    `mcp-hangar needs Node 22.18 or newer; this is Node ${process.versions.node} (${process.execPath}).\n`,
  );
  process.exit(1);
}
const { heedSignals } = await import("./signal.ts");
heedSignals();
// Standard output belongs to MCP, whatever a library has to say.
globalThis.console = new Console(process.stderr);
module.enableCompileCache();
const { run } = await import("./main.ts");
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") return; // the reader has seen enough, as in `| head -1`
  process.stderr.write(`mcp-hangar: cannot write to stdout: ${error.message}\n`);
  process.exitCode = 1;
});
const exitCode = await run(process.argv.slice(2));
process.exitCode ??= exitCode;
