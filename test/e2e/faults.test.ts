/** Hangar in front of providers that misbehave: the chaos server, with one fault or several at a time. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { chaos, configOf, startHttp, startStdio, type StdioHangar, tempDir } from "../harness.ts";

/** Faults that a gateway must put up with: a call through it is answered as if there were none. */
const HARMLESS = [
  ["--noise-before", "--noise-between", "--blank-lines", "--bom", "--crlf"],
  ["--split"],
  ["--drip-ms", "1"],
  ["--stray-replies", "--double-reply"],
  ["--stderr-bytes", "5000000", "--stderr-bytes-per-call", "1000000"],
  ["--list-changed-per-s", "2000", "--list-changed-real"],
  ["--huge-bytes", "1000000"],
  ["--exit-on-probe", "--era", "legacy"],
  ["--era", "modern", "--start-ms", "500", "--delay-ms", "50"],
];

describe("Hangar answers a call in spite of", () => {
  test.each(HARMLESS.map((flags) => [flags.join(" "), flags] as const))("%s", async (_, flags) => {
    const config = configOf({ chaos: { command: chaos(...flags) } });
    const hangar = await startStdio({ config });
    const { structuredContent } = await hangar.invoke("chaos", "echo", { é: 1 });
    expect(structuredContent).toEqual({ é: 1 });
    expect(hangar.lines.every((line) => JSON.parse(line).jsonrpc === "2.0")).toBe(true);
  });
});

/** Faults that cost a call its answer, and the error a caller gets instead. */
const HARMFUL = [
  ["--wrong-id", "timeout"],
  ["--string-id", "timeout"],
  ["--hang tools/call", "timeout"],
  ["--hang spawn", "timeout"],
  ["--endless-line 100000000", "timeout"],
  ["--stop-reading-after 3", "timeout"],
  ["--bad-utf8", "unreadable_answer"],
  ["--duplicate-keys", "unreadable_answer"],
  ["--depth 500000", "unreadable_answer"],
  ["--crash-on-start 9", "start_failed"],
] as const;

describe("Hangar tells the caller, in time, when a call is lost to", () => {
  test.each(HARMFUL)("%s: %s", async (flags, code) => {
    const command = chaos("--era", "legacy", ...flags.split(" "));
    const hangar = await startStdio({ config: configOf({ chaos: { command } }) });
    const start = performance.now();
    const { structuredContent } = await hangar.invoke("chaos", "echo", {}, 2);
    expect(structuredContent).toMatchObject({ code });
    expect(performance.now() - start).toBeLessThan(4000);
  });
});

describe("Hangar and a remote provider", () => {
  async function hangarBefore(...flags: string[]): Promise<StdioHangar> {
    // As a modern client, it does not shake hands first: with --http-close it could not.
    const server = { chaos: ["--http", "0", "--era", "legacy", ...flags], era: "modern" } as const;
    const { url } = await startHttp(server);
    const chaos = { mode: "remote", endpoint: url };
    return await startStdio({ config: configOf({ chaos }) });
  }

  test("that forgets its sessions: every call is answered", async () => {
    const hangar = await hangarBefore("--http-forget-sessions-after", "3");
    for (let count = 1; count <= 5; count += 1) {
      const { structuredContent } = await hangar.invoke("chaos", "count");
      expect(structuredContent).toEqual({ key: "default", value: count });
    }
  });

  test.each([
    ["--http-eof", { code: "remote_failed", sent: true }],
    ["--http-status 503 --http-retry-after 60", { code: "remote_failed", retryAfterMs: 60_000 }],
    ["--http-close", { code: "start_failed" }],
  ])("with %s: a call fails at once", async (flags, error) => {
    const hangar = await hangarBefore(...flags.split(" "));
    const start = performance.now();
    const { structuredContent } = await hangar.invoke("chaos", "count");
    expect(structuredContent).toMatchObject(error);
    expect(performance.now() - start).toBeLessThan(4000);
  });
});

test("Hangar runs a call once that is executed and not answered", async () => {
  const ledger = join(tempDir(), "ledger");
  const command = chaos("--crash-after", "1", "--ledger", ledger);
  const hangar = await startStdio({ config: configOf({ chaos: { command } }) });
  const { structuredContent } = await hangar.invoke("chaos", "count");
  expect(structuredContent).toMatchObject({ code: "provider_exited", sent: true });
  await sleep(1000); // longer than the wait before the first restart
  expect(readFileSync(ledger, "utf8").trim().split("\n")).toHaveLength(1);
});
