import { appendFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { conflictIn, type Faults } from "../chaos/flags.ts";
import { startChildren } from "../chaos/grandchildren.ts";
import { serveHttp } from "../chaos/http.ts";
import { createServer, floodStderr } from "../chaos/server.ts";
import { serveStdio } from "../chaos/stdio.ts";
import { HangarError } from "../errors.ts";
import { EXIT } from "./exit-code.ts";
import { leaveSignals } from "./signal.ts";

/** Runs an MCP server that misbehaves as `faults` say, for tests of whatever calls it. */
export async function chaosServer(faults: Faults): Promise<number> {
  const conflict = conflictIn(faults);
  if (conflict !== undefined) throw new HangarError("invalid_arguments", conflict);
  if (faults.ledger !== undefined) requireWritable(faults.ledger);
  if (faults.crashOnStart !== undefined) {
    process.stderr.write("the chaos server exits instead of starting, as --crash-on-start says\n");
    return faults.crashOnStart;
  }
  if (faults.ignoreTerm === true) process.on("SIGTERM", () => undefined);
  await leaveSignals();
  const children = startChildren(faults);
  await floodStderr(faults.stderrBytes ?? 0);
  await sleep(faults.startMs ?? 0);
  const server = createServer(faults, children);
  if (faults.http === undefined) await serveStdio(server, faults);
  else await serveHttp(server, faults, faults.http);
  return EXIT.ok;
}

function requireWritable(ledger: string): void {
  try {
    appendFileSync(ledger, "");
  } catch (error) {
    const why = `--ledger: cannot write ${ledger}: ${(error as Error).message}`;
    throw new HangarError("invalid_arguments", why);
  }
}
