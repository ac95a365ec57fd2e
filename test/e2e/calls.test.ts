/** Calls of a provider's tools through registry_invoke. */
import { describe, expect, test } from "vitest";
import { configOf, fixture, type Json, startStdio, type StdioHangar, waitFor } from "../harness.ts";

const PASSED_THROUGH =
  '{"content":[{"type":"hologram","depth":1.0},{"type":"text","text":"caf\\u00e9"}],' +
  '"structuredContent":{"big":9007199254740993,"one":1.0,"huge":1e400,"zero":-0,"twice":1,"twice":2},' +
  '"vendor":{"kept": [1.50, 2E+3]},"isError":false}';

function startWith(provider: Json, rest: Json = {}): Promise<StdioHangar> {
  return startStdio({ config: configOf({ p: provider }, rest) });
}

function invokeParams(tool: string, args: Json = {}): Json {
  return { name: "registry_invoke", arguments: { provider: "p", tool, arguments: args } };
}

async function toolNames(hangar: StdioHangar, provider = "p"): Promise<string[]> {
  const { structuredContent } = await hangar.callTool("registry_tools", { provider });
  return structuredContent.tools.map(({ name }: Json) => name);
}

describe("the result", () => {
  test("of the example provider is what the seed promises", async () => {
    const hangar = await startStdio();
    const result = await hangar.invoke("math", "add", { a: 5, b: 3 });
    expect(result.structuredContent).toEqual({ result: 8 });
    expect(result.content).toEqual([{ type: "text", text: '{"result":8}' }]);
    expect(result.isError).not.toBe(true);
  });

  test("reaches the client byte for byte, numbers and unknown members included", async () => {
    const hangar = await startWith({ command: fixture("big-numbers") });
    const { raw } = await hangar.request("tools/call", invokeParams("numbers"));
    expect(raw).toContain(`"result":${PASSED_THROUGH}`);
  });

  test("is found on the provider's side of arguments that reach it byte for byte", async () => {
    const hangar = await startWith({ command: fixture("big-numbers") });
    const args =
      '{"big":9007199254740993,"one":1.0,"huge":1e400,"zero":-0,"e":"caf\\u00e9 \\/", "a":1,"a":2}';
    const reply = hangar.replyTo("bytes");
    hangar.send(
      `{"jsonrpc":"2.0","id":"bytes","method":"tools/call","params":{"name":"registry_invoke","arguments":{"provider":"p","tool":"received","arguments":${args}}}}`,
    );
    const { result } = await reply;
    expect(result.content[0].text).toContain(`"arguments":${args}`);
  });

  test("with isError is the provider's own and passes through", async () => {
    const hangar = await startWith({ command: fixture("error-reply") });
    expect(await hangar.invoke("p", "refuse")).toEqual({
      content: [{ type: "text", text: "not today" }],
      isError: true,
    });
  });

  test.each([
    ["legacy", "legacy"],
    ["legacy", "modern"],
    ["modern", "legacy"],
    ["modern", "modern"],
  ] as const)("of a %s client and a %s provider has the client's form", async (era, provider) => {
    const config = configOf({ p: { command: fixture("add"), env: { FIXTURE_ERA: provider } } });
    const hangar = await startStdio({ config, era });
    const result = await hangar.invoke("p", "add", { a: 5, b: 3 });
    expect(result.structuredContent).toEqual({ result: 8 });
    expect(result.resultType).toBe(era === "modern" ? "complete" : undefined);
  });
});

