/** What must be true of every call: exactly one end, the right payload, and never two executions of what may run once. */
import { isDeepStrictEqual } from "node:util";
import type { ErrorCode } from "../src/errors.ts";

/** What JSON.parse gives. */
export type Json = any;

/** One call of the load. */
export interface Order {
  readonly provider: string;
  readonly tool: "count" | "echo" | "read" | "sleep";
  /** Stands in no other call. */
  readonly key: string;
  readonly args: object;
  /** By `registry_invoke` at `/mcp`, or at `/mcp/<name>`. */
  readonly way: "registry" | "direct";
  /** Deadline of the caller; the provider's own counts without. */
  readonly timeoutMs?: number | undefined;
  /** The provider may be killed in the middle of its answer, which then cannot be read. */
  readonly tearable?: boolean;
  /** The client gives up then: it cancels, or closes the connection. */
  readonly leave?: { readonly afterMs: number; readonly how: "cancel" | "disconnect" } | undefined;
}

/** How a call ended, as its client saw it. */
export type End =
  | { readonly kind: "answer" | "cancelled" }
  | { readonly kind: "error"; readonly code: ErrorCode; readonly sent: boolean }
  | { readonly kind: "wrong" | "lost"; readonly why: string };

/** What may happen to a call in the soak through no fault of Hangar; every other code would be a defect. */
const EXPECTED: readonly ErrorCode[] = [
  "timeout",
  "start_failed",
  "start_timeout",
  "provider_degraded",
  "provider_dead",
  "provider_stopped",
  "provider_exited",
  "remote_unreachable",
  "remote_failed",
  "session_lost",
  "overloaded",
  "circuit_open",
];

/** The structured content of the one right answer; undefined when there can be none. */
function rightAnswer({ tool, key, args }: Order): object | undefined {
  switch (tool) {
    case "count":
      return { key, value: 1 };
    case "echo":
      return args;
    case "read":
      return { key, value: null };
    case "sleep":
      return undefined;
  }
}

/** How `order` ended, given the JSON-RPC message that came back for it; undefined when its client had left. */
export function judge(order: Order, message: Json): End {
  if (message === undefined) return { kind: "cancelled" };
  const { result, error } = message;
  const failure = error?.data ?? (result?.isError === true ? result.structuredContent : undefined);
  if (failure !== undefined || error !== undefined) {
    const { code, sent = false } = failure ?? {};
    if (code === "cancelled" && order.leave !== undefined) return { kind: "cancelled" };
    const torn = code === "unreadable_answer" && order.tearable === true && sent;
    if (torn || EXPECTED.includes(code)) {
      return { kind: "error", code, sent };
    }
    return wrong(order, message, "an error that should not be");
  }
  const right = rightAnswer(order);
  const text: unknown = result?.content?.[0]?.text;
  const isRight =
    right !== undefined &&
    isDeepStrictEqual(result?.structuredContent, right) &&
    typeof text === "string" &&
    isDeepStrictEqual(JSON.parse(text), right);
  return isRight ? { kind: "answer" } : wrong(order, message, "not the answer to this call");
}

function wrong({ provider, tool, key }: Order, message: Json, what: string): End {
  const text = JSON.stringify(message).slice(0, 500);
  return { kind: "wrong", why: `${what}: ${tool} ${key} of ${provider} got ${text}` };
}

/** One line of a chaos server's ledger, with whose it is. */
export interface Execution {
  readonly provider: string;
  readonly tool: string;
  readonly key: string;
}

/** What the ledgers say against the ends: each thing that is wrong, as a sentence. */
export function audit(
  executions: readonly Execution[],
  ended: ReadonlyMap<string, { readonly order: Order; readonly end: End }>,
): string[] {
  const problems: string[] = [];
  const times = new Map<string, number>();
  for (const { provider, tool, key } of executions) {
    const call = ended.get(key);
    if (call === undefined) problems.push(`${provider} ran ${tool} ${key}, which nobody called`);
    else if (call.order.provider !== provider) {
      problems.push(`${provider} ran ${tool} ${key}, which was for ${call.order.provider}`);
    }
    times.set(key, (times.get(key) ?? 0) + 1);
  }
  for (const { order, end } of ended.values()) {
    const count = times.get(order.key) ?? 0;
    const what = `${order.tool} ${order.key} of ${order.provider}`;
    if (order.tool !== "count") continue;
    if (count > 1) problems.push(`${what} ran ${count} times`);
    if (end.kind === "answer" && count === 0) problems.push(`${what} was answered but never ran`);
    if (end.kind === "error" && !end.sent && count > 0) {
      problems.push(`${what} ran, though its error (${end.code}) does not say \`sent\``);
    }
  }
  return problems;
}
