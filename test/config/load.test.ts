import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { afterAll, beforeEach, describe, expect, test } from "vitest";
import { formatProblem, loadConfig } from "../../src/config/load.ts";
import type { LoadedConfig, Problem } from "../../src/config/load.ts";
import { PROVIDER_ID } from "../../src/config/schema.ts";
import { HangarError } from "../../src/errors.ts";

const root = mkdtempSync(join(tmpdir(), "hangar-config-"));
let folder = root;
let count = 0;

beforeEach(() => {
  folder = join(root, String(count++));
  mkdirSync(folder);
});

afterAll(() => rmSync(root, { recursive: true, force: true }));

const builtin = { command: ["node", "/example.js"] };

function load(text: string | Buffer, env: Record<string, string> = {}): LoadedConfig {
  writeFileSync(join(folder, "config.yaml"), text);
  return loadConfig({
    path: undefined,
    env: { HOME: "/home/someone", ...env },
    cwd: folder,
    builtin,
  });
}

function errorOf(run: () => unknown): HangarError {
  try {
    run();
  } catch (error) {
    if (error instanceof HangarError) return error;
    throw error;
  }
  throw new Error("it loaded");
}

/** What `config check` would print for a file that is refused. */
function refusal(text: string | Buffer, env: Record<string, string> = {}): string[] {
  const error = errorOf(() => load(text, env));
  expect(error.code).toBe("config_invalid");
  return (error.details["problems"] as Problem[]).map(formatProblem);
}

/** One provider `a` with `keys` beside its command. */
function provider(keys: string): string {
  return `providers:\n  a:\n    command: [x]\n${keys.replaceAll(/^/gm, "    ")}\n`;
}

describe("which file is read", () => {
  beforeEach(() => {
    for (const name of ["flag", "variable", "config"]) {
      writeFileSync(join(folder, `${name}.yaml`), `providers: {${name}: {command: [x]}}`);
    }
  });

  function names(path: string | undefined, env: Record<string, string>): string[] {
    return [...loadConfig({ path, env, cwd: folder, builtin }).config.providers.keys()];
  }

  test("--config wins over MCP_CONFIG, and that over ./config.yaml", () => {
    expect(names("flag.yaml", { MCP_CONFIG: "variable.yaml" })).toEqual(["flag"]);
    expect(names(undefined, { MCP_CONFIG: "variable.yaml" })).toEqual(["variable"]);
    expect(names(undefined, {})).toEqual(["config"]);
    expect(names(undefined, { MCP_CONFIG: "" })).toEqual(["config"]);
  });

  test("a named file that is missing is an error that says who named it", () => {
    const byFlag = errorOf(() => names("gone.yaml", {}));
    expect([byFlag.code, byFlag.message]).toEqual([
      "config_not_found",
      "There is no file gone.yaml, which --config names.",
    ]);
    const byVariable = errorOf(() => names(undefined, { MCP_CONFIG: "gone.yaml" }));
    expect(byVariable.message).toBe("There is no file gone.yaml, which MCP_CONFIG names.");
  });

  test("MCP_CONFIG may start with the home folder", () => {
    expect(names(undefined, { MCP_CONFIG: "~/flag.yaml", HOME: folder })).toEqual(["flag"]);
  });

  test("with no file at all there is the built-in example, with every default", () => {
    const loaded = loadConfig({ path: undefined, env: {}, cwd: join(folder, "nowhere"), builtin });
    expect(loaded.file).toBeUndefined();
    expect(loaded.problems).toEqual([]);
    expect(loaded.config).toEqual({
      providers: new Map([
        [
          "math",
          {
            mode: "subprocess",
            command: ["node", "/example.js"],
            env: {},
            inherit_env: [],
            cwd: join(folder, "nowhere"),
            enabled: true,
            idle_ttl_s: 300,
            health_check_interval_s: 60,
            max_consecutive_failures: 3,
            startup_timeout_s: 60,
            timeout_s: 60,
            max_timeout_s: 3600,
            tool_timeouts_s: {},
            max_concurrency: 256,
            max_queue: 1024,
            restart: { limit: 5, window_s: 60, healthy_s: 300 },
            circuit_breaker: {
              failure_rate: 0.5,
              slow_call_s: 0,
              min_calls: 10,
              open_s: 30,
              half_open_calls: 3,
            },
            trust_annotations: false,
            retry: { tools: [], budget: 0.2 },
            protocol: "auto",
            tools: { allow: ["*"], deny: [] },
            scope: "shared",
            headers: {},
          },
        ],
      ]),
      logging: { level: "info", provider_log_max_bytes: 10_485_760, provider_log_files: 3 },
      allowed_origins: [],
      max_calls: 10_000,
      max_message_bytes: 16_777_216,
      shutdown_grace_s: 25,
    });
  });

  test("a folder is refused as a file that cannot be read", () => {
    const error = errorOf(() => names(".", {}));
    expect(error.code).toBe("config_invalid");
    expect(error.message).toBe(". cannot be used:\n  .:1:1: the file cannot be read (EISDIR)");
  });
});

