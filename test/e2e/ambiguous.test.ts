/** What says something twice, or is no object where one is due, is the affair of whoever sent it, and of nobody else. */
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import {
  configOf,
  ENVELOPE,
  fixture,
  startedPids,
  startHttp,
  startStdio,
  StdioHangar,
  tempDir,
  waitFor,
} from "../harness.ts";
import { isAlive } from "../processes.ts";
import { openStream } from "../remote-server.ts";

const TWICE = '{"jsonrpc":"2.0","id":%id%,"error":{"code":-32000,"code":-32001,"message":"x"}}';

test("a provider's error that says its code twice ends the call", async () => {
  const hangar = await startStdio({ config: configOf({ puppet: { command: fixture("puppet") } }) });
  const { structuredContent } = await hangar.invoke("puppet", "say", { lines: [TWICE] });
  expect(structuredContent).toMatchObject({ code: "unreadable_answer", sent: true });
});

test("a client that declares a capability twice has not declared it", async () => {
  const config = configOf({ asks: { command: fixture("asks-later") } });
  const hangar = new StdioHangar({ config, args: ["--provider", "asks"] });
  const answer = hangar.replyTo(0);
  hangar.send(
    '{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25",' +
      '"capabilities":{"roots":{},"roots":{}},"clientInfo":{"name":"test","version":"1.0.0"}}}',
  );
  await answer;
  const { result } = await hangar.request("tools/call", {
    name: "now",
    arguments: { method: "roots/list" },
  });
  expect(result.structuredContent.answer.error.message).toContain("capability roots");
});

test("a call that cannot be put to its provider is refused, and forgotten", async () => {
  const config = configOf({ modern: { command: fixture("modern-only"), timeout_s: 0.5 } });
  const hangar = new StdioHangar({ config, args: ["--provider", "modern"], era: "modern" });
  await hangar.request("tools/list");
  for (const method of ["tools/call", "subscriptions/listen"]) {
    const answer = hangar.replyTo(method);
    hangar.send({ jsonrpc: "2.0", id: method, method, params: [1] });
    expect((await answer).error).toMatchObject({ code: -32_602 });
  }
  await sleep(800); // longer than the deadline
  expect((await hangar.request("tools/list")).result.tools).toHaveLength(1);
});

test("a subscription that says twice what it wants is refused, and does not come up in later runs", async () => {
  const hangar = await startHttp({
    config: configOf({ modern: { command: fixture("modern-only") } }),
    era: "modern",
  });
  const name = "subscriptions/listen";
  const headers = { "mcp-protocol-version": "2026-07-28", "mcp-method": name };
  const params = `{"notifications":{"toolsListChanged":true,"toolsListChanged":true},"_meta":${JSON.stringify(ENVELOPE)}}`;
  const message = `{"jsonrpc":"2.0","id":1,"method":"${name}","params":${params}}`;
  await hangar.invoke("modern", "echo");
  const { messages } = await hangar.post(message, headers, "/mcp/modern");
  expect(messages).toMatchObject([{ id: 1, error: { code: -32_600 } }]);
});

test("the run of a client that leaves before its handshake ends with it", async () => {
  const starts = join(tempDir(), "starts");
  const own = { command: fixture("add"), env: { START_LOG: starts }, scope: "session" };
  const hangar = await startHttp({ config: configOf({ own }) });
  const events = await openStream(`${hangar.origin}/sse/own`, {});
  const lines = (): string => events.lines.join("\n");
  const endpoint = await waitFor("the endpoint", () => /data: (\S+)/.exec(lines())?.[1]);
  await hangar.post({ jsonrpc: "2.0", id: 1, method: "tools/list" }, {}, endpoint);
  await waitFor("the answer", () => lines().includes('"tools"'));
  const [pid = 0] = startedPids(starts);
  events.close();
  await waitFor("the end of its run", () => !isAlive(pid));
});
