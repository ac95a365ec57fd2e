/** The command line: what each command prints and where, its exit code, and what it leaves behind. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import {
  closeSync,
  cpSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import {
  BIN,
  configOf,
  fixture,
  type Json,
  runCli,
  startedPids,
  startHttp,
  startStdio,
  tempDir,
  waitFor,
  writeConfig,
} from "../harness.ts";
import { fileMarker, watchPort } from "../leaks.ts";
import { findProcesses, isAlive } from "../processes.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

const INITIALIZE = {
  jsonrpc: "2.0",
  id: 1,
  method: "initialize",
  params: {
    protocolVersion: "2025-11-25",
    capabilities: {},
    clientInfo: { name: "t", version: "1" },
  },
};

/** What a client on stdio writes that starts `provider` and goes away. */
function conversation(provider = "math"): string {
  const params = { name: "registry_start", arguments: { provider } };
  const messages = [
    INITIALIZE,
    { jsonrpc: "2.0", method: "notifications/initialized" },
    { jsonrpc: "2.0", id: 2, method: "tools/call", params },
  ];
  return messages.map((message) => `${JSON.stringify(message)}\n`).join("");
}

/** A folder with the file `name` in it. */
function folderWith(name: string, text: string): string {
  const dir = tempDir();
  writeFileSync(join(dir, name), text);
  return dir;
}

/** Does `check` for every one, a few at a time; most of a command's time is spent starting. */
async function inParallel<T>(
  items: readonly T[],
  check: (item: T) => Promise<void>,
): Promise<void> {
  const due = [...items];
  const work = async (): Promise<void> => {
    for (let item = due.shift(); item !== undefined; item = due.shift()) await check(item);
  };
  await Promise.all([work(), work(), work()]);
}

/** The levels of the log lines in `stderr`. */
function levelsIn(stderr: string): Set<string> {
  const lines = stderr.split("\n").filter((line) => line.startsWith("{"));
  return new Set(lines.map((line) => JSON.parse(line).level));
}

describe("a command line", () => {
  test("has no place for --provider over HTTP, where each provider has its own address", async () => {
    const { code, stderr } = await runCli(["serve", "--http", "--provider", "math"]);
    expect(stderr).toMatch(/--provider is for stdio.*\/mcp\/<name>/);
    expect(code).toBe(2);
  });

  test("without a command serves on stdio until stdin ends", async () => {
    const { code, stdout } = await runCli([], { stdin: conversation() });
    const answers = stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(answers.map(({ id }: Json) => id)).toEqual([1, 2]);
    expect(answers[1].result.isError).not.toBe(true);
    expect(code).toBe(0);
  });

  test.each(["--version", "-V"])("with %s prints the version and nothing else", async (flag) => {
    const { version } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
    expect(await runCli([flag])).toMatchObject({ code: 0, stdout: `${version}\n`, stderr: "" });
  });

  test("with --help says on stdout what there is", async () => {
    const { code, stdout, stderr } = await runCli(["--help"]);
    for (const word of ["serve", "call", "tools", "config", "--config", "--state-dir"]) {
      expect(stdout).toContain(word);
    }
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect((await runCli(["call", "--help"])).stdout).toContain("--timeout");
  });

  /** `wrong` has command lines, and for each a piece of what must be said about it. */
  async function expectUsageErrors(wrong: readonly (readonly [string, string])[]): Promise<void> {
    await inParallel(wrong, async ([line, advice]) => {
      const { code, stdout, stderr } = await runCli(line.split(" "));
      expect(stderr, line).toContain(advice);
      expect({ code, stdout }, line).toEqual({ code: 2, stdout: "" });
    });
  }

  test("with an unknown command or option is told what was meant, and exits with 2", async () => {
    await expectUsageErrors([
      ["sevre", "unknown command 'sevre'; did you mean 'serve'?"],
      ["tolls math --json", "unknown command 'tolls'; did you mean 'tools'?"],
      ["config chek", "Did you mean check?"],
      ["--prot 80", "unknown option '--prot'; did you mean '--port'?"],
      ["serve --prot=80", "unknown option '--prot'; did you mean '--port'?"],
      ["call math add --jsno", "Did you mean --json?"],
      ["nothing-like-it", "unknown command 'nothing-like-it'"],
    ]);
  });

  test("with a wrong value, or too few or too many, is told so and exits with 2", async () => {
    await expectUsageErrors([
      ["--port 70000", "from 0 to 65535"],
      ["--log-level loud", "debug, info, warn, error"],
      ["call math add {} --timeout 0", "greater than 0"],
      ["call math", "'tool'"],
      ["call math add {} more", "too many arguments"],
      ["config", "check"],
    ]);
  });

  test("may have common options before the command or behind it", async () => {
    const config = configOf({ adder: { command: fixture("add") } });
    const call = ["call", "adder", "add", '{"a":1,"b":2}'];
    for (const args of [
      ["--config", config, ...call],
      [...call, "--config", config],
    ]) {
      expect(await runCli(args)).toMatchObject({ code: 0, stdout: '{"result":3}\n' });
    }
  });
});

