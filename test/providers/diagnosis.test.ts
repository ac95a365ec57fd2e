import { describe, expect, it } from "vitest";
import { diagnose } from "../../src/providers/diagnosis.ts";

const FAILED = { code: 1, signal: null };

function hintFor(stderr: string): string | undefined {
  const lines = stderr.split("\n");
  const [what, heading, ...rest] = diagnose("it ended", FAILED, lines).split("\n");
  expect([what, heading]).toEqual(["it ended", "last output:"]);
  expect(rest.slice(0, lines.length)).toEqual(lines.map((line) => `  ${line}`));
  return rest[lines.length];
}

describe("diagnose", () => {
  it.each([
    ["bash", "bash: line 1: uvx: command not found", /not installed or not in PATH/],
    ["dash", "/bin/sh: 1: npx: not found", /not installed or not in PATH/],
    ["exec", "./run.sh: line 2: exec: deno: not found", /not installed or not in PATH/],
    [
      "node, a module",
      "node:internal/modules/cjs/loader:1404\n  throw err;\nError: Cannot find module '/srv/server.js'",
      /Node module or file/,
    ],
    [
      "node, a package",
      "Error [ERR_MODULE_NOT_FOUND]: Cannot find package 'zod' imported from /srv/index.mjs",
      /Node module or file/,
    ],
    [
      "python",
      "Traceback (most recent call last):\nModuleNotFoundError: No module named 'mcp'",
      /Python module/,
    ],
    ["python -m", "/usr/bin/python3: No module named mcp_server_time", /Python module/],
    [
      "npm",
      "npm error code E404\nnpm error 404 Not Found - GET https://registry.invalid/nope - Not found",
      /npm package does not exist/,
    ],
    ["dns", "Error: getaddrinfo ENOTFOUND api.invalid", /needs the network/],
    ["dns, python", "socket.gaierror: EAI_AGAIN", /needs the network/],
    ["port", "Error: listen EADDRINUSE: address already in use :::3000", /port that is taken/],
    ["file", "Error: EACCES: permission denied, open '/var/lib/db'", /may not read or run/],
    ["token", "Error: GITHUB_TOKEN environment variable is not set", /wants a secret/],
    ["key", "Missing API key", /wants a secret/],
    ["key required", "SLACK_API_KEY is required", /wants a secret/],
    ["usage", "usage: server [-h] --root ROOT", /command line/],
    ["option", "error: unknown option '--stdio'", /command line/],
  ])("knows what helps when the last words are those of: %s", (_, stderr, hint) => {
    expect(hintFor(stderr)).toMatch(hint);
  });

  it("gives no hint where it knows none", () => {
    expect(hintFor("fatal: the moon is full")).toBeUndefined();
  });

  it("says when a program ended at once without a word", () => {
    const said = diagnose("it ended with exit code 0", { code: 0, signal: null }, []);
    expect(said).toMatch(/^it ended with exit code 0\nIt ended at once without a word/);
  });

  it("says only what happened when nothing else is known", () => {
    expect(diagnose("it was too slow", undefined, [])).toBe("it was too slow");
    expect(diagnose("it ended", FAILED, [])).toBe("it ended");
  });

  it("repeats the last twenty lines only, and takes its hint from those", () => {
    const lines = ["command not found", ...Array.from({ length: 20 }, (_, n) => `line ${n}`)];
    const said = diagnose("it ended", FAILED, lines);
    expect(said.split("\n")).toEqual([
      "it ended",
      "last output:",
      ...lines.slice(1).map((line) => `  ${line}`),
    ]);
  });
});
