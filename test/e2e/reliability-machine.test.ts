/** A machine that is full, short of descriptors, or has stopped a provider: what Hangar says, and what goes on. */
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  chaos,
  configOf,
  fixture,
  type Json,
  startHttp,
  startStdio,
  StdioHangar,
  tempDir,
  waitFor,
} from "../harness.ts";

/** Runs Hangar by a shell that does `script` first; `$0` is `argument`. */
function after(script: string, argument = "sh"): string[] {
  return ["/bin/sh", "-c", `${script}; exec "$@"`, argument];
}

describe("R18: the state directory", () => {
  /** Hangar over HTTP, with a small file system of its own as state directory, which `script` spoils. */
  function startOn(script: string) {
    const stateDir = tempDir();
    const mount = 'set -e; mount -t tmpfs -o size=64k none "$0"';
    const under = ["unshare", "-m", ...after(`${mount}; ${script}`, stateDir)];
    const config = configOf({ p: { command: chaos("--noise-between") } });
    return { stateDir, started: startHttp({ config, stateDir, under }) };
  }

  test("R18: that is full costs what would be kept in it, and the log says which files", async () => {
    const { started, stateDir } = startOn('cat /dev/zero > "$0/zeros" 2>/dev/null || true');
    const hangar = await started;
    expect((await hangar.invoke("p", "echo", { n: 1 })).structuredContent).toEqual({ n: 1 });
    expect(hangar.stderr).toMatch(/until Hangar ends: [\w-]{43}\n/);
    expect(hangar.stderr).toContain(`cannot be kept in ${join(stateDir, "token")}: ENOSPC`);
    await waitFor("the log", () => /provider_log_unwritable/.test(hangar.stderr));
    expect(hangar.stderr).toContain(`"file":"${join(stateDir, "logs", "p.log")}","error":"ENOSPC`);
    expect((await hangar.close()).code).toBe(0);
  });

  test("R18: that is read-only costs no more, and the log says so", async () => {
    const { started, stateDir } = startOn('mount -o remount,ro "$0"');
    const hangar = await started;
    expect((await hangar.invoke("p", "echo", { n: 1 })).structuredContent).toEqual({ n: 1 });
    expect(hangar.stderr).toMatch(/"error":"EROFS[^\n]*state_dir_unusable/);
    expect(hangar.stderr).toContain(stateDir);
    expect((await hangar.close()).code).toBe(0);
  });
});

test("R18: too few descriptors are an error of the provider that finds none, until others have left some", async () => {
  const names = Array.from({ length: 16 }, (_, n) => `p${n}`);
  const config = configOf(
    Object.fromEntries(names.map((name) => [name, { command: fixture("add") }])),
  );
  const hangar = await startStdio({ config, under: after("ulimit -n 56") });
  const ends: Json[] = [];
  for (const name of names) ends.push(await hangar.invoke(name, "echo", { n: 1 }));
  const failed = names.filter((_, n) => ends[n].isError === true);
  const well = names.filter((_, n) => ends[n].structuredContent.n === 1);
  expect(failed.length).toBeGreaterThan(0);
  expect(well.length).toBeGreaterThan(3);
  for (const [n, name] of names.entries()) {
    if (!failed.includes(name)) continue;
    expect(ends[n].structuredContent.error).toMatch(/EMFILE.*ulimit -n/);
    expect((await hangar.details(name)).state).toBe("degraded");
  }
  for (const name of well) {
    expect((await hangar.invoke(name, "echo", { n: 2 })).structuredContent).toEqual({ n: 2 });
  }
  for (const provider of well.slice(0, 3)) await hangar.callTool("registry_stop", { provider });
  const [first = ""] = failed;
  await waitFor("it to start", async () => {
    return (await hangar.invoke(first, "echo", { n: 3 })).structuredContent.n === 3;
  });
}, 60_000);

test("R18: a provider that is suspended is degraded, holds up no other, and works when it goes on", async () => {
  const p = { command: fixture("add"), health_check_interval_s: 0.5, max_consecutive_failures: 1 };
  const config = configOf({ p: { ...p, command: chaos() }, other: { command: fixture("add") } });
  const hangar = await startStdio({ config });
  const { pid } = (await hangar.invoke("p", "pid")).structuredContent;
  process.kill(pid, "SIGSTOP");
  try {
    const held = hangar.invoke("p", "echo", { n: 1 }, 1);
    expect((await hangar.invoke("other", "echo", { n: 2 })).structuredContent).toEqual({ n: 2 });
    expect((await held).structuredContent).toMatchObject({ code: "timeout", sent: true });
    const { reason } = await hangar.waitForState("p", "degraded");
    expect(reason).toMatch(/health check failed: no answer to (ping|server\/discover) within/);
  } finally {
    process.kill(pid, "SIGCONT");
  }
  await hangar.waitForState("p", "ready");
  expect((await hangar.invoke("p", "pid")).structuredContent.pid).toBe(pid);
}, 30_000);

describe("R18: Hangar's own output", () => {
  test("R18: a stderr that is full costs the log only", async () => {
    const config = configOf({ p: { command: chaos("--noise-between") } });
    const under = after("exec 2>/dev/full");
    const hangar = await startStdio({ config, under, args: ["--log-level", "debug"] });
    for (let n = 0; n < 3; n++) {
      expect((await hangar.invoke("p", "echo", { n })).structuredContent).toEqual({ n });
    }
    for (const line of hangar.lines) expect(JSON.parse(line).jsonrpc).toBe("2.0");
    expect((await hangar.close()).code).toBe(0);
  });

  test("R18: a stdout that is full ends Hangar with the reason, and no provider is left", async () => {
    const config = configOf({ p: { command: fixture("add") } });
    const hangar = new StdioHangar({ config, under: after("exec 1>/dev/full") });
    hangar.initialize().catch(() => undefined);
    expect((await hangar.exit).code).toBe(1);
    expect(hangar.stderr).toContain("cannot write to stdout: ENOSPC");
  });
});