describe("a result that cannot be written", () => {
  test("because its reader has seen enough is no error", async () => {
    const started = (child: ChildProcess) => child.stdout?.destroy();
    await inParallel(
      [
        ["tools", "math"],
        ["config", "schema"],
      ],
      async (args) => {
        expect(await runCli(args, { started })).toMatchObject({ code: 0, stderr: "" });
      },
    );
  });

  test("for another reason is told in one line and exits with 1", () => {
    const full = openSync("/dev/full", "w");
    const ran = runNode(process.execPath, [BIN, "config", "schema"], tempDir(), full);
    closeSync(full);
    expect(ran.stderr).toMatch(/^mcp-hangar: cannot write to stdout: ENOSPC.*\n$/);
    expect(ran.status).toBe(1);
  });
});

describe("call", () => {
  test("prints the text of the result and nothing else", async () => {
    const result = await runCli(["call", "math", "add", '{"a": 5, "b": 3}']);
    expect(result).toEqual({ code: 0, signal: null, stdout: '{"result":8}\n', stderr: "" });
  });

  test("prints the whole result as one line of JSON with --json", async () => {
    const { code, stdout } = await runCli(["call", "math", "add", '{"a":5,"b":3}', "--json"]);
    expect(stdout.indexOf("\n")).toBe(stdout.length - 1);
    expect(JSON.parse(stdout)).toMatchObject({
      content: [{ type: "text", text: '{"result":8}' }],
      structuredContent: { result: 8 },
    });
    expect(code).toBe(0);
  });

  test("keeps what the provider and its own log say off stdout", async () => {
    const config = configOf({ noisy: { command: fixture("garbage-stdout") } });
    const args = ["call", "noisy", "echo", '{"x":1}', "--config", config, "--log-level", "debug"];
    const { code, stdout, stderr } = await runCli(args);
    expect({ code, stdout }).toEqual({ code: 0, stdout: '{"x":1}\n' });
    expect(levelsIn(stderr)).toContain("debug");
  });

  test("hands arguments on byte for byte", async () => {
    const config = configOf({ p: { command: fixture("big-numbers") } });
    const args = '{"big":9007199254740993, "one":1.0}';
    const { stdout } = await runCli(["call", "p", "received", args, "--config", config]);
    expect(stdout).toContain(`"arguments":${args}`);
  });

  test("whose arguments are no JSON object exits with 2", async () => {
    const wrong = [
      ["{a:5}", "not valid JSON"],
      ["[5,3]", "must be a JSON object"],
      ["null", "must be a JSON object"],
      ["", "not valid JSON"],
    ] as const;
    await inParallel(wrong, async ([args, reason]) => {
      const { code, stdout, stderr } = await runCli(["call", "math", "add", args]);
      expect(stderr, args).toContain(reason);
      expect({ code, stdout }, args).toEqual({ code: 2, stdout: "" });
    });
  });

  test("of an unknown provider exits with 3 and names those there are", async () => {
    const { code, stdout, stderr } = await runCli(["call", "moth", "add"]);
    expect(stderr).toContain("moth");
    expect(stderr).toContain("there are: math");
    expect({ code, stdout }).toEqual({ code: 3, stdout: "" });
  });

  test("of an unknown tool exits with 3, and with --json the error is JSON on stdout", async () => {
    const plain = await runCli(["call", "math", "root"]);
    expect(plain.stderr).toContain("Tool not found: root");
    expect(plain).toMatchObject({ code: 3, stdout: "" });
    const { code, stdout, stderr } = await runCli(["call", "math", "root", "{}", "--json"]);
    expect(JSON.parse(stdout).error.data.code).toBe("tool_not_found");
    expect({ code, stderr }).toEqual({ code: 3, stderr: "" });
  });

  test("whose tool reports a failure prints the tool's words and exits with 4", async () => {
    const result = await runCli(["call", "math", "divide", '{"a":1,"b":0}']);
    expect(result).toMatchObject({ code: 4, stdout: "division by zero\n" });
  });

  test("that the provider answers with an error exits with 4 and shows that error", async () => {
    const config = configOf({ p: { command: fixture("error-reply") } });
    const { code, stdout, stderr } = await runCli(["call", "p", "fail", "--config", config]);
    expect(stderr).toContain("the table is locked");
    expect({ code, stdout }).toEqual({ code: 4, stdout: "" });
  });

  test("of a provider that fails to start exits with 5, with its last words", async () => {
    const config = configOf({ p: { command: fixture("crash-on-start") } });
    const { code, stdout, stderr } = await runCli(["call", "p", "echo", "--config", config]);
    expect(stderr).toContain("exit code 3");
    expect(stderr).toContain("fatal: cannot open database /var/lib/fixture.db");
    expect({ code, stdout }).toEqual({ code: 5, stdout: "" });
  });

  test.each([
    [
      "whose file is missing",
      [process.execPath, "no-such-server.js"],
      /module or file.*is missing/,
    ],
    ["whose command is missing", ["no-such-program"], /command not found: no-such-program/],
    ["of a mode not built yet", undefined, /`container` is not built yet/],
  ])("of a provider %s exits with 5 and says what to mend", async (_, command, hint) => {
    const broken = command === undefined ? { mode: "container", image: "x" } : { command };
    const config = configOf({ p: broken });
    const { code, stdout, stderr } = await runCli(["call", "p", "echo", "--config", config]);
    expect(stderr).toMatch(hint);
    expect({ code, stdout }).toEqual({ code: 5, stdout: "" });
  });

  test("of a provider that dies meanwhile exits with 5", async () => {
    const config = configOf({ p: { command: fixture("crash-mid-call") } });
    const { code, stdout, stderr } = await runCli(["call", "p", "crash", "--config", config]);
    expect(stderr).toContain("exit code 7");
    expect({ code, stdout }).toEqual({ code: 5, stdout: "" });
  });

  test.each([
    ["a slow tool", "slow", ["sleep", '{"ms":60000}', "--timeout", "1"], /after 1s/],
    ["a silent start", "never-answers", ["echo", "{}", "--timeout", "0.5"], /after 0.5s/],
    ["a start past startup_timeout_s", "never-answers", ["echo"], /startup_timeout_s \(0.6 s\)/],
  ])("that takes too long because of %s exits with 6", async (_, name, args, reason) => {
    const log = join(tempDir(), "starts");
    const provider = { command: fixture(name), env: { START_LOG: log }, protocol: "legacy" };
    const startup_timeout_s = args.includes("--timeout") ? 30 : 0.6;
    const config = configOf({ p: { ...provider, startup_timeout_s } });
    const { code, stdout, stderr } = await runCli(["call", "p", ...args, "--config", config]);
    expect(stderr).toMatch(reason);
    expect({ code, stdout }).toEqual({ code: 6, stdout: "" });
    expect(startedPids(log).filter(isAlive)).toEqual([]);
  });

  test("works on a file with nothing but mcpServers, whatever else its client wrote there", async () => {
    const [command, ...args] = fixture("env");
    const env = { HANGAR_TEST: "${HANGAR_TEST}", GREETING: "hello ${NAME:-you}" };
    const mcpServers = { "my server": { command, args, env, autoApprove: ["*"] } };
    const dir = folderWith("client.json", JSON.stringify({ theme: "dark", mcpServers }));
    const cli = ["call", "my-server", "env", "--json", "--config", join(dir, "client.json")];
    const { code, stdout } = await runCli(cli);
    expect(JSON.parse(stdout).structuredContent.GREETING).toBe("hello you");
    expect(code).toBe(0);
  });
});

