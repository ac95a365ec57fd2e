import { expect, test, vi } from "vitest";
import { run } from "../src/cli/main.ts";
import { REGISTRY_TOOLS } from "../src/front/registry-tools.ts";
import * as api from "../src/index.ts";

// What others rely on: a change here is a line in CHANGELOG.md, and perhaps a new major version.

test("the package exports these names", () => {
  expect(Object.keys(api).toSorted()).toEqual([
    "ERRORS",
    "HangarError",
    "VERSION",
    "createHangar",
    "loadConfig",
  ]);
});

test("clients see these registry tools, in this order", () => {
  expect(REGISTRY_TOOLS.map(({ name }) => name)).toEqual([
    "registry_list",
    "registry_start",
    "registry_stop",
    "registry_invoke",
    "registry_tools",
    "registry_details",
    "registry_health",
  ]);
});

test("the registry tools take these parameters", () => {
  const parameters = REGISTRY_TOOLS.map(({ name, inputSchema }) => [
    name,
    Object.keys(inputSchema.properties).join(" "),
  ]);
  expect(Object.fromEntries(parameters)).toEqual({
    registry_list: "state_filter",
    registry_start: "provider",
    registry_stop: "provider",
    registry_invoke: "provider tool arguments timeout",
    registry_tools: "provider",
    registry_details: "provider",
    registry_health: "",
  });
});

/** What `mcp-hangar <args> --help` prints. */
async function helpOf(...args: string[]): Promise<string> {
  const stdout = vi.spyOn(process.stdout, "write").mockReturnValue(true);
  try {
    expect(await run([...args, "--help"])).toBe(0);
    return stdout.mock.calls.map(([text]) => String(text)).join("");
  } finally {
    stdout.mockRestore();
  }
}

/** The names at the beginning of the lines of one section of a help text. */
function namesIn(help: string, section: string): string[] {
  const [, lines = ""] = help.split(`${section}:\n`);
  const names = lines.split("\n\n", 1)[0]?.matchAll(/^ {2}(?:-\w, )?([\w-]+)/gm) ?? [];
  return [...names].map(([, name = ""]) => name).filter((name) => name !== "help");
}

test("the program has these commands and options", async () => {
  const surface: Record<string, string> = {};
  for (const command of ["serve", "call", "tools", "logs", "config check", "config schema"]) {
    const options = namesIn(await helpOf(...command.split(" ")), "Options");
    surface[command] = options.filter((name) => name !== "--help").join(" ");
  }
  expect(namesIn(await helpOf(), "Commands")).toEqual([
    "serve",
    "call",
    "tools",
    "logs",
    "config",
    "chaos-server",
  ]);
  expect(namesIn(await helpOf("config"), "Commands")).toEqual(["check", "schema"]);
  expect(surface).toEqual({
    serve: "--config --state-dir --log-level --http --host --provider --port",
    call: "--config --state-dir --log-level --json --timeout",
    tools: "--config --state-dir --log-level --json",
    logs: "--config --state-dir --log-level --follow --lines --json",
    "config check": "--config --state-dir --log-level --json",
    "config schema": "--config --state-dir --log-level --json",
  });
});
