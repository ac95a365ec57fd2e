import { VERSION } from "../version.ts";

/** How Hangar introduces itself to clients, as JSON text. */
export const SERVER_INFO: string = JSON.stringify({
  name: "mcp-hangar",
  title: "MCP Hangar",
  version: VERSION,
});

/** What `initialize` and `server/discover` tell a model about the registry tools. */
export const INSTRUCTIONS =
  "Hangar runs MCP servers, called providers, on demand. Call registry_list for the providers, registry_tools for " +
  "the tools of one, and registry_invoke to call a tool. Providers start by themselves on first use.";