describe("many calls at once", () => {
  test("each get their own answer under the client's own id, whatever it looks like", async () => {
    const hangar = await startWith({ command: fixture("slow") });
    const ids = ["a", 'q"uote\\', "", "1", 1, 0, -5, 2 ** 53 - 1, 1.5, "é", "id"];
    const replies = ids.map((id, n) =>
      hangar.request("tools/call", invokeParams("echo", { n }), id),
    );
    for (const [n, reply] of replies.entries()) {
      const { id, result } = await reply;
      expect(id).toBe(ids[n]);
      expect(result.structuredContent).toEqual({ n });
    }
  });

  test("keep an id that no number can hold", async () => {
    const hangar = await startWith({ command: fixture("add") });
    const params = JSON.stringify(invokeParams("echo", { n: 1 }));
    hangar.send(`{"jsonrpc":"2.0","id":9007199254740993,"method":"tools/call","params":${params}}`);
    await waitFor("the answer", () =>
      hangar.lines.some((line) => line.includes('"id":9007199254740993,')),
    );
  });

  test("run at the same time in one provider", async () => {
    const hangar = await startWith({ command: fixture("slow") });
    await hangar.invoke("p", "echo");
    const began = performance.now();
    await Promise.all(Array.from({ length: 20 }, () => hangar.invoke("p", "sleep", { ms: 300 })));
    expect(performance.now() - began).toBeLessThan(1500);
  });

  test("of one provider do not wait for a slow one of another", async () => {
    const config = configOf({ p: { command: fixture("slow") }, q: { command: fixture("add") } });
    const hangar = await startStdio({ config });
    await Promise.all([hangar.invoke("p", "echo"), hangar.invoke("q", "echo")]);
    const slow = hangar.invoke("p", "sleep", { ms: 1000 });
    const began = performance.now();
    await hangar.invoke("q", "echo");
    await hangar.callTool("registry_list");
    expect(performance.now() - began).toBeLessThan(500);
    await slow;
  });

  test("survive a thousand in flight", async () => {
    const hangar = await startWith({ command: fixture("slow") });
    const calls = Array.from({ length: 1000 }, (_, n) => hangar.invoke("p", "echo", { n }));
    const results = await Promise.all(calls);
    expect(results.map(({ structuredContent }) => structuredContent.n)).toEqual([
      ...Array(1000).keys(),
    ]);
  });
});

describe("a deadline", () => {
  test("of the caller's own never counts against the provider", async () => {
    const hangar = await startWith({ command: fixture("slow"), max_consecutive_failures: 1 });
    await hangar.invoke("p", "echo");
    for (let n = 0; n < 3; n++) await hangar.invoke("p", "sleep", { ms: 20_000 }, 0.1);
    expect(await hangar.details("p")).toMatchObject({
      state: "ready",
      health: { consecutive_failures: 0 },
    });
  });

  test.each([0, 0.05, -1, 3601, "5", true])("of %s is refused", async (timeout) => {
    const hangar = await startStdio();
    const args = { provider: "math", tool: "add", arguments: { a: 1, b: 2 }, timeout };
    const { structuredContent, isError } = await hangar.callTool("registry_invoke", args);
    expect(isError).toBe(true);
    expect(structuredContent).toMatchObject({ code: "invalid_arguments", type: "ValidationError" });
    expect(structuredContent.error).toContain("timeout");
  });
});

describe("a cancelled call", () => {
  test("does not count against the provider", async () => {
    const hangar = await startWith({ command: fixture("slow"), max_consecutive_failures: 1 });
    await hangar.invoke("p", "echo");
    const params = invokeParams("sleep", { ms: 20_000 });
    hangar.send({ jsonrpc: "2.0", id: "mine", method: "tools/call", params });
    hangar.notify("notifications/cancelled", { requestId: "mine" });
    await hangar.invoke("p", "echo");
    expect((await hangar.details("p")).state).toBe("ready");
  });

  test("that is unknown, or has ended, is no error", async () => {
    const hangar = await startWith({ command: fixture("add") });
    hangar.notify("notifications/cancelled", { requestId: "never heard of" });
    hangar.notify("notifications/cancelled", {});
    expect((await hangar.invoke("p", "echo", { n: 1 })).structuredContent).toEqual({ n: 1 });
  });
});

