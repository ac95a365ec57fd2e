import type { ChildProcess } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  BIN,
  configOf,
  fixture,
  type Json,
  runCli,
  startHttp,
  startStdio,
  tempDir,
  waitFor,
} from "../harness.ts";

const PRINTS = { command: fixture("prints") };
const MIB = 1024 * 1024;
const SMALLEST = 128 * 1024;

/** A state directory, a configuration with these providers, and `logs` for both. */
function setUp(providers: Json = { p: PRINTS }, logging: Json = {}) {
  const config = configOf(providers, { logging });
  const stateDir = tempDir();
  const flags = ["--config", config, "--state-dir", stateDir];
  return {
    options: { config, stateDir },
    flags,
    folder: join(stateDir, "logs"),
    logs: (...args: string[]) => runCli(["logs", ...args, ...flags]),
  };
}

/** All lines of all files of a provider's log that are whole, oldest first. */
function stored(folder: string, provider = "p"): Json[] {
  return filesOf(folder, provider)
    .flatMap((file) => readFileSync(file, "utf8").split("\n"))
    .flatMap((line) => {
      try {
        return [JSON.parse(line)];
      } catch {
        return [];
      }
    });
}

function filesOf(folder: string, provider = "p"): string[] {
  if (!existsSync(folder)) return [];
  const names = readdirSync(folder).filter((name) => name.startsWith(`${provider}.`));
  // The one that grows has the shortest name.
  return names
    .toSorted((a, b) => b.length - a.length || (a < b ? -1 : 1))
    .map((name) => join(folder, name));
}

/** The numbers of numbered lines. */
function numbersIn(texts: readonly string[]): number[] {
  return texts.flatMap((text) => {
    const number = /^line (\d+)\b/.exec(text)?.[1];
    return number === undefined ? [] : [Number(number)];
  });
}

function upTo(to: number, from = 1): number[] {
  return Array.from({ length: to - from + 1 }, (_, index) => from + index);
}

function textsOf(lines: readonly Json[], stream?: string): string[] {
  return lines
    .filter((line) => stream === undefined || line.stream === stream)
    .map(({ text }) => text);
}

function linesIn(text: string): string[] {
  return text.trim().split("\n");
}

/** The events of this type in Hangar's own log. */
function eventsIn(stderr: string, type: string): Json[] {
  const lines = stderr.split("\n").filter((line) => line.startsWith("{"));
  return lines.map((line): Json => JSON.parse(line)).filter(({ msg }) => msg === type);
}