describe("what a provider becomes", () => {
  test("every key arrives as written", () => {
    const { config, problems, file } = load(
      provider(`mode: subprocess
env: {KEY: value, EMPTY: ""}
inherit_env: [HTTPS_PROXY]
cwd: sub/folder
enabled: true
description: Does things.
idle_ttl_s: 0
health_check_interval_s: 0.5
max_consecutive_failures: 1
startup_timeout_s: 1.5
timeout_s: 3600
max_timeout_s: 7200
tool_timeouts_s: {"long_*": 600.5}
max_concurrency: 1
max_queue: 0
restart: {limit: 2, window_s: 10, healthy_s: 0}
circuit_breaker: {failure_rate: 1, slow_call_s: 2, min_calls: 3, open_s: 4, half_open_calls: 5, force: open}
trust_annotations: true
retry: {tools: [a*], budget: 0}
protocol: modern
tools: {allow: ["read_*"], deny: [read_secret]}
scope: session`),
    );
    expect(problems).toEqual([]);
    expect(file).toBe(join(folder, "config.yaml"));
    expect(config.providers.get("a")).toEqual({
      mode: "subprocess",
      command: ["x"],
      env: { KEY: "value", EMPTY: "" },
      inherit_env: ["HTTPS_PROXY"],
      cwd: join(folder, "sub/folder"),
      enabled: true,
      description: "Does things.",
      idle_ttl_s: 0,
      health_check_interval_s: 0.5,
      max_consecutive_failures: 1,
      startup_timeout_s: 1.5,
      timeout_s: 3600,
      max_timeout_s: 7200,
      tool_timeouts_s: { "long_*": 600.5 },
      max_concurrency: 1,
      max_queue: 0,
      restart: { limit: 2, window_s: 10, healthy_s: 0 },
      circuit_breaker: {
        ...{ failure_rate: 1, slow_call_s: 2, min_calls: 3, open_s: 4, half_open_calls: 5 },
        force: "open",
      },
      trust_annotations: true,
      retry: { tools: ["a*"], budget: 0 },
      protocol: "modern",
      tools: { allow: ["read_*"], deny: ["read_secret"] },
      scope: "session",
      headers: {},
    });
  });

  test("a remote provider has no limit of restarts, and the key for it neither", () => {
    const { config } = load("providers:\n  a: {mode: remote, endpoint: 'http://x'}\n");
    expect(config.providers.get("a")?.restart.limit).toBe(Infinity);
    const text = "providers:\n  a: {mode: remote, endpoint: 'http://x', restart: {limit: 3}}\n";
    expect(refusal(text).join("\n")).toContain("unknown key `restart`");
  });

  test.each([
    [{ MCP_RATE_LIMIT_RPS: "2.5" }, { rps: 2.5 }],
    [
      { MCP_RATE_LIMIT_RPS: "2", MCP_RATE_LIMIT_BURST: "7" },
      { rps: 2, burst: 7 },
    ],
    [{ MCP_RATE_LIMIT_BURST: "7" }, undefined],
    [{ MCP_RATE_LIMIT_RPS: "" }, undefined],
  ])("the environment %j limits requests to %j, unless the file does", (env, limit) => {
    const path = join(folder, "rate.yaml");
    writeFileSync(path, "providers: {}\n");
    const options = { path, cwd: folder, builtin };
    expect(loadConfig({ ...options, env }).config.rate_limit).toEqual(limit);
    writeFileSync(path, "providers: {}\nrate_limit: {rps: 9}\n");
    expect(loadConfig({ ...options, env }).config.rate_limit).toEqual({ rps: 9 });
  });

  test.each(["many", "0", "-1", "NaN"])("MCP_RATE_LIMIT_RPS=%s is refused by name", (rps) => {
    const env = { MCP_RATE_LIMIT_RPS: rps };
    const error = errorOf(() => loadConfig({ path: undefined, env, cwd: "/nowhere", builtin }));
    expect(error.code).toBe("config_invalid");
    expect(error.message).toContain("MCP_RATE_LIMIT_RPS");
    expect(error.message).toContain(`found ${rps}`);
  });

  test("a remote provider has an endpoint and headers, and no command", () => {
    const { config, problems } = load(`providers:
  a:
    mode: remote
    endpoint: https://\${HOST:-x.example}/mcp?a=b
    headers: {Authorization: "Bearer \${HOME}", X-Empty: ""}
`);
    expect(problems).toEqual([]);
    expect(config.providers.get("a")).toMatchObject({
      mode: "remote",
      endpoint: "https://x.example/mcp?a=b",
      headers: { Authorization: "Bearer /home/someone", "X-Empty": "" },
      command: [],
      scope: "shared",
    });
  });

  test.each([
    ["", "endpoint` is missing"],
    ["endpoint: ftp://x/mcp", "must be a URL that begins with http:// or https://"],
    ["endpoint: x.example", "must be a URL"],
    ["endpoint: http://me:secret@x/mcp", "must not contain a user or password"],
    ["endpoint: http://x\n    command: [x]", "unknown key `command`"],
    ["endpoint: http://x\n    headers: {Host: y}", "is set by Hangar itself"],
    ["endpoint: http://x\n    headers: {mcp-name: y}", "is set by Hangar itself"],
    ["endpoint: http://x\n    headers: {'a b': y}", "is not a name for an HTTP header"],
    ['endpoint: http://x\n    headers: {a: "b\\r\\nc: d"}', "must be one line"],
    ["endpoint: http://x\n    scope: client", "scope` must be one of `shared`, `session`"],
  ])("a remote provider with %j is refused", (rest, message) => {
    const text = `providers:\n  a:\n    mode: remote\n    ${rest}\n`;
    expect(refusal(text).join("\n")).toContain(message);
  });

  test("a remote provider whose header needs a variable that is not set is unusable", () => {
    const { config } = load(`providers:
  a: {mode: remote, endpoint: "http://x", headers: {Authorization: "Bearer \${NOPE}"}}
`);
    expect(config.providers.get("a")?.unusable).toContain("NOPE is not set");
  });

  test("relative paths start at the file's folder and ~ is the home folder", () => {
    const text = (cwd: string) => `${provider(`cwd: ${cwd}`)}logging: {file: logs/x.log}\n`;
    expect(load(text("../y")).config.providers.get("a")?.cwd).toBe(join(folder, "../y"));
    expect(load(text("~/y")).config.providers.get("a")?.cwd).toBe("/home/someone/y");
    expect(load(text('"~"')).config.providers.get("a")?.cwd).toBe("/home/someone");
    expect(load(text("/abs")).config.providers.get("a")?.cwd).toBe("/abs");
    expect(load(text("/abs")).config.logging.file).toBe(join(folder, "logs/x.log"));
  });

  test("a disabled provider stays in the map, and its unset variables are no problem", () => {
    const { config, problems } = load(provider(`enabled: false\nenv: {KEY: "\${NOPE}"}`));
    expect(config.providers.get("a")).toMatchObject({ enabled: false });
    expect(config.providers.get("a")?.unusable).toBeUndefined();
    expect(problems).toEqual([]);
  });

  test("an empty map of providers is a configuration", () => {
    expect(load("providers: {}").config.providers.size).toBe(0);
  });

  test("settings are read: levels in any case, origins as browsers send them", () => {
    const { config } = load(`providers: {}
logging: {level: WARNING, file: ~/x.log}
allowed_origins: ["HTTPS://App.Example.com:443", "http://localhost:3000", "vscode-webview://ABC"]
max_message_bytes: 1024
`);
    expect(config).toMatchObject({
      logging: { level: "warn", file: "/home/someone/x.log" },
      allowed_origins: ["https://app.example.com", "http://localhost:3000", "vscode-webview://abc"],
      max_message_bytes: 1024,
    });
  });

  test("anchors and aliases work", () => {
    const { config } = load("providers:\n  a: {command: &c [x, y]}\n  b: {command: *c}\n");
    expect(config.providers.get("b")?.command).toEqual(["x", "y"]);
  });

  test("JSON is read the same way, tabs and escapes included", () => {
    const value = { providers: { a: { command: ["x", 'a"b\\c/\u2028😀\t'] } } };
    const command = value.providers.a.command;
    expect(load(JSON.stringify(value, undefined, "\t")).config.providers.get("a")?.command).toEqual(
      command,
    );
    expect(load(`\uFEFF${JSON.stringify(value)}`).config.providers.get("a")?.command).toEqual(
      command,
    );
  });
});

