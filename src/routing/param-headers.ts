import { toHangarError } from "../errors.ts";
import type { Tell } from "../observe/events.ts";
import { holdCall } from "../providers/held-call.ts";
import type { Provider } from "../providers/provider.ts";
import type { Target } from "../target.ts";
import { stringAt } from "../wire/envelope.ts";
import { requireParamHeaders } from "../wire/param-headers.ts";
import { intercept } from "./intercept.ts";

/**
 * Refuses calls over HTTP whose `Mcp-Param-*` headers do not say what the tool's arguments say, or are missing
 * (2026-07-28: whoever reads the body must check). The tools of a provider are known once it runs, and read again when it
 * said that they changed.
 */
export function agreeingHeaders(target: Target, provider: Provider, tell: Tell): Target {
  return intercept(target, (call, handler) => {
    const { message, headers, caller } = call;
    const checked =
      headers !== undefined && caller.era === "modern" && message.method === "tools/call";
    if (!checked) return target.dispatch(call, handler);
    const name = stringAt(message.text, message.body.get("name"));
    const check = (): Target => {
      const tool = provider.tools.find((one) => one.name === name);
      if (tool !== undefined) requireParamHeaders(tool, message, headers);
      return target;
    };
    if (!provider.running || provider.toolsStale) {
      return holdCall(provider.listTools().then(check), call, handler, tell);
    }
    try {
      return check().dispatch(call, handler);
    } catch (error) {
      return holdCall(toHangarError(error), call, handler, tell);
    }
  });
}