describe("the log of a provider", () => {
  test("has what it prints and when it starts and ends, and logs prints it while Hangar runs and afterwards", async () => {
    const { options, folder, logs } = setUp();
    const hangar = await startStdio(options);
    await hangar.invoke("p", "print", { lines: ["one", "", "two"] });
    await hangar.invoke("p", "print", { lines: ["a banner", '{"not":"rpc"}'], stream: "stdout" });
    const { run, stderr } = await hangar.details("p");
    expect(stderr).toEqual(["one", "two", "stdout: a banner", 'stdout: {"not":"rpc"}']);
    await waitFor("the last line", () => textsOf(stored(folder)).includes('{"not":"rpc"}'));
    const during = await logs("p");
    expect(during.stdout).toMatch(
      /^[-\d]+T[\d:.]+Z -- run 1 started, pid \d+\n\S+Z run 1 stderr: one\n\S+Z run 1 stderr: two\n\S+Z run 1 stdout: a banner\n\S+Z run 1 stdout: \{"not":"rpc"\}\n$/,
    );
    await hangar.callTool("registry_stop", { provider: "p" });
    await hangar.close();
    const { code, stdout, stderr: complaints } = await logs("p", "--json");
    expect({ run, code, complaints }).toEqual({ run: 1, code: 0, complaints: "" });
    const lines = stdout
      .trim()
      .split("\n")
      .map((line): Json => JSON.parse(line));
    expect(lines[1]).toEqual({
      time: expect.stringMatching(/^[-\d]+T[\d:.]+Z$/),
      hangar: hangar.pid,
      run: 1,
      stream: "stderr",
      text: "one",
    });
    expect(textsOf(lines).slice(-2)).toEqual([
      expect.stringMatching(/^-- stopped: /),
      expect.stringMatching(/^-- run 1 ended with exit code 0, pid \d+$/),
    ]);
    const few = await logs("p", "--lines", "2");
    expect(few.stdout.trim().split("\n")).toHaveLength(2);
    expect(during.stdout.split("\n")[0]).toBe((await logs("p")).stdout.split("\n")[0]);
  });

  test("is for nobody else's eyes", async () => {
    const { options, folder } = setUp();
    const hangar = await startStdio(options);
    await hangar.invoke("p", "print", { lines: ["one"] });
    await hangar.close();
    const modes = [folder, ...filesOf(folder)].map((path) => statSync(path).mode & 0o777);
    expect(modes).toEqual([0o700, 0o600]);
  });

  test("tells in numbered runs how each ended, also one that crashes, and one that never came up", async () => {
    const { options, folder } = setUp({
      p: { command: fixture("crash-mid-call") },
      s: { command: fixture("crash-on-start"), protocol: "legacy" },
      none: { command: ["no-such-program-here"] },
    });
    const hangar = await startStdio(options);
    await hangar.invoke("p", "crash");
    await hangar.callTool("registry_start", { provider: "p" });
    await hangar.invoke("s", "echo");
    await hangar.invoke("none", "echo");
    await hangar.close();
    const own = stored(folder).filter(({ stream }) => stream === "hangar");
    expect(textsOf(own).map((text) => text.replace(/, pid \d+$/, ""))).toEqual([
      "-- run 1 started",
      "-- run 1 ended with exit code 7",
      "-- run 2 started",
      "-- stopped: Hangar shuts down",
      "-- run 2 ended with exit code 0",
    ]);
    expect(own.map((line) => line.run)).toEqual([1, 1, 2, undefined, 2]);
    expect(textsOf(stored(folder, "s"))).toEqual([
      expect.stringMatching(/^-- run 1 started, pid \d+$/),
      "fatal: cannot open database /var/lib/fixture.db",
      expect.stringMatching(/^-- run 1 ended with exit code 3, pid \d+$/),
    ]);
    expect(textsOf(stored(folder, "none"))).toEqual([
      expect.stringMatching(/^-- dead: .*no-such-program-here/),
    ]);
  });

  test("of a provider with scope session is one file for the runs of all clients", async () => {
    const { options, folder } = setUp({ p: { ...PRINTS, scope: "session" } });
    const hangar = await startHttp(options);
    await hangar.invoke("p", "print", { lines: ["from the first"] });
    await hangar.initialize();
    await hangar.invoke("p", "print", { lines: ["from the second"] });
    await hangar.close();
    const lines = stored(folder);
    expect(textsOf(lines, "stderr")).toEqual(["from the first", "from the second"]);
    expect(textsOf(lines).filter((text) => text.startsWith("-- run 1 started"))).toHaveLength(2);
  });

  test("has no secret in it, on neither stream, not even the beginning of one where a line is cut", async () => {
    const secret = "canary-7f3a9c1e5b";
    const long = `${"y".repeat(16 * 1024 - 6)}${secret} and more`;
    const { options, folder, logs } = setUp({ p: { ...PRINTS, env: { API_TOKEN: secret } } });
    const hangar = await startStdio(options);
    for (const stream of ["stderr", "stdout"]) {
      await hangar.invoke("p", "print", { stream, lines: [`it is ${secret}!`, long] });
    }
    const details = JSON.stringify(await hangar.details("p"));
    await hangar.close();
    const text = readFileSync(join(folder, "p.log"), "utf8");
    const { stdout } = await logs("p");
    for (const shown of [text, stdout, details]) {
      expect(shown.match(/it is \[redacted\]!/g)?.length).toBeGreaterThanOrEqual(2);
      expect(shown).not.toContain(secret.slice(0, 5));
    }
  });

  test("has lines of 16 kB at most, and nothing of what an endless one goes on with", async () => {
    const { options, folder } = setUp();
    const hangar = await startStdio(options);
    for (const stream of ["stderr", "stdout"]) {
      const lines = ["z".repeat(3 * MIB), "after it"];
      await hangar.invoke("p", "print", { stream, lines });
    }
    await hangar.close();
    for (const stream of ["stderr", "stdout"]) {
      expect(textsOf(stored(folder), stream)).toEqual([`${"z".repeat(16 * 1024)}…`, "after it"]);
    }
  });

  test("steers no terminal: colours are left out, everything else becomes visible", async () => {
    const { options, folder, logs } = setUp();
    const hangar = await startStdio(options);
    const lines = [
      "\u001b[1;32mgreen\u001b[0m and \u001b]0;a title\u0007plain",
      "back\rwards\b \u009b2J \u202eevil \u001b[",
      "tab\tstays, and so do ümläuts 🎉",
    ];
    await hangar.invoke("p", "print", { lines });
    await hangar.close();
    const [plain, json] = await Promise.all([logs("p"), logs("p", "--json")]);
    for (const text of [plain.stdout, json.stdout, readFileSync(join(folder, "p.log"), "utf8")]) {
      // oxlint-disable-next-line no-control-regex -- they are what must not be there
      expect(text).not.toMatch(/[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]/);
    }
    expect(plain.stdout).toContain(" stderr: green and plain\n");
    expect(plain.stdout).toContain(
      String.raw` stderr: back\u000dwards\u0008 \u009b2J \u202eevil \u001b[`,
    );
    expect(plain.stdout).toContain(" stderr: tab\tstays, and so do ümläuts 🎉\n");
    const texts = json.stdout
      .trim()
      .split("\n")
      .map((line): string => JSON.parse(line).text);
    expect(texts.slice(1, 4)).toEqual(lines);
  });

  test("logs says when there is none yet, and which providers there are", async () => {
    const { logs, folder } = setUp();
    const none = await logs("p");
    expect(none).toMatchObject({ code: 0, stdout: "" });
    expect(none.stderr).toBe(
      `mcp-hangar: there is no log of provider p yet; ${join(folder, "p.log")} will have it\n`,
    );
    expect(existsSync(folder)).toBe(false);
    const unknown = await logs("q");
    expect(unknown).toMatchObject({ code: 3, stdout: "" });
    expect(unknown.stderr).toBe("mcp-hangar: unknown_provider: q; there are: p\n");
    const wrong = await logs("p", "--lines", "many");
    expect(wrong.code).toBe(2);
    expect(wrong.stderr).toContain("must be a whole number");
  });
});