describe("variables", () => {
  test("they are expanded in every text of a provider and of the settings, once", () => {
    const { config, problems } = load(
      `providers:
  a:
    command: ["\${NAME}", "$\${NAME}", "$NAME"]
    env: {A: "\${RAW}"}
    cwd: \${DIR:-sub}
    protocol: \${ERA:-legacy}
    tools: {deny: ["\${NAME}_*"]}
logging: {file: "\${NAME}.log"}
`,
      { NAME: "value", RAW: "${NAME}" },
    );
    expect(problems).toEqual([]);
    expect(config.providers.get("a")).toMatchObject({
      command: ["value", "${NAME}", "$NAME"],
      env: { A: "${NAME}" },
      cwd: join(folder, "sub"),
      protocol: "legacy",
      tools: { deny: ["value_*"] },
    });
    expect(config.logging.file).toBe(join(folder, "value.log"));
  });

  test("an unset variable makes only its provider unusable, with the reason and the place", () => {
    const { config, problems } = load(`providers:
  a:
    command: [x, "\${FIRST}"]
    env:
      API_KEY: "\${API_KEY}"
  b: {command: [x]}
`);
    expect(config.providers.get("a")?.unusable).toBe(
      "environment variable FIRST is not set (providers.a.command[1], config.yaml:3:18); " +
        "environment variable API_KEY is not set (providers.a.env.API_KEY, config.yaml:5:16)",
    );
    expect(config.providers.get("b")?.unusable).toBeUndefined();
    expect(problems.map((one) => [one.severity, formatProblem(one)])).toEqual([
      [
        "error",
        "config.yaml:3:18: `providers.a.command[1]`: environment variable FIRST is not set",
      ],
      [
        "error",
        "config.yaml:5:16: `providers.a.env.API_KEY`: environment variable API_KEY is not set",
      ],
    ]);
  });

  test("an unset variable where only some words are allowed does not refuse the file either", () => {
    const { config } = load(provider('protocol: ${ERA}\ninherit_env: ["${NOPE}"]'));
    expect(config.providers.get("a")).toMatchObject({ protocol: "auto" });
    expect(config.providers.get("a")?.unusable).toContain("ERA is not set");
    const withMode = load("providers: {a: {command: [x], mode: '${MODE}'}}").config;
    expect(withMode.providers.get("a")?.unusable).toContain("MODE is not set");
  });

  test("an unset variable outside a provider refuses the file", () => {
    expect(refusal('providers: {}\nlogging: {file: "${LOGS}/x"}')).toEqual([
      "config.yaml:2:17: `logging.file`: environment variable LOGS is not set",
    ]);
  });

  test("a malformed reference refuses the file, without showing what may be a secret", () => {
    expect(refusal(provider('description: "a ${1x}"\nenv: {KEY: "s3cret${"}'))).toEqual([
      "config.yaml:4:18: `providers.a.description`: `${1x}` is not a variable: write `${NAME}` or `${NAME:-default}`, or `$${` for a plain `${`",
      "config.yaml:5:16: `providers.a.env.KEY`: a reference is not a variable: write `${NAME}` or `${NAME:-default}`, or `$${` for a plain `${`",
    ]);
  });

  test("a value that comes from a variable is never shown", () => {
    const text = refusal(provider("protocol: ${TOKEN}"), { TOKEN: "s3cret" }).join();
    expect(text).toContain("${TOKEN}");
    expect(text).not.toContain("s3cret");
  });

  test("an unquoted reference inside brackets gets advice", () => {
    expect(refusal("providers:\n  a: {command: [x, ${HOME}]}")).toEqual([
      "config.yaml:2:21: not valid YAML: inside `[...]` and `{...}`, put text with `${...}` in quotes",
    ]);
  });
});

