import { HangarError } from "../errors.ts";
import { matchesGlob } from "../lib/glob.ts";
import type { Tell } from "../observe/events.ts";
import type { Provider } from "../providers/provider.ts";
import { holdCall } from "../providers/held-call.ts";
import { atEnd, type Call, type Outcome, type Target } from "../target.ts";
import {
  itemsOf,
  membersOf,
  type Span,
  splice,
  stringAt,
  textOf,
  wholeOf,
} from "../wire/envelope.ts";
import { intercept } from "./intercept.ts";

/** Globs over tool names. */
interface ToolFilter {
  readonly allow: readonly string[];
  readonly deny: readonly string[];
}

/** Whether clients see and may call the tool: some `allow` matches and no `deny` does. */
function isOffered(filter: ToolFilter, tool: string): boolean {
  return (
    filter.allow.some((pattern) => matchesGlob(pattern, tool)) &&
    !filter.deny.some((pattern) => matchesGlob(pattern, tool))
  );
}

/** Those of `tools` that clients see. */
export function offeredTools<T extends { readonly name: string }>(
  tools: readonly T[],
  filter: ToolFilter,
): T[] {
  return tools.filter(({ name }) => isOffered(filter, name));
}

/** Refuses calls of tools that the configuration hides, in the words used for tools that do not exist, and lists none of them. */
export function offeredOnly(target: Target, filter: ToolFilter, tell: Tell): Target {
  if (hidesNothing(filter)) return target;
  return intercept(target, (call, handler) => {
    if (call.message.method === "tools/list") {
      return target.dispatch(
        call,
        atEnd(handler, (outcome) => handler.end(withoutHidden(outcome, filter))),
      );
    }
    const tool = toolOf(call);
    if (tool === undefined || isOffered(filter, tool)) return target.dispatch(call, handler);
    return holdCall(notFound(target.name, tool), call, handler, tell);
  });
}

function hidesNothing({ allow, deny }: ToolFilter): boolean {
  return allow.includes("*") && deny.length === 0;
}

/** A list of tools without those that are hidden; the others keep their bytes. */
function withoutHidden(outcome: Outcome, filter: ToolFilter): Outcome {
  if (outcome.kind === "failure" || outcome.isError) return outcome;
  const { text } = outcome;
  const span = membersOf(text, wholeOf(text))?.get("tools");
  const items = itemsOf(text, span);
  if (span === undefined || items === undefined) return outcome;
  const shown = items.filter((item) => {
    const name = nameAt(text, item);
    return name !== undefined && isOffered(filter, name);
  });
  const list = `[${shown.map((item) => textOf(text, item)).join(",")}]`;
  return { ...outcome, text: splice(text, wholeOf(text), [{ span, text: list }]) };
}

/** The name of the tool at `item`; undefined when it is ambiguous, too. */
function nameAt(text: string, item: Span): string | undefined {
  try {
    return stringAt(text, membersOf(text, item)?.get("name"));
  } catch {
    return undefined;
  }
}

/**
 * Refuses calls of tools that the provider does not list, after one fresh look at its list:
 * a tool that has just appeared can be called at once.
 */
export function listedOnly(target: Target, provider: Provider, tell: Tell): Target {
  const lists = (tool: string): boolean => provider.tools.some(({ name }) => name === tool);

  async function known(tool: string): Promise<Target> {
    await provider.start("call");
    if (lists(tool)) return target;
    await provider.refreshTools();
    if (lists(tool)) return target;
    throw notFound(provider.name, tool);
  }

  return intercept(target, (call, handler) => {
    const tool = toolOf(call);
    if (tool === undefined || (provider.running && lists(tool))) {
      return target.dispatch(call, handler);
    }
    return holdCall(known(tool), call, handler, tell);
  });
}

/** The tool that a call is for. */
export function toolOf({ message }: Call): string | undefined {
  return message.method === "tools/call"
    ? stringAt(message.text, message.body.get("name"))
    : undefined;
}

function notFound(provider: string, tool: string): HangarError {
  return new HangarError("tool_not_found", `Tool not found: ${tool} (provider ${provider})`, {
    details: { tool_name: tool },
  });
}