describe("noise on stdout", () => {
  test("is among the last words of a provider that ends instead of answering", async () => {
    const said = "echo starting >&2; echo 'Error: no database X'; printf 'the end' >&2; exit 4";
    const { flags, folder } = setUp({ p: { command: ["sh", "-c", said], protocol: "legacy" } });
    const called = await runCli(["call", "p", "echo", ...flags]);
    expect(called.code).toBe(5);
    expect(called.stderr).toContain("ended with exit code 4");
    const [, last = ""] = called.stderr.split("last output:\n");
    // Between the two pipes there is no order.
    const words = ["starting", "stdout: Error: no database X", "the end"];
    expect(
      linesIn(last)
        .map((line) => line.trim())
        .toSorted(),
    ).toEqual(words);
    const texts = textsOf(stored(folder));
    expect(texts.slice(1, -1).toSorted()).toEqual(["Error: no database X", "starting", "the end"]);
    expect(texts.at(-1)).toContain("-- run 1 ended");
  });

  test("makes a provider noisy from 1000 lines of one run on, which is told once", async () => {
    const { options } = setUp();
    const hangar = await startStdio(options);
    const health = async () => {
      const { noise_lines, health: figures } = await hangar.details("p");
      return [noise_lines, figures.noisy];
    };
    await hangar.invoke("p", "count", { stream: "stdout", to: 999 });
    expect(await health()).toEqual([999, false]);
    await hangar.invoke("p", "count", { stream: "stdout", to: 1 });
    expect(await health()).toEqual([1000, true]);
    await hangar.invoke("p", "count", { stream: "stdout", to: 50 });
    await hangar.callTool("registry_stop", { provider: "p" });
    await hangar.invoke("p", "echo");
    expect(await health()).toEqual([0, false]);
    await hangar.close();
    const told = eventsIn(hangar.stderr, "provider_noise");
    expect(told.map(({ level, count }) => [level, count])).toEqual([
      ["warn", 1],
      ["warn", 1000],
    ]);
  });
});