describe("a failure", () => {
  test("that the provider answers is passed on with its code, message and data", async () => {
    const hangar = await startWith({ command: fixture("error-reply") });
    const { structuredContent, isError, content } = await hangar.invoke("p", "fail");
    expect(isError).toBe(true);
    expect(structuredContent).toMatchObject({
      error: "tool_error: the table is locked",
      type: "ToolInvocationError",
      code: "tool_failed",
      provider_id: "p",
      operation: "registry_invoke",
      details: {
        error: {
          code: 4242,
          message: "the table is locked",
          data: { table: "users", nested: { hint: "unlock it" } },
        },
      },
    });
    expect(JSON.parse(content[0].text)).toEqual(structuredContent);
  });

  test.each(["registry_start", "registry_stop", "registry_tools", "registry_details"])(
    "of %s for an unknown provider is the documented error object",
    async (tool) => {
      const hangar = await startStdio();
      const { structuredContent, isError } = await hangar.callTool(tool, { provider: "Math" });
      expect(isError).toBe(true);
      expect(structuredContent).toMatchObject({
        error: expect.stringContaining("unknown_provider: Math"),
        type: "ProviderNotFoundError",
        code: "provider_not_found",
        provider_id: "Math",
        operation: tool,
        details: {},
      });
    },
  );

  test("of a tool that the provider does not list names the tool", async () => {
    const hangar = await startStdio();
    const { structuredContent, isError } = await hangar.invoke("math", "modulo", { a: 1 });
    expect(isError).toBe(true);
    expect(structuredContent).toMatchObject({
      code: "tool_not_found",
      type: "ToolNotFoundError",
      error: expect.stringContaining("Tool not found: modulo"),
    });
  });

  test.each([
    ["an unknown argument", { provider: "math", tool: "add", argumets: {} }, "argumets"],
    ["a missing argument", { tool: "add" }, "provider"],
    ["an argument of the wrong kind", { provider: 5, tool: "add" }, "provider"],
    ["arguments that are no object", { provider: "math", tool: "add", arguments: [1] }, "object"],
  ])("because of %s says which", async (_, args, named) => {
    const hangar = await startStdio();
    const { structuredContent, isError } = await hangar.callTool("registry_invoke", args);
    expect(isError).toBe(true);
    expect(structuredContent).toMatchObject({ code: "invalid_arguments", type: "ValidationError" });
    expect(structuredContent.error).toContain(named);
  });

  test("of an unknown tool of Hangar is a JSON-RPC error with a stable code", async () => {
    const hangar = await startStdio();
    const { error } = await hangar.request("tools/call", { name: "registry_nothing" });
    expect(error.code).toBe(-32602);
    expect(typeof error.data.code).toBe("string");
  });

  test("leaves no trace on a provider whose arguments were null or left out", async () => {
    const hangar = await startWith({ command: fixture("add") });
    for (const args of [{}, { arguments: null }]) {
      const call = { provider: "p", tool: "echo", ...args };
      const { structuredContent } = await hangar.callTool("registry_invoke", call);
      expect(structuredContent).toEqual({});
    }
  });
});

describe("a provider that misbehaves", () => {
  test("with garbage on stdout works, and the lines are counted", async () => {
    const hangar = await startWith({ command: fixture("garbage-stdout") });
    for (let n = 0; n < 3; n++) {
      expect((await hangar.invoke("p", "echo", { n })).structuredContent).toEqual({ n });
    }
    const details = await hangar.details("p");
    expect(details.state).toBe("ready");
    expect(details.noise_lines).toBeGreaterThan(10);
    for (const line of hangar.lines) expect(JSON.parse(line).jsonrpc).toBe("2.0");
  });

  test("by answering twice gives one answer", async () => {
    const hangar = await startWith({ command: fixture("double-reply") });
    for (let n = 0; n < 5; n++) {
      expect((await hangar.invoke("p", "echo", { n })).structuredContent).toEqual({ n });
    }
    expect(hangar.notifications).toEqual([]);
  });

  test("by answering what nobody asked gives the right answer", async () => {
    const hangar = await startWith({ command: fixture("wrong-id") });
    for (let n = 0; n < 5; n++) {
      expect((await hangar.invoke("p", "echo", { n })).structuredContent).toEqual({ n });
    }
    expect(hangar.notifications).toEqual([]);
  });

  test("by asking back gets an answer to each question", async () => {
    const hangar = await startWith({ command: fixture("asks-back") });
    await hangar.invoke("p", "echo");
    const answers = await waitFor("the answers", async () => {
      const { structuredContent } = await hangar.invoke("p", "answers");
      return Object.keys(structuredContent).length === 4 ? structuredContent : undefined;
    });
    expect(answers.ping).toEqual({ result: {} });
    for (const method of ["sampling/createMessage", "elicitation/create", "roots/list"]) {
      // These came outside any call.
      expect(answers[method].error.code).toBe(-32603);
      expect(answers[method].error.message).toContain("no call is under way");
    }
    const { structuredContent } = await hangar.invoke("p", "ask", { method: "elicitation/create" });
    expect(structuredContent.answer.error.code).toBe(-32601);
  });

  test("by asking for input in the modern way ends the call with an error that says so", async () => {
    const hangar = await startWith({
      command: fixture("asks-back"),
      env: { FIXTURE_ERA: "modern" },
    });
    const { structuredContent, isError } = await hangar.invoke("p", "ask", {
      method: "elicitation/create",
    });
    expect(isError).toBe(true);
    expect(structuredContent).toMatchObject({ code: "not_translatable" });
  });

  test("by a line of 8 MiB is no problem", async () => {
    const hangar = await startWith({ command: fixture("huge-line") });
    const bytes = 8 * 1024 * 1024;
    const { raw, result } = await hangar.request("tools/call", invokeParams("huge", { bytes }));
    expect(result.content[0].text).toMatch(/^x+$/);
    expect(Math.abs(raw.length - bytes)).toBeLessThan(100);
  });

  test("by a line longer than max_message_bytes costs that call only", async () => {
    const hangar = await startWith(
      { command: fixture("huge-line") },
      { max_message_bytes: 100_000 },
    );
    const good = await hangar.invoke("p", "huge", { bytes: 90_000 });
    expect(good.isError).not.toBe(true);
    const { isError, structuredContent } = await hangar.invoke("p", "huge", { bytes: 200_000 });
    expect(isError).toBe(true);
    expect(structuredContent).toMatchObject({ code: "unreadable_answer", sent: true });
    expect((await hangar.invoke("p", "echo", { n: 1 })).structuredContent).toEqual({ n: 1 });
    expect((await hangar.details("p")).noise_lines).toBe(1);
  });
});