describe("modes that are not built yet", () => {
  test.each(["container", "docker", "podman", "group"])(
    "%s makes the provider unusable and its other keys are let through",
    (mode) => {
      const { config, problems } = load(`providers:
  a:
    mode: ${mode}
    description: Later.
    image: "x:\${NOPE}"
    volumes: ["\${1x}:/data"]
    resources: {memory: 256m}
`);
      expect(config.providers.get("a")).toMatchObject({
        mode,
        description: "Later.",
        enabled: true,
        cwd: folder,
        unusable: `mode \`${mode}\` is not built yet (providers.a.mode, config.yaml:3:11)`,
      });
      expect(problems.map((one) => one.severity)).toEqual(["error"]);
    },
  );

  test("switched off, it is no problem", () => {
    const { config, problems } = load(
      "providers: {a: {mode: container, image: x, enabled: false}}",
    );
    expect(config.providers.get("a")?.enabled).toBe(false);
    expect(config.providers.get("a")?.unusable).toBeUndefined();
    expect(problems).toEqual([]);
  });

  test("the keys that are checked still are", () => {
    expect(refusal("providers: {a: {mode: group, enabled: maybe}}")).toEqual([
      'config.yaml:1:39: `providers.a.enabled` must be `true` or `false`; it is the text "maybe"',
    ]);
  });
});

