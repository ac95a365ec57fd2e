import { jsonRpcError } from "../errors.ts";
import type { Outcome } from "../target.ts";

/** The JSON-RPC response with the client's own id (raw JSON text) for how a call ended, in pieces. */
export function responseParts(id: string, outcome: Outcome): readonly string[] {
  if (outcome.kind === "failure") {
    return [`{"jsonrpc":"2.0","id":${id},"error":${jsonRpcError(outcome)}}`];
  }
  const member = outcome.isError ? "error" : "result";
  return [`{"jsonrpc":"2.0","id":${id},"${member}":`, outcome.text, "}"];
}

/** The same as one text. */
export function responseText(id: string, outcome: Outcome): string {
  return responseParts(id, outcome).join("");
}