describe("an interrupted command", () => {
  /** Runs `call p <args>` at log level debug and sends `signal` once stderr matches. */
  function interrupted(
    provider: Json,
    args: readonly string[],
    signals: readonly (readonly [RegExp, NodeJS.Signals])[],
  ) {
    const log = join(tempDir(), "starts");
    const env = { ...provider.env, START_LOG: log };
    const config = configOf({ p: { ...provider, env } });
    let stderr = "";
    const due = [...signals];
    const started = (child: ChildProcess) => {
      const look = () => {
        const [seen, signal] = due[0] ?? [];
        if (seen?.test(stderr) !== true || startedPids(log).length === 0) return;
        due.shift();
        child.kill(signal);
      };
      child.stderr?.on("data", (text: string) => {
        stderr += text;
        look();
      });
      const timer = setInterval(look, 20);
      child.once("close", () => clearInterval(timer));
    };
    const cli = ["call", "p", ...args, "--config", config, "--log-level", "debug"];
    return { log, ended: runCli(cli, { started }) };
  }

  test.each(["SIGINT", "SIGTERM", "SIGHUP"] as const)(
    "by %s during a call exits with 130, without a result or a process left",
    async (signal) => {
      const ready = /"state":"ready"/;
      const provider = { command: fixture("slow") };
      const { log, ended } = interrupted(provider, ["sleep", '{"ms":60000}'], [[ready, signal]]);
      expect(await ended).toMatchObject({ code: 130, signal: null, stdout: "" });
      expect(startedPids(log).map(isAlive)).toEqual([false]);
    },
  );

  test("during a start exits with 130 with nothing of the start left", async () => {
    const provider = { command: fixture("slow-start"), env: { START_MS: "60000" } };
    const { log, ended } = interrupted(provider, ["echo"], [[/initializing/, "SIGINT"]]);
    expect(await ended).toMatchObject({ code: 130, signal: null, stdout: "" });
    expect(startedPids(log).map(isAlive)).toEqual([false]);
  });

  test("and interrupted again does not wait for a stubborn provider, and still leaves none", async () => {
    const provider = { command: fixture("ignores-term-and-eof"), env: { START_MS: "60000" } };
    const signals = [
      [/initializing/, "SIGINT"],
      [/shutting_down/, "SIGINT"],
    ] as const;
    const { log, ended } = interrupted(provider, ["echo"], signals);
    await waitFor("the start", () => startedPids(log).length === 1);
    const began = performance.now();
    expect(await ended).toMatchObject({ code: 130, signal: null, stdout: "" });
    expect(performance.now() - began).toBeLessThan(1500);
    await waitFor("the provider to end", () => !startedPids(log).some(isAlive));
  });
});

