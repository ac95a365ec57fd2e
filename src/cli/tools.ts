import { findProvider } from "../providers/registry.ts";
import { offeredTools } from "../routing/policy.ts";
import { EXIT } from "./exit-code.ts";
import { type CommonOptions, oneShot } from "./open.ts";

interface ToolsOptions extends CommonOptions {
  readonly json?: boolean;
}

/** Prints the tools of a provider, one a line, or with `--json` their definitions as the provider sent them. */
export function tools(provider: string, options: ToolsOptions): Promise<number> {
  return oneShot(options, async ({ registry }) => {
    const found = findProvider(registry, provider).provider;
    const offered = offeredTools(await found.listTools(), found.config.tools);
    if (options.json === true) {
      process.stdout.write(`[${offered.map(({ text }) => text).join(",")}]\n`);
      return EXIT.ok;
    }
    const width = Math.max(0, ...offered.map(({ name }) => name.length));
    for (const { name, text } of offered) {
      const { description = "" } = JSON.parse(text) as { description?: string };
      const [first = ""] = description.split("\n", 1);
      process.stdout.write(`${`${name.padEnd(width)}  ${first}`.trimEnd()}\n`);
    }
    return EXIT.ok;
  });
}