describe("what refuses a file", () => {
  test("all mistakes are told at once, in order, each with its place, value and advice", () => {
    expect(
      refusal(`provders: {}
providers:
  math:
    comand: [node]
    idle_ttl: 3
    timeout_s: "abc"
    mode: subproces
    env:
      PORT: 8080
      TOKEN: [s3cret]
  9x: {command: [a]}
  both:
    command: [a, ""]
    tools: {alow: []}
    protocol: automatic
    startup_timeout_s: 0
    max_consecutive_failures: 1.5
    args: []
  sentence: {command: node server.js --token s3cret}
  off: null
logging: {level: verbose}
allowed_origins: ["https://x.y/", "*"]
max_message_bytes: 10
`),
    ).toEqual([
      "config.yaml:1:1: unknown key `provders`; did you mean `providers`?",
      "config.yaml:3:3: `providers.math.command` is missing",
      "config.yaml:4:5: unknown key `comand` in `providers.math`; did you mean `command`?",
      "config.yaml:5:5: unknown key `idle_ttl` in `providers.math`; did you mean `idle_ttl_s`?",
      'config.yaml:6:16: `providers.math.timeout_s` must be a number; it is the text "abc"',
      'config.yaml:7:11: `providers.math.mode` must be one of `subprocess`, `remote`, `container`, `docker`, `podman`, `group` (did you mean `subprocess`?); it is the text "subproces"',
      "config.yaml:9:13: `providers.math.env.PORT` must be text, so put it in quotes; it is a number",
      "config.yaml:10:14: `providers.math.env.TOKEN` must be text; it is a list",
      "config.yaml:11:3: `9x` cannot name a provider: a letter first, then letters, digits, `_` and `-`, at most 64 in all",
      "config.yaml:13:18: `providers.both.command[1]` must not be empty; it is text",
      "config.yaml:14:13: unknown key `alow` in `providers.both.tools`; did you mean `allow`?",
      'config.yaml:15:15: `providers.both.protocol` must be one of `auto`, `legacy`, `modern`; it is the text "automatic"',
      "config.yaml:16:24: `providers.both.startup_timeout_s` must be at least 0.1; it is 0",
      "config.yaml:17:31: `providers.both.max_consecutive_failures` must be a whole number; it is 1.5",
      "config.yaml:18:5: unknown key `args` in `providers.both`; `command` is one list, the program first and then its arguments",
      "config.yaml:19:23: `providers.sentence.command` must be a list; it is text",
      "config.yaml:20:8: `providers.off` must be a map; it is nothing",
      'config.yaml:21:18: `logging.level` must be one of `debug`, `info`, `warn`, `error`; it is the text "verbose"',
      'config.yaml:22:19: `allowed_origins[0]` must be an origin: scheme, host and perhaps a port, without path or wildcard, such as `https://app.example.com`; it is the text "https://x.y/"',
      'config.yaml:22:35: `allowed_origins[1]` must be an origin: scheme, host and perhaps a port, without path or wildcard, such as `https://app.example.com`; it is the text "*"',
      "config.yaml:23:20: `max_message_bytes` must be at least 1024; it is 10",
    ]);
  });

  test("the error's message is the whole list, with the file's name as it was given; its path is in the details", () => {
    const error = errorOf(() => load("providers: {a: {comand: [x]}}"));
    expect(error.message).toBe(
      "config.yaml cannot be used:\n" +
        "  config.yaml:1:13: `providers.a.command` is missing\n" +
        "  config.yaml:1:17: unknown key `comand` in `providers.a`; did you mean `command`?",
    );
    expect(error.details["file"]).toBe(join(folder, "config.yaml"));
  });

  test.each([
    ["idle_ttl_s: -1", "must be at least 0"],
    ["idle_ttl_s: 604801", "must be at most 604800"],
    ["idle_ttl_s: .inf", "must be a number"],
    ["idle_ttl_s: .nan", "must be a number"],
    ["health_check_interval_s: 0", "must be at least 0.1"],
    ["health_check_interval_s: 3601", "must be at most 3600"],
    ["timeout_s: 0.05", "must be at least 0.1"],
    ["max_consecutive_failures: 0", "must be at least 1"],
    ["max_consecutive_failures: 101", "must be at most 100"],
    ["enabled: yes", 'must be `true` or `false`; it is the text "yes"'],
    ["description: 5", "must be text, so put it in quotes; it is 5"],
    ["env: [A=s3cret]", "must be a map; it is a list"],
    ["env: {ENABLED: true}", "must be text, so put it in quotes; it is a boolean"],
    ["env: {'A=B': x}", "is not a name for an environment variable"],
    ['env: {A: "x\\0y"}', "must not contain a NUL character"],
    ["inherit_env: HOME", "must be a list"],
    ['cwd: ""', "must not be empty"],
    ["tools: [a]", "must be a map; it is a list"],
    ["tools: {allow: '*'}", "must be a list"],
    ["image: x", "that belongs to `mode: container`"],
    ["disabled: true", "write `enabled: false`"],
    ["zzzzzzzzzzz: 1", "unknown key `zzzzzzzzzzz` in `providers.a`; there are `mode`, `command`"],
  ])("%s", (line, message) => {
    const [problem = "", ...rest] = refusal(provider(line));
    expect(problem).toContain(message);
    expect(problem).not.toContain("s3cret");
    expect(rest).toEqual([]);
  });

  test("a command has 1 to 100 entries", () => {
    const list = (length: number) =>
      JSON.stringify({ providers: { a: { command: Array(length).fill("x") } } });
    expect(refusal(list(0))[0]).toContain("`providers.a.command` must not be empty");
    expect(refusal(list(101))[0]).toContain("must have at most 100 entries");
    expect(load(list(100)).problems).toEqual([]);
  });

  test.each(["", "# nothing\n", "[]", "text", "null", "logging: {level: info}"])(
    "a file with neither providers nor mcpServers (%j) is named",
    (text) => {
      expect(refusal(text)).toEqual([
        "config.yaml:1:1: config.yaml has neither `providers` nor `mcpServers`; it must be a map with at least one of them",
      ]);
    },
  );

  test("an empty block is not taken for an empty map", () => {
    expect(refusal("providers:\n  # a: {}\n")[0]).toContain(
      "`providers` is empty; write `providers: {}` if that is meant",
    );
    expect(refusal("providers: [a]")[0]).toContain("`providers` must be a map of name to entry");
  });

  test.each(["__proto__", "constructor", "prototype", "toString", "hasOwnProperty"])(
    "%s cannot be a name",
    (name) => {
      for (const text of [
        `providers: {${name}: {command: [x]}}`,
        `providers: {a: {command: [x], env: {${name}: x}}}`,
        `providers: {a: {command: [x], inherit_env: [${name}]}}`,
        `mcpServers: {${name}: {command: x}}`,
      ]) {
        expect(refusal(text).join()).toContain("cannot be used as a name");
      }
      expect(({} as Record<string, unknown>)["command"]).toBeUndefined();
    },
  );

  test("duplicate keys are refused at any depth", () => {
    expect(
      refusal("providers:\n  a: {command: [x]}\n  a: {command: [y], env: {A: b, A: c}}"),
    ).toEqual(["config.yaml:3:3: the key `a` stands here twice"]);
    expect(refusal("providers: {a: {command: [y], env: {A: b, A: c}}}")).toEqual([
      "config.yaml:1:43: the key `A` stands here twice",
    ]);
  });

  test.each([
    ["a syntax error", "providers: {a: {command: [x}}", "not valid YAML"],
    ["a second document", "providers: {}\n---\nproviders: {}", "only one YAML document is allowed"],
    [
      "a JavaScript tag",
      "providers: {a: {command: !!js/function [x]}}",
      "tags (`!name`) are not supported",
    ],
    [
      "a tag of one's own",
      "providers: {a: {command: [!env HOME]}}",
      "tags (`!name`) are not supported",
    ],
    [
      "a binary tag",
      "providers: {a: {command: [!!binary aGk=]}}",
      "tags (`!name`) are not supported",
    ],
    ["another YAML", "%YAML 1.1\n---\nproviders: {}", "`%YAML` must be 1.2"],
    [
      "a merge key",
      "providers: {a: &a {command: [x]}, b: {<<: *a}}",
      "merge keys (`<<`) are not supported",
    ],
    [
      "an alias of nothing",
      "providers: {a: *nothing}",
      "the alias `*nothing` has no anchor before it",
    ],
    ["an alias of itself", "providers: &p {a: *p}", "the alias `*p` has no anchor before it"],
    ["a number as a key", "providers: {1: {command: [x]}}", "a key must be text; put it in quotes"],
    ["a list as a key", "providers: {? [a] : {command: [x]}}", "a key must be text"],
    [
      "deep nesting",
      `providers: {a: ${"[".repeat(70)}${"]".repeat(70)}}`,
      "nested more than 64 levels deep",
    ],
    ["bottomless nesting", `providers: ${"[".repeat(100_000)}`, "is nested too deeply"],
    [
      "a huge file",
      `providers: {}\n${" ".repeat(1_048_576)}`,
      "the file is larger than 1048576 bytes",
    ],
  ])("%s", (_, text, message) => {
    expect(refusal(text).join("\n")).toContain(message);
  });

  test("a bomb of aliases is refused at once", () => {
    const levels = Array.from("bcdefghij", (name, index) => {
      const previous = "abcdefghi"[index] ?? "";
      return `${name}: &${name} [${Array(9).fill(`*${previous}`).join(", ")}]`;
    });
    const started = performance.now();
    expect(
      refusal(`a: &a [x, x, x, x, x, x, x, x, x]\n${levels.join("\n")}\nproviders: {}`)[0],
    ).toContain("its aliases stand for more than 10000 values");
    expect(performance.now() - started).toBeLessThan(2000);
  });

  test("bytes that are not UTF-8 are refused", () => {
    expect(refusal(Buffer.from([0x61, 0xff, 0x3a]))).toEqual([
      "config.yaml:1:1: the file is not valid UTF-8",
    ]);
  });

  test("syntax errors do not quote the line, which may hold a secret", () => {
    for (const line of [
      'KEY: "s3cret" s3cret',
      "KEY: | s3cret\n  x",
      "KEY: [s3cret",
      "KEY: @s3cret",
      "- s3cret: s3cret: s3cret",
    ]) {
      expect(refusal(`providers:\n  a:\n    env:\n      ${line}\n`).join()).not.toContain("s3cret");
    }
  });
});