describe("tools", () => {
  test("lists one tool a line with the first line of its description", async () => {
    const { code, stdout, stderr } = await runCli(["tools", "math"]);
    expect(stdout.split("\n")).toEqual([
      "add       Adds two numbers.",
      "subtract  Subtracts b from a.",
      "multiply  Multiplies two numbers.",
      "divide    Divides a by b.",
      "power     Raises base to exponent.",
      "",
    ]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  });

  test("prints the definitions with --json, every page of them, without the hidden ones", async () => {
    const config = configOf({
      pages: { command: fixture("paginated") },
      some: { command: fixture("paginated"), tools: { deny: ["sec*"] } },
    });
    const listed = async (provider: string) => {
      const { stdout } = await runCli(["tools", provider, "--json", "--config", config]);
      return JSON.parse(stdout);
    };
    const all = await listed("pages");
    expect(all.length).toBeGreaterThan(1);
    expect(all[0]).toMatchObject({ name: expect.any(String), inputSchema: { type: "object" } });
    const hidden = (name: string) => name.startsWith("sec");
    const names = all.map(({ name }: Json) => name);
    const left = (await listed("some")).map(({ name }: Json) => name);
    expect(left).toEqual(names.filter((name: string) => !hidden(name)));
    expect(left).not.toEqual(names);
  });

  test("of an unknown provider exits with 3, of one that cannot start with 5", async () => {
    const config = configOf({ p: { command: fixture("crash-on-start") } });
    expect(await runCli(["tools", "nobody", "--config", config])).toMatchObject({
      code: 3,
      stdout: "",
    });
    const failed = await runCli(["tools", "p", "--config", config, "--json"]);
    expect(failed).toMatchObject({ code: 5, stderr: "" });
    expect(JSON.parse(failed.stdout).error.data.code).toBe("start_failed");
  });
});

const BROKEN = `providers:
  math:
    command: [node, server.js]
    idle_tll_s: 60
    startup_timeout_s: soon
  9lives:
    command: [node]
  empty:
    command: []
    env: {TOKEN: 4711}
logging:
  level: loud
max_message_bytes: 10
`;
const BROKEN_LINES = [
  "4:5: unknown key `idle_tll_s` in `providers.math`; did you mean `idle_ttl_s`?",
  '5:24: `providers.math.startup_timeout_s` must be a number; it is the text "soon"',
  "6:3: `9lives` cannot name a provider",
  "9:14: `providers.empty.command` must not be empty",
  "10:18: `providers.empty.env.TOKEN` must be text, so put it in quotes",
  '12:10: `logging.level` must be one of `debug`, `info`, `warn`, `error`; it is the text "loud"',
  "13:20: `max_message_bytes` must be at least 1024; it is 10",
];

/** Each of the broken file's errors, in order, as the start of a line. */
function expectBrokenLines(lines: readonly string[], before: string): void {
  expect(lines).toHaveLength(BROKEN_LINES.length);
  for (const [index, line] of BROKEN_LINES.entries()) {
    expect(lines[index]?.startsWith(`${before}config.yaml:${line}`), lines[index]).toBe(true);
  }
}

const HALF_USABLE = (): Json => ({
  good: { command: fixture("add") },
  unset: { command: fixture("add"), env: { KEY: "${NOT_SET_ANYWHERE}" } },
  box: { mode: "container", image: "x" },
});

describe("config check", () => {
  test("of a good file names it and exits with 0", async () => {
    const config = configOf({ p: { command: fixture("add") } });
    const result = await runCli(["config", "check", "--config", config]);
    expect(result).toMatchObject({ code: 0, stdout: `${config} can be used\n`, stderr: "" });
  });

  test("tells every error at once with its place, value and advice, and exits with 78", async () => {
    const cwd = folderWith("config.yaml", BROKEN);
    const { code, stdout, stderr } = await runCli(["config", "check"], { cwd });
    const lines = stdout.trim().split("\n");
    expect(lines.pop()).toBe(`${join(cwd, "config.yaml")} has 7 errors`);
    expectBrokenLines(lines, "error: ");
    expect(stdout).not.toContain("4711");
    expect({ code, stderr }).toEqual({ code: 78, stderr: "" });
  });

  test("fails on what costs one provider only, while the others work", async () => {
    const config = configOf(HALF_USABLE());
    const { code, stdout } = await runCli(["config", "check", "--config", config]);
    expect(stdout).toMatch(/error: .*:\d+:\d+: .*NOT_SET_ANYWHERE is not set/);
    expect(stdout).toMatch(/error: .*:\d+:\d+: .*`container` is not built yet/);
    expect(stdout).toContain("has 2 errors");
    expect(code).toBe(78);
    const call = ["call", "good", "add", '{"a":1,"b":2}', "--config", config];
    expect(await runCli(call)).toMatchObject({ code: 0, stdout: '{"result":3}\n', stderr: "" });
    const served = await runCli(["--config", config], { stdin: conversation("good") });
    expect(served.code).toBe(0);
    expect(served.stderr).toContain("NOT_SET_ANYWHERE is not set");
  });

  test("passes a file that only causes warnings, and tells them", async () => {
    const text = '{"mcpServers": {"my server": {"command": "node", "autoApprove": []}}}';
    const cwd = folderWith("config.yaml", text);
    const { code, stdout } = await runCli(["config", "check"], { cwd });
    expect(stdout).toMatch(/^warning: config.yaml:1:17: "my server" .* `my-server`/m);
    expect(stdout).toMatch(/^warning: config.yaml:1:50: .*autoApprove/m);
    expect(code).toBe(0);
  });

  test("prints the same as JSON with --json, whether the file is refused or not", async () => {
    const cwd = folderWith("config.yaml", BROKEN);
    const refused = await runCli(["config", "check", "--json"], { cwd });
    const answer = JSON.parse(refused.stdout);
    expect(answer).toMatchObject({
      valid: false,
      file: join(cwd, "config.yaml"),
      providers: [],
      problems: expect.arrayContaining([
        {
          file: "config.yaml",
          line: 5,
          column: 24,
          message: expect.stringContaining('"soon"'),
          severity: "error",
        },
      ]),
    });
    expect(answer.problems).toHaveLength(7);
    expect(refused).toMatchObject({ code: 78, stderr: "" });
    const file = configOf(HALF_USABLE());
    const half = await runCli(["config", "check", "--json", "--config", file]);
    expect(JSON.parse(half.stdout)).toMatchObject({
      valid: false,
      file,
      providers: ["good", "unset", "box"],
      problems: [{ severity: "error" }, { severity: "error" }],
    });
    const builtin = await runCli(["config", "check", "--json"]);
    expect(JSON.parse(builtin.stdout)).toEqual({
      valid: true,
      file: null,
      providers: ["math"],
      problems: [],
    });
  });

  test("refuses bombs, keys that stand twice, names that mean something to JavaScript, and what is no configuration", async () => {
    const bomb = ["a: &a [x,x,x,x,x,x,x,x,x]"];
    for (const [from, to] of ["ab", "bc", "cd", "de", "ef", "fg", "gh", "hi"]) {
      bomb.push(`${to}: &${to} [${Array(9).fill(`*${from}`).join()}]`);
    }
    const refused = [
      ["a YAML bomb", bomb.join("\n"), "1:1: its aliases stand for more than"],
      ["a key twice", "providers:\n  p: {command: [a]}\n  p: {command: [b]}", "3:3: the key `p`"],
      ["__proto__", "providers:\n  __proto__: {command: [a]}", "2:3: `__proto__` cannot be"],
      ["constructor", "providers:\n  constructor: {command: [a]}", "2:3: `constructor` cannot"],
      ["__proto__ in JSON", '{"mcpServers": {"__proto__": {"command": "a"}}}', "1:17: `__proto__`"],
      ["no providers", "logging: {level: info}", "neither `providers` nor `mcpServers`"],
      ["broken syntax", "providers:\n  p: [unclosed\n", "not valid YAML"],
      ["tabs and tags", "providers:\n  p: !!js/function x", "2:6: tags"],
    ] as const;
    await inParallel(refused, async ([what, text, problem]) => {
      const cwd = folderWith("config.yaml", text);
      const { code, stdout } = await runCli(["config", "check"], { cwd });
      expect(stdout, what).toContain("error: config.yaml:");
      expect(stdout, what).toContain(problem);
      expect(code, what).toBe(78);
    });
  });

  test("refuses a file over 1 MB, and takes one of exactly that size", async () => {
    const text = '{"providers": {"p": {"command": ["a"]}}}';
    const most = 1_048_576;
    for (const [size, exit] of [
      [most, 0],
      [most + 1, 78],
    ] as const) {
      const cwd = folderWith("config.yaml", text.padEnd(size));
      const { code, stdout } = await runCli(["config", "check"], { cwd });
      expect(stdout.includes("config.yaml:1:1: the file is larger")).toBe(exit === 78);
      expect(code).toBe(exit);
    }
  });
});

describe("config schema", () => {
  test("prints the schema that is shipped", async () => {
    const shipped = JSON.parse(readFileSync(join(ROOT, "schema/config.schema.json"), "utf8"));
    for (const flags of [[], ["--json"]]) {
      const { code, stdout, stderr } = await runCli(["config", "schema", ...flags]);
      expect(JSON.parse(stdout)).toEqual(shipped);
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    }
  });
});

describe("the configuration file", () => {
  test("is --config, else MCP_CONFIG, else ./config.yaml, else the built-in example", async () => {
    const cwd = tempDir();
    const command = ["a"];
    writeConfig(cwd, { providers: { here: { command } } });
    const byFlag = configOf({ flag: { command } });
    const MCP_CONFIG = configOf({ variable: { command } });
    const providers = async (args: readonly string[], options: Parameters<typeof runCli>[1]) => {
      const { stdout } = await runCli(["config", "check", "--json", ...args], options);
      return JSON.parse(stdout).providers;
    };
    const env = { MCP_CONFIG };
    expect(await providers(["--config", byFlag], { cwd, env })).toEqual(["flag"]);
    expect(await providers([], { cwd, env })).toEqual(["variable"]);
    expect(await providers([], { cwd, env: { MCP_CONFIG: "" } })).toEqual(["here"]);
    expect(await providers([], {})).toEqual(["math"]);
  });

  test.each([
    ["--config", ["--config", "gone.yaml"], {}],
    ["MCP_CONFIG", [], { MCP_CONFIG: "gone.yaml" }],
  ])("that %s names must be there, for every command", async (by, flags, env) => {
    const cwd = folderWith("config.yaml", '{"providers": {}}');
    const commands = [["serve"], ["tools", "math"], ["config", "check"]];
    await inParallel(commands, async (command) => {
      const { code, stdout, stderr } = await runCli([...command, ...flags], { cwd, env });
      expect(stderr).toContain(`There is no file gone.yaml, which ${by} names.`);
      expect({ code, stdout }).toEqual({ code: 3, stdout: "" });
    });
  });

  test("that is broken stops every command, with all errors on stderr and nothing on stdout", async () => {
    const cwd = folderWith("config.yaml", BROKEN);
    const commands = ["serve", "serve --http --host 127.0.0.1 --port 0", "call math add"];
    await inParallel(commands, async (command) => {
      const { code, stdout, stderr } = await runCli(command.split(" "), { cwd });
      const [first, ...lines] = stderr.trim().split("\n");
      expect(first).toBe("mcp-hangar: config.yaml cannot be used:");
      expectBrokenLines(lines, "  ");
      expect({ code, stdout }, command).toEqual({ code: 78, stdout: "" });
    });
  });
});

describe("the state directory", () => {
  test("is --state-dir, else MCP_HANGAR_STATE_DIR, else under XDG_STATE_HOME, else under HOME", async () => {
    const places = ["home/.local/state/mcp-hangar", "xdg/mcp-hangar", "variable", "flag/deeper"];
    await inParallel([...places.entries()], async ([index, place]) => {
      const parent = tempDir();
      const at = (name: string) => join(parent, name);
      // Everything that comes behind this place in the order is set, too.
      const env = {
        HOME: at("home"),
        XDG_STATE_HOME: index >= 1 ? at("xdg") : "",
        MCP_HANGAR_STATE_DIR: index >= 2 ? at("variable") : "",
      };
      const flags = index >= 3 ? ["--state-dir", at("flag/deeper")] : [];
      const called = await runCli(["call", "math", "add", '{"a":5,"b":3}', ...flags], { env });
      expect(called).toMatchObject({ stdout: '{"result":8}\n', stderr: "" });
      expect(places.filter((other) => existsSync(at(other)))).toEqual([place]);
      expect(statSync(at(place)).mode & 0o777).toBe(0o700);
      expect(readdirSync(at(place))).toEqual(["eras.json", "instances", "logs"]);
    });
  });

  test("that cannot be written costs a warning, and nothing else", async () => {
    const file = join(folderWith("file", ""), "file");
    const flags = ["--state-dir", join(file, "state")];
    const served = await runCli(["serve", ...flags], { stdin: conversation() });
    expect(served.code).toBe(0);
    expect(served.stdout.trim().split("\n")).toHaveLength(2);
    const warning = served.stderr.split("\n").find((line) => line.includes("state_dir_unusable"));
    expect(JSON.parse(warning ?? "null")).toMatchObject({
      level: "warn",
      folder: join(file, "state"),
      error: expect.stringContaining("ENOTDIR"),
    });
    const called = await runCli(["call", "math", "add", '{"a":5,"b":3}', ...flags]);
    expect(called).toMatchObject({ code: 0, stdout: '{"result":8}\n', stderr: "" });
  });

  test("below a folder that takes no new ones, such as /proc, is refused at once", async () => {
    const flags = ["--state-dir", "/proc/no/such/folder"];
    const served = await runCli(["serve", ...flags], { stdin: conversation() });
    expect(served.code).toBe(0);
    expect(served.stderr).toMatch(/state_dir_unusable/);
    expect(served.stderr).toContain("ENOENT: no such file or directory, mkdir '/proc/no'");
  });

  test("and a configuration may be used by several Hangars at once", async () => {
    const config = configOf({ p: { command: fixture("env") } });
    const stateDir = tempDir();
    const options = { config, stateDir };
    const [one, other] = await Promise.all([startStdio(options), startStdio(options)]);
    const called = await Promise.all([one, other].map((hangar) => hangar.invoke("p", "env")));
    const instances = called.map(({ structuredContent }) => structuredContent.HANGAR_INSTANCE);
    expect(new Set(instances).size).toBe(2);
    const args = ["call", "p", "echo", '{"n":1}', "--config", config, "--state-dir", stateDir];
    const third = await runCli(args);
    expect(third).toMatchObject({ code: 0, stdout: '{"n":1}\n', stderr: "" });
    // The end of one is nothing to the other.
    expect((await one.close()).code).toBe(0);
    expect((await other.invoke("p", "echo", { n: 2 })).structuredContent).toEqual({ n: 2 });
    expect((await other.close()).code).toBe(0);
    expect(readdirSync(stateDir)).toEqual(["eras.json", "instances", "logs"]);
    expect(readdirSync(join(stateDir, "instances"))).toEqual([]);
    const eras = JSON.parse(readFileSync(join(stateDir, "eras.json"), "utf8"));
    expect(Object.values(eras)).toEqual([expect.objectContaining({ era: "legacy" })]);
  });

  test("gives all its Hangars one token, told once and kept for the owner alone", async () => {
    const stateDir = tempDir();
    const hangars = await Promise.all([1, 2, 3].map(() => startHttp({ stateDir })));
    const kept = readFileSync(join(stateDir, "token"), "utf8");
    expect(kept).toMatch(/^[\w-]{43}\n$/);
    expect(statSync(join(stateDir, "token")).mode & 0o777).toBe(0o600);
    expect(readdirSync(stateDir)).toEqual(["instances", "token"]);
    expect(hangars.filter(({ stderr }) => stderr.includes(kept.trim()))).toHaveLength(1);
    for (const hangar of hangars) {
      const authorization = `Bearer ${kept.trim()}`;
      const headers = { authorization, "x-forwarded-for": "192.0.2.1" };
      expect((await hangar.post(INITIALIZE, headers)).status).toBe(200);
      const wrong = { ...headers, authorization: `${authorization}x` };
      expect((await hangar.post(INITIALIZE, wrong)).status).toBe(401);
    }
  });
});

describe("the log level", () => {
  test("is --log-level, else MCP_LOG_LEVEL, else logging.level of the file, else info", async () => {
    const providers = { p: { command: fixture("add") } };
    const config = configOf(providers, { logging: { level: "debug" } });
    const plain = configOf(providers);
    const quiet = { MCP_LOG_LEVEL: "error" };
    const cases = [
      [plain, [], {}, ["info"]],
      [config, [], {}, ["debug", "info"]],
      [config, [], quiet, []],
      [config, [], { MCP_LOG_LEVEL: "INFO" }, ["info"]],
      [config, ["--log-level", "info"], quiet, ["info"]],
    ] as const;
    await inParallel(cases, async ([file, flags, env, levels]) => {
      const args = ["serve", "--config", file, ...flags];
      const { code, stderr } = await runCli(args, { env, stdin: conversation("p") });
      expect(levelsIn(stderr)).toEqual(new Set(levels));
      expect(code).toBe(0);
    });
  });

  test("in a word that MCP_LOG_LEVEL does not know is an error that says which there are", async () => {
    const { code, stderr } = await runCli(["serve"], { env: { MCP_LOG_LEVEL: "loud" } });
    expect(stderr).toMatch(/MCP_LOG_LEVEL must be one of debug, info, warn, error, found loud/);
    expect(code).toBe(78);
  });

  test("of a one-shot command is silence unless one is asked for on the spot", async () => {
    const providers = { p: { command: fixture("add") } };
    const config = configOf(providers, { logging: { level: "debug" } });
    const args = ["call", "p", "add", '{"a":1,"b":1}', "--config", config];
    expect((await runCli(args)).stderr).toBe("");
    const { stdout, stderr } = await runCli(args, { env: { MCP_LOG_LEVEL: "debug" } });
    expect(levelsIn(stderr)).toContain("debug");
    expect(stdout).toBe('{"result":2}\n');
  });
});

describe("on a machine with an old Node", () => {
  /** Ways to run a script on an old Node: a pretended one, and those that this machine has. */
  const pretended = "Object.defineProperty(process,'versions',{value:{node:'20.11.0'}});";
  const ways: [string, string, string[]][] = [
    ["a pretended one", process.execPath, ["--require", "./old.cjs"]],
    ...oldNodes().map((file): [string, string, string[]] => [file, file, []]),
  ];

  test.each(ways)("the program says what it needs: %s", (_, node, flags) => {
    const cwd = folderWith("old.cjs", pretended);
    const { status, stdout, stderr } = runNode(node, [...flags, BIN], cwd);
    expect(stderr).toMatch(
      /^mcp-hangar needs Node 22.18 or newer; this is Node \d+[.\d]+ \(.*\)\.\n$/,
    );
    expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
  });

  test.each(ways)("the npm scripts say what to do: %s", (_, node, flags) => {
    const cwd = folderWith("old.cjs", pretended);
    const script = join(ROOT, "scripts/require-node.cjs");
    const { status, stdout, stderr } = runNode(node, [...flags, script], cwd);
    expect(stderr).toMatch(/^This needs Node 22.18 or newer/);
    expect(stderr).toContain("npm rebuild node --ignore-scripts=false");
    expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
  });

  test("`npm start` uses the Node that npm installed here, and ends when npm is told to", async () => {
    const tree = copyOfTree();
    const own = /node_modules\/.bin\/?$|node-gyp-bin\/?$/;
    const isOurs = (folder: string) => own.test(folder);
    const folders = (process.env["PATH"] ?? "").split(delimiter).filter((one) => !isOurs(one));
    const [, marker = ""] = fileMarker().split("=");
    const started = `HANGAR_START_TEST=${marker}`;
    const npm = spawn("npm", ["start"], {
      cwd: tree,
      stdio: ["ignore", "ignore", "pipe"],
      env: {
        PATH: folders.join(delimiter),
        HOME: tempDir(),
        HANGAR_TEST: marker,
        HANGAR_START_TEST: marker,
        MCP_HTTP_HOST: "127.0.0.1",
        MCP_HTTP_PORT: "0",
        npm_config_update_notifier: "false",
      },
    });
    try {
      let stderr = "";
      npm.stderr.setEncoding("utf8").on("data", (text: string) => {
        stderr += text;
      });
      const gone = new Promise((resolve) => npm.once("exit", resolve));
      const serving = /serves http:\/\/(?:127\.0\.0\.1|localhost):(\d+)\/mcp/;
      const port = await waitFor("the address", () => serving.exec(stderr)?.[1], 15_000);
      watchPort(Number(port));
      expect(stderr).toContain(`npx mcp-hangar call math add '{"a": 5, "b": 3}'`);
      npm.kill("SIGTERM");
      await gone;
      await waitFor("Hangar to end", () => findProcesses(started).length === 0);
    } finally {
      for (const { pid } of findProcesses(started)) process.kill(pid, "SIGKILL");
    }
  });
});

describe("the npm scripts", () => {
  test("build a program that can be run by its name", () => {
    expect(statSync(BIN).mode & 0o111).toBe(0o111);
  });

  test("pass the check on a Node that is new enough, in silence", () => {
    const ran = runNode(process.execPath, [join(ROOT, "scripts/require-node.cjs")], tempDir());
    expect(ran).toMatchObject({ status: 0, stdout: "", stderr: "" });
  });

  test("say `npm ci` when the development dependencies are missing", () => {
    const tree = tempDir();
    for (const file of ["package.json", "scripts"]) {
      cpSync(join(ROOT, file), join(tree, file), { recursive: true });
    }
    const ran = runNode(process.execPath, [join(tree, "scripts/require-node.cjs")], tree);
    expect(ran.stderr).toContain(`Run \`npm ci\` in ${tree}`);
    expect(ran).toMatchObject({ status: 1, stdout: "" });
  });
});

/** What `npm start` needs, in a folder of its own, because it builds. */
function copyOfTree(): string {
  const tree = tempDir();
  const files = ["package.json", "tsconfig.json", "tsconfig.build.json"];
  for (const file of [...files, "src", "scripts", "examples"]) {
    cpSync(join(ROOT, file), join(tree, file), { recursive: true });
  }
  symlinkSync(join(ROOT, "node_modules"), join(tree, "node_modules"));
  return tree;
}

function runNode(
  node: string,
  args: readonly string[],
  cwd: string,
  stdout: "pipe" | number = "pipe",
) {
  const [, marker = ""] = fileMarker().split("=");
  const env = { HANGAR_TEST: marker };
  return spawnSync(node, args, { cwd, env, encoding: "utf8", stdio: ["ignore", stdout, "pipe"] });
}

/** Every Node in PATH that is too old for Hangar; there may be none. */
function oldNodes(): string[] {
  const folders = new Set((process.env["PATH"] ?? "").split(delimiter).filter(Boolean));
  const found = [...folders].map((folder) => join(folder, "node")).filter(existsSync);
  return [...new Set(found.map((file) => realpathSync(file)))].filter((file) => {
    const { stdout } = spawnSync(file, ["--version"], { encoding: "utf8" });
    const [major = 0, minor = 0] = stdout.slice(1).split(".").map(Number);
    return major < 22 || (major === 22 && minor < 18);
  });
}