describe("the files of a log", () => {
  test("provider_log_max_bytes is how large one gets, provider_log_files how many there are", async () => {
    const limits = { provider_log_max_bytes: SMALLEST, provider_log_files: 3 };
    const { options, folder, logs } = setUp({ p: PRINTS }, limits);
    const hangar = await startStdio(options);
    // About six files' worth, slowly enough for all of it to be written.
    for (const [from, to] of [
      [1, 2000],
      [2001, 4000],
      [4001, 6000],
    ]) {
      await hangar.invoke("p", "count", { from, to, bytes: 20 });
      await waitFor(`line ${to}`, () => numbersIn(textsOf(stored(folder))).includes(to as number));
    }
    await hangar.close();
    const sizes = filesOf(folder).map((file) => statSync(file).size);
    expect(sizes).toHaveLength(3);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(SMALLEST);
    expect(Math.min(...sizes.slice(0, 2))).toBeGreaterThan(SMALLEST * 0.9);
    const { stdout } = await logs("p", "--lines", "100000", "--json");
    const numbers = numbersIn(
      textsOf(
        stdout
          .trim()
          .split("\n")
          .map((line): Json => JSON.parse(line)),
      ),
    );
    expect(numbers).toEqual(upTo(6000, numbers[0]));
    expect(numbers.length).toBeGreaterThan(2000);
    // The last lines, over the border of a file.
    const newest = readFileSync(filesOf(folder).at(-1) ?? "", "utf8")
      .trim()
      .split("\n").length;
    const some = await logs("p", "--lines", String(newest + 5), "--json");
    expect(some.stdout.trim().split("\n")).toEqual(
      stdout
        .trim()
        .split("\n")
        .slice(-newest - 5),
    );
  });

  test("provider_log_files 0 keeps none, and logs says why there is none", async () => {
    const { options, folder, logs } = setUp({ p: PRINTS }, { provider_log_files: 0 });
    const hangar = await startStdio(options);
    await hangar.invoke("p", "print", { lines: ["one"] });
    expect((await hangar.details("p")).stderr).toEqual(["one"]);
    await hangar.close();
    expect(existsSync(folder)).toBe(false);
    const { code, stderr } = await logs("p", "-f");
    expect(code).toBe(0);
    expect(stderr).toContain("logging.provider_log_files is 0");
  });

  test("are shared by several Hangars, and no line is lost or torn when both fill them", async () => {
    const limits = { provider_log_max_bytes: SMALLEST, provider_log_files: 100 };
    const { options, folder } = setUp({ p: PRINTS }, limits);
    const hangars = await Promise.all([startStdio(options), startStdio(options)]);
    const rounds = 8;
    await Promise.all(
      hangars.map(async (hangar) => {
        for (let round = 0; round < rounds; round++) {
          const from = 1 + round * 500;
          await hangar.invoke("p", "count", { from, to: from + 499, bytes: 50 });
          await waitFor("its lines", () =>
            stored(folder).some(
              (line) => line.hangar === hangar.pid && line.text.startsWith(`line ${from + 499} `),
            ),
          );
        }
      }),
    );
    await Promise.all(hangars.map((hangar) => hangar.close()));
    const lines = stored(folder);
    for (const { pid } of hangars) {
      const own = textsOf(lines.filter(({ hangar }) => hangar === pid));
      expect(numbersIn(own).toSorted((a, b) => a - b)).toEqual(upTo(500 * rounds));
    }
    const all = filesOf(folder).map((file) => readFileSync(file, "utf8"));
    expect(all.join("").trim().split("\n")).toHaveLength(lines.length);
    expect(all.length).toBeGreaterThan(5);
    // Half a batch of the other may come on top.
    expect(Math.max(...all.map(({ length }) => length))).toBeLessThan(2 * SMALLEST);
  });

  test("are followed by logs -f over their borders, without a line lost or twice", async () => {
    const limits = { provider_log_max_bytes: SMALLEST, provider_log_files: 3 };
    const { options, folder, flags } = setUp({ p: PRINTS }, limits);
    let child: ChildProcess | undefined;
    let seen = "";
    let told = "";
    const following = runCli(["logs", "p", "-f", "--json", ...flags], {
      started: (started) => {
        child = started;
        started.stdout?.on("data", (text: string) => {
          seen += text;
        });
        started.stderr?.on("data", (text: string) => {
          told += text;
        });
      },
    });
    // It is to see everything from the first line on.
    await waitFor("logs to look", () => told.includes("there is no log of provider p yet"));
    const hangar = await startStdio(options);
    const rounds = 12;
    for (let round = 0; round < rounds; round++) {
      const from = 1 + round * 500;
      await hangar.invoke("p", "count", { from, to: from + 499, bytes: 50 });
      await waitFor(`line ${from + 499}`, () => seen.includes(`line ${from + 499} `));
    }
    await waitFor("the border of a file", () => filesOf(folder).length === 3);
    await hangar.close();
    await waitFor("the end of the run", () => seen.includes("-- run 1 ended"));
    child?.kill("SIGINT");
    const { code, stdout } = await following;
    expect(code).toBe(130);
    const lines = stdout
      .trim()
      .split("\n")
      .map((line): Json => JSON.parse(line));
    expect(numbersIn(textsOf(lines))).toEqual(upTo(500 * rounds));
  });
});