describe("the list of tools", () => {
  test("is complete when the provider sends it in pages", async () => {
    const hangar = await startWith({ command: fixture("paginated") });
    expect(await toolNames(hangar)).toEqual(["echo", "first", "second", "third"]);
  });

  test("ends when the provider repeats its cursor", async () => {
    const hangar = await startWith({ command: fixture("repeated-cursor") });
    expect([...new Set(await toolNames(hangar))]).toEqual(["echo"]);
    expect((await hangar.invoke("p", "echo", { n: 1 })).structuredContent).toEqual({ n: 1 });
  });

  test("holds each tool once when the provider repeats its cursor", async () => {
    const hangar = await startWith({ command: fixture("repeated-cursor") });
    expect(await toolNames(hangar)).toEqual(["echo"]);
  });

  test("shows the provider's own definitions whole", async () => {
    const hangar = await startStdio();
    const { structuredContent } = await hangar.callTool("registry_tools", { provider: "math" });
    expect(structuredContent).toMatchObject({ provider: "math", provider_id: "math" });
    expect(structuredContent.tools.map(({ name }: Json) => name)).toEqual([
      "add",
      "subtract",
      "multiply",
      "divide",
      "power",
    ]);
    expect(structuredContent.tools[0]).toMatchObject({
      title: "Add",
      inputSchema: { type: "object", required: ["a", "b"] },
      outputSchema: { type: "object" },
      annotations: { readOnlyHint: true },
    });
  });

  test("follows the provider's changes", async () => {
    const hangar = await startWith({ command: fixture("list-changes") });
    expect(await toolNames(hangar)).toEqual(["echo", "add_tool"]);
    await hangar.invoke("p", "add_tool", { name: "later" });
    expect(await toolNames(hangar)).toEqual(["echo", "add_tool", "later"]);
    const { structuredContent } = await hangar.invoke("p", "later");
    expect(structuredContent).toEqual({ called: "later" });
  });

  test("need not have been read for a new tool to be called", async () => {
    const hangar = await startWith({ command: fixture("list-changes") });
    const name = "weird name; $(id) | `x` ../é";
    await hangar.invoke("p", "add_tool", { name });
    expect((await hangar.invoke("p", name)).structuredContent).toEqual({ called: name });
  });
});

describe("progress", () => {
  test.each(["string-token", 7])(
    "reaches the client under its own token %s, all of it and before the answer",
    async (progressToken) => {
      const hangar = await startWith({ command: fixture("progress") });
      await hangar.invoke("p", "echo");
      const before = hangar.lines.length;
      const params = { ...invokeParams("count", { n: 5 }), _meta: { progressToken } };
      await hangar.request("tools/call", params, "counting");
      const messages = hangar.lines.slice(before).map((line) => JSON.parse(line));
      expect(messages).toHaveLength(6);
      expect(messages.at(-1).id).toBe("counting");
      for (const [n, { method, params: note }] of messages.slice(0, 5).entries()) {
        expect(method).toBe("notifications/progress");
        expect(note).toMatchObject({ progressToken, progress: n + 1, total: 5, vendor: 1 });
      }
    },
  );

  test("of several calls at once is not mixed up", async () => {
    const hangar = await startWith({ command: fixture("progress") });
    await hangar.invoke("p", "echo");
    const calls = ["a", "b", "c"].map((progressToken, i) =>
      hangar.request("tools/call", {
        ...invokeParams("count", { n: i + 2 }),
        _meta: { progressToken },
      }),
    );
    await Promise.all(calls);
    const tokens = hangar.notifications.map(({ params }) => params.progressToken);
    expect(tokens.filter((token) => token === "a")).toHaveLength(2);
    expect(tokens.filter((token) => token === "b")).toHaveLength(3);
    expect(tokens.filter((token) => token === "c")).toHaveLength(4);
  });
});
