import { HangarError } from "../errors.ts";
import type { Hangar } from "../hangar.ts";
import { findProvider } from "../providers/registry.ts";
import type { Outcome } from "../target.ts";
import { itemsOf, membersOf, scanMessage, stringAt, textOf, wholeOf } from "../wire/envelope.ts";
import { EXIT } from "./exit-code.ts";
import { type CommonOptions, oneShot } from "./open.ts";

interface CallOptions extends CommonOptions {
  readonly json?: boolean;
  /** Longest wait for the result, in seconds. */
  readonly timeout?: number;
}

/** Calls one tool and prints its result: the text of its content, or with `--json` the result as the provider sent it. */
export function call(
  provider: string,
  tool: string,
  args: string | undefined,
  options: CallOptions,
): Promise<number> {
  return oneShot(options, async (hangar) => {
    const outcome = await invoke(hangar, provider, tool, args ?? "{}", options.timeout);
    if (outcome.kind === "failure") throw outcome;
    if (outcome.isError) {
      throw new HangarError("tool_failed", `the provider answered with an error: ${outcome.text}`, {
        details: { error: JSON.parse(outcome.text) },
      });
    }
    const { text } = outcome;
    process.stdout.write(`${options.json === true ? text : readable(text)}\n`);
    const isError = membersOf(text, wholeOf(text))?.get("isError");
    return isError !== undefined && textOf(text, isError) === "true" ? EXIT.toolError : EXIT.ok;
  });
}

function invoke(
  hangar: Hangar,
  provider: string,
  tool: string,
  args: string,
  timeout: number | undefined,
): Promise<Outcome> {
  const registered = findProvider(hangar.registry, provider);
  const timeoutMs = (timeout ?? registered.provider.config.timeout_s) * 1000;
  const params = `{"name":${JSON.stringify(tool)},"arguments":${requireObject(args)}}`;
  const message = scanMessage(`{"jsonrpc":"2.0","id":0,"method":"tools/call","params":${params}}`);
  const caller = {
    principal: "local",
    client: "command line",
    era: "legacy",
    capabilities: "{}",
  } as const;
  return new Promise((resolve) => {
    registered.target.dispatch(
      { message, caller, timeoutMs },
      // It declares no capabilities, so it is asked nothing.
      { note: () => {}, ask: () => ({ withdraw: () => {} }), end: resolve },
    );
  });
}

/** `args`, which must be a JSON object; its bytes reach the provider as they are. */
function requireObject(args: string): string {
  let parsed: unknown;
  try {
    parsed = JSON.parse(args);
  } catch (error) {
    throw new HangarError(
      "invalid_arguments",
      `the arguments are not valid JSON: ${(error as Error).message}`,
    );
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) {
    throw new HangarError(
      "invalid_arguments",
      `the arguments must be a JSON object, found ${args}`,
    );
  }
  return args;
}

/** The text blocks of a tool result, one after the other; blocks of other types as JSON. */
function readable(result: string): string {
  const blocks = itemsOf(result, membersOf(result, wholeOf(result))?.get("content"));
  if (blocks === undefined || blocks.length === 0) return result;
  return blocks
    .map((block) => {
      const members = membersOf(result, block);
      const isText = stringAt(result, members?.get("type")) === "text";
      return (isText ? stringAt(result, members?.get("text")) : undefined) ?? textOf(result, block);
    })
    .join("\n");
}