describe("a client's mcpServers block", () => {
  test("is a valid configuration as it is; foreign keys only warn", () => {
    const { config, problems } = load(`{
  "mcpServers": {
    "files": { "command": "npx", "args": ["-y", "server", ""], "env": { "A": "\${X:-b}" }, "autoApprove": ["read"] },
    "off": { "type": "stdio", "command": "x", "disabled": true }
  },
  "theme": "dark"
}`);
    expect(config.providers.get("files")).toMatchObject({
      mode: "subprocess",
      command: ["npx", "-y", "server", ""],
      env: { A: "b" },
      cwd: folder,
      enabled: true,
      idle_ttl_s: 300,
    });
    expect(config.providers.get("off")).toMatchObject({ enabled: false });
    expect(problems.map((one) => one.severity)).toEqual(["warning", "warning"]);
    expect(problems.map(formatProblem)).toEqual([
      "config.yaml:3:91: `mcpServers.files.autoApprove` is not a key of Hangar and is ignored",
      "config.yaml:6:3: `theme` is not a key of Hangar and is ignored",
    ]);
  });

  test("stands beside providers, and then foreign keys at the top are errors again", () => {
    const both = "providers: {a: {command: [x]}}\nmcpServers: {b: {command: y}}\n";
    expect([...load(both).config.providers.keys()]).toEqual(["a", "b"]);
    expect(refusal(`${both}theme: dark`)[0]).toContain("unknown key `theme`");
  });

  test("an id in both blocks refuses the file", () => {
    expect(refusal("providers: {a: {command: [x]}}\nmcpServers: {a: {command: y}}")).toEqual([
      "config.yaml:2:14: `a` is also in `providers`; rename one of them",
    ]);
  });

  test("ids outside our pattern are mapped without collision and reported", () => {
    const { config, problems } = load(`providers: {Jira-Server-2: {command: [x]}}
mcpServers:
  Jira Server: {command: first}
  Jira/Server: {command: second}
  Jira-Server: {command: third}
  "1password": {command: fourth}
  "": {command: fifth}
`);
    expect([...config.providers].map(([id, { command }]) => [id, command[0]])).toEqual([
      ["Jira-Server-2", "x"],
      ["Jira-Server-3", "first"],
      ["Jira-Server-4", "second"],
      ["Jira-Server", "third"],
      ["p-1password", "fourth"],
      ["p-", "fifth"],
    ]);
    expect(problems.map(formatProblem)).toContain(
      'config.yaml:3:3: "Jira Server" cannot name a provider; it is called `Jira-Server-3` here',
    );
  });

  test("any names become different, valid ids, the same every time", () => {
    const names = fc.uniqueArray(
      fc.oneof(
        fc.string({ unit: fc.constantFrom("a", "1", "-", " ", "é", "😀", "p"), maxLength: 4 }),
        fc.string({ unit: fc.constantFrom("a", " "), minLength: 62, maxLength: 70 }),
      ),
      { minLength: 1, maxLength: 12 },
    );
    fc.assert(
      fc.property(names, (list) => {
        const text = JSON.stringify({
          mcpServers: Object.fromEntries(list.map((name) => [name, { command: "x" }])),
        });
        const ids = [...load(text).config.providers.keys()];
        expect(new Set(ids).size).toBe(list.length);
        for (const id of ids) expect(id).toMatch(PROVIDER_ID);
        expect([...load(text).config.providers.keys()]).toEqual(ids);
        for (const name of list) if (PROVIDER_ID.test(name)) expect(ids).toContain(name);
      }),
    );
  });

  test.each([
    ["{url: 'http://x', headers: {Authorization: '${NOPE}'}}", "variable NOPE is not set"],
    ["{}", "there is neither `command` nor `url`"],
    ["{command: x, url: 'http://x'}", "there is both `command` and `url`; keep one"],
    ["{command: x, type: http}", "an entry with `command` is of type `stdio`"],
    ["{url: 'http://x', type: stdio}", "an entry with `url` is not of type `stdio`"],
    ["{command: '${NOPE}'}", "environment variable NOPE is not set"],
    ["{command: x, cwd: '${workspaceFolder}'}", "environment variable workspaceFolder is not set"],
    ["{command: x, env: {A: '${env:HOME}'}}", "is not a variable"],
  ])("%s makes only that provider unusable", (entry, reason) => {
    const { config, problems } = load(`mcpServers:\n  a: ${entry}\n  b: {command: x}\n`);
    expect(config.providers.get("a")?.unusable).toContain(reason);
    expect(config.providers.get("b")?.unusable).toBeUndefined();
    expect(problems.every((one) => one.severity === "error" && one.line === 2)).toBe(true);
  });

  test.each(["http", "streamable-http", "sse"])(
    "url makes a remote provider, of type %s",
    (type) => {
      const headers = "{Authorization: 'Bearer ${HOME}'}";
      const { config, problems } = load(
        `mcpServers:\n  a: {type: ${type}, url: 'http://x/mcp', headers: ${headers}}\n`,
      );
      expect(problems).toEqual([]);
      expect(config.providers.get("a")).toMatchObject({
        mode: "remote",
        endpoint: "http://x/mcp",
        headers: { Authorization: "Bearer /home/someone" },
      });
      expect(config.providers.get("a")?.unusable).toBeUndefined();
    },
  );

  test("a known key of the wrong kind refuses the file, without showing secrets", () => {
    expect(
      refusal("mcpServers: {a: {command: x, env: {A: 5}, headers: {B: [s3cret]}, args: s3cret}}"),
    ).toEqual([
      "config.yaml:1:39: `mcpServers.a.env.A` must be text, so put it in quotes; it is a number",
      "config.yaml:1:56: `mcpServers.a.headers.B` must be text; it is a list",
      "config.yaml:1:73: `mcpServers.a.args` must be a list; it is text",
    ]);
  });
});

