import { existsSync, globSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { parseDocument, visit } from "yaml";
import { loadConfig } from "../../src/config/load.ts";
import { configReference } from "../../src/config/schema.ts";

const EXAMPLES = join(import.meta.dirname, "../../examples");
const files = globSync("**/*.{yaml,yml,json}", { cwd: EXAMPLES }).toSorted();

function load(file: string) {
  return loadConfig({
    path: join(EXAMPLES, file),
    env: { HOME: "/home/someone", SEARCH_TOKEN: "secret" },
    cwd: "/",
    builtin: { command: ["unused"] },
  });
}

describe("the example configurations", () => {
  test("there are some", () => {
    expect(files.length).toBeGreaterThan(3);
  });

  test.each(files)("%s loads, with nothing wrong but modes that are not built yet", (file) => {
    const { config, problems } = load(file);
    expect(config.providers.size).toBeGreaterThan(0);
    expect(problems.filter((problem) => !problem.message.endsWith("not built yet"))).toEqual([]);
  });

  test.each(["config.yaml", "quickstart.yaml", "mcp-servers.json", "everything.yaml"])(
    "%s runs our own example server, which is there",
    (file) => {
      const math = load(file).config.providers.get("math");
      expect(math?.command[0]).toBe("node");
      expect(math?.unusable).toBeUndefined();
      expect(existsSync(join(math?.cwd ?? "", math?.command[1] ?? ""))).toBe(true);
    },
  );

  test("the seed's example keeps its three providers, the containers dead with the reason", () => {
    const { providers } = load("config.yaml").config;
    expect([...providers.keys()]).toEqual(["math", "filesystem", "custom"]);
    expect(providers.get("math")).toMatchObject({
      idle_ttl_s: 180,
      cwd: dirname(join(EXAMPLES, "x")),
    });
    expect(providers.get("filesystem")?.unusable).toMatch(/^mode `container` is not built yet \(/);
  });

  test("everything.yaml shows every key", () => {
    const shown = new Set<string>();
    const document = parseDocument(readFileSync(join(EXAMPLES, "everything.yaml"), "utf8"));
    visit(document, {
      Pair(_, pair, ancestors) {
        const path = [...ancestors, pair].flatMap((node) =>
          "key" in node ? [String((node as { key: unknown }).key)] : [],
        );
        if (path.length > 1 && /^(providers|mcpServers)$/.test(path[0] ?? "")) path[1] = "<id>";
        shown.add(path.join("."));
      },
    });
    const keys = configReference().map((row) => row.key);
    expect(keys.filter((key) => !shown.has(key))).toEqual([]);
  });
});