describe("what goes wrong with the files", () => {
  test("a folder that cannot be made is told once, calls go on, and the lines are written when it can be", async () => {
    const { options, folder } = setUp();
    writeFileSync(folder, "a file where the folder should be");
    const hangar = await startStdio(options);
    for (let n = 1; n <= 5; n++) await hangar.invoke("p", "count", { from: n, to: n });
    const told = () => eventsIn(hangar.stderr, "provider_log_unwritable");
    await waitFor("the event", () => told().length > 0);
    await new Promise((resolve) => setTimeout(resolve, 2500)); // two more attempts
    const event = { level: "warn", provider: "p", error: expect.stringContaining("ENOTDIR") };
    expect(told()).toMatchObject([event]);
    rmSync(folder);
    await waitFor("the lines", () => numbersIn(textsOf(stored(folder))).length === 5);
    // It may vanish again, and the state directory with it.
    rmSync(options.stateDir, { recursive: true });
    await hangar.invoke("p", "count", { from: 6, to: 6 });
    await waitFor("the new line", () => numbersIn(textsOf(stored(folder))).includes(6));
    expect(statSync(folder).mode & 0o777).toBe(0o700);
    expect(told()).toHaveLength(1);
    expect((await hangar.close()).code).toBe(0);
  });

  test("a full disk costs the oldest lines beyond 1 MiB, and the file says how many", async () => {
    const { options, folder } = setUp();
    mkdirSync(folder);
    symlinkSync("/dev/full", join(folder, "p.log"));
    const hangar = await startStdio(options);
    const count = 6000;
    await hangar.invoke("p", "count", { to: count, bytes: 500 });
    await waitFor("the event", () => eventsIn(hangar.stderr, "provider_log_unwritable").length > 0);
    const [event] = eventsIn(hangar.stderr, "provider_log_unwritable");
    expect(event.error).toContain("ENOSPC");
    rmSync(join(folder, "p.log"));
    await waitFor("the last line", () => numbersIn(textsOf(stored(folder))).at(-1) === count);
    const [gap, ...texts] = textsOf(stored(folder));
    const missing = Number(/^-- (\d+) lines are missing here/.exec(gap ?? "")?.[1]);
    const numbers = numbersIn(texts);
    expect(numbers).toEqual(upTo(count, numbers[0]));
    // The start of the run is missing, too.
    expect(missing).toBe(count - numbers.length + 1);
    expect(statSync(join(folder, "p.log")).size).toBeGreaterThan(0.9 * MIB);
    expect(statSync(join(folder, "p.log")).size).toBeLessThan(1.1 * MIB);
    expect((await hangar.close()).code).toBe(0);
  });

  test("half a line that a full disk leaves spoils no other", async () => {
    const { flags, folder, logs } = setUp();
    const call = (to: number) => [
      "call",
      "p",
      "count",
      JSON.stringify({ to, bytes: 500 }),
      ...flags,
    ];
    // A limit on the size of files does to a write what a full disk does: it takes a part.
    const limited = ["-c", 'ulimit -f 40; exec "$@"', "sh", process.execPath, BIN, ...call(200)];
    expect(await runCli(limited, { program: "/bin/sh" })).toMatchObject({ code: 0 });
    const file = join(folder, "p.log");
    const torn = readFileSync(file, "utf8");
    expect(torn.length % 512).toBe(0);
    expect(torn.endsWith("\n")).toBe(false);
    expect((await runCli(call(3))).code).toBe(0);
    const added = linesIn(readFileSync(file, "utf8").slice(torn.length));
    const texts = textsOf(added.map((line): Json => JSON.parse(line)));
    expect(texts[0]).toMatch(/^-- run 1 started/);
    expect(numbersIn(texts)).toEqual([1, 2, 3]);
    expect(texts.at(-1)).toMatch(/^-- run 1 ended/);
    const { code, stdout } = await logs("p");
    expect(code).toBe(0);
    expect(stdout).toContain("line 3 ");
  });

  test("R11: a flood of 100 MB on stderr, in lines or in none, grows neither memory nor disk beyond their bounds, and slows no other provider", async () => {
    const { options, folder } = setUp({ p: PRINTS, other: { command: fixture("add") } });
    // What the runtime sets aside for short-lived objects would hide what is kept.
    const env = { NODE_OPTIONS: "--max-semi-space-size=4" };
    const hangar = await startStdio({ ...options, env });
    const peak = () =>
      Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${hangar.pid}/status`, "utf8"))?.[1]);
    await hangar.invoke("p", "count", { to: 1 });
    await hangar.invoke("other", "add", { a: 1, b: 2 });
    const before = peak();
    const state = { flooding: true };
    const flood = hangar.invoke("p", "count", { from: 2, to: 100_000, bytes: 1024 }).finally(() => {
      state.flooding = false;
    });
    const latencies: number[] = [];
    while (state.flooding) {
      const start = performance.now();
      await hangar.invoke("other", "add", { a: 1, b: 2 });
      latencies.push(performance.now() - start);
    }
    await flood;
    const median = latencies.toSorted((a, b) => a - b)[Math.floor(latencies.length / 2)] ?? 0;
    await hangar.invoke("p", "endless", { bytes: 100 * MIB });
    const grownMb = (peak() - before) / 1024;
    expect(latencies.length).toBeGreaterThan(5);
    expect(median).toBeLessThan(100);
    expect(grownMb).toBeLessThan(100);
    await hangar.close();
    const sizes = filesOf(folder).map((file) => statSync(file).size);
    expect(sizes.length).toBeLessThanOrEqual(3);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(10 * MIB);
    const texts = textsOf(stored(folder));
    expect(numbersIn(texts).at(-1)).toBe(100_000);
    expect(texts.at(-1)).toContain("-- run 1 ended");
  }, 60_000);
});