describe("any text", () => {
  test("loads or is refused with places inside the file, and never with another error", () => {
    const piece = fc.constantFrom(
      "providers:",
      "mcpServers:",
      "  a:",
      "    command: [x]",
      "\n",
      " ",
      "{",
      "}",
      "[",
      "]",
      ":",
      "- ",
      "&a ",
      "*a",
      "!t ",
      "|",
      ">",
      '"',
      "'",
      "#",
      "? ",
      "%YAML 1.1",
      "---",
      "<<: ",
      "${A}",
      "${",
      "null",
      "1",
      "\t",
      "\0",
      "é",
      "idle_ttl_s: ",
      "logging: ",
      "mode: group",
      "env: ",
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 25 }), (pieces) => {
        const text = pieces.join("");
        const lines = text.split("\n").length;
        let problems: readonly Problem[];
        try {
          ({ problems } = load(text));
        } catch (error) {
          expect(error).toBeInstanceOf(HangarError);
          problems = (error as HangarError).details["problems"] as Problem[];
          expect(problems.length).toBeGreaterThan(0);
        }
        for (const { line, column, message } of problems) {
          expect(line).toBeGreaterThanOrEqual(1);
          expect(line).toBeLessThanOrEqual(lines);
          expect(column).toBeGreaterThanOrEqual(1);
          expect(message).not.toBe("");
        }
      }),
      { numRuns: 1000 },
    );
  });
});
