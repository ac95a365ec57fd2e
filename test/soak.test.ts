/** What `npm run soak` looks at: a wrong answer, a second execution and an untrue error must not get past it. */
import { describe, expect, test } from "vitest";
import { audit, type End, judge, type Json, type Order } from "../soak/judge.ts";

const COUNT: Order = { provider: "p", tool: "count", key: "k", args: { key: "k" }, way: "direct" };
const ECHO: Order = { ...COUNT, tool: "echo", args: { key: "k", text: "ü" } };

function result(value: object, text: object = value): Json {
  return {
    id: 1,
    result: {
      content: [{ type: "text", text: JSON.stringify(text) }],
      structuredContent: value,
    },
  };
}

function refusal(code: string, more: object = {}): Json {
  return { id: 1, error: { code: -32603, message: "no", data: { code, ...more } } };
}

function invokeRefusal(code: string): Json {
  return { id: 1, result: { isError: true, content: [], structuredContent: { code } } };
}

describe("an answer", () => {
  test("is right only with the payload of its own call, in both of its forms", () => {
    const right = { key: "k", value: 1 };
    expect(judge(COUNT, result(right)).kind).toBe("answer");
    expect(judge(COUNT, result({ key: "other", value: 1 })).kind).toBe("wrong");
    expect(judge(COUNT, result({ key: "k", value: 2 })).kind).toBe("wrong");
    expect(judge(COUNT, result(right, { key: "other", value: 1 })).kind).toBe("wrong");
    expect(judge(COUNT, result({ key: "other", value: 1 }, right)).kind).toBe("wrong");
    expect(judge(COUNT, { id: 1, result: {} }).kind).toBe("wrong");
    expect(judge(ECHO, result(ECHO.args)).kind).toBe("answer");
    expect(judge(ECHO, result({ ...ECHO.args, text: "u" })).kind).toBe("wrong");
    expect(judge({ ...ECHO, tool: "read" }, result({ key: "k", value: null })).kind).toBe("answer");
    expect(judge({ ...ECHO, tool: "sleep" }, result({ slept_ms: 1 })).kind).toBe("wrong");
  });

  test("that is an error must have a code that can happen, in either form", () => {
    const timeout = { kind: "error", code: "timeout", sent: true };
    expect(judge(COUNT, refusal("timeout", { sent: true }))).toEqual(timeout);
    expect(judge(COUNT, invokeRefusal("timeout"))).toEqual({ ...timeout, sent: false });
    for (const code of ["internal", "session_not_found", "no_such_code", "constructor"]) {
      expect(judge(COUNT, refusal(code)).kind, code).toBe("wrong");
      expect(judge(COUNT, invokeRefusal(code)).kind, code).toBe("wrong");
    }
    expect(judge(COUNT, { id: 1, error: { code: -32603, message: "no" } }).kind).toBe("wrong");
  });

  test("cannot be `cancelled` unless its client cancelled", () => {
    const leaving: Order = { ...COUNT, leave: { afterMs: 1, how: "cancel" } };
    expect(judge(leaving, refusal("cancelled")).kind).toBe("cancelled");
    expect(judge(COUNT, refusal("cancelled")).kind).toBe("wrong");
  });

  test("may be unreadable only where it can be torn, and was asked for", () => {
    const torn = refusal("unreadable_answer", { sent: true });
    expect(judge({ ...COUNT, tearable: true }, torn).kind).toBe("error");
    expect(judge({ ...COUNT, tearable: true }, refusal("unreadable_answer")).kind).toBe("wrong");
    expect(judge(COUNT, torn).kind).toBe("wrong");
  });
});

describe("the ledgers", () => {
  const ran = { provider: "p", tool: "count", key: "k" };
  const problems = (end: End, ...executions: (typeof ran)[]): string[] =>
    audit(executions, new Map([["k", { order: COUNT, end }]]));

  test("agree with what was answered, cancelled or failed", () => {
    expect(problems({ kind: "answer" }, ran)).toEqual([]);
    expect(problems({ kind: "cancelled" }, ran)).toEqual([]);
    expect(problems({ kind: "cancelled" })).toEqual([]);
    expect(problems({ kind: "error", code: "timeout", sent: true }, ran)).toEqual([]);
    expect(problems({ kind: "error", code: "overloaded", sent: false })).toEqual([]);
  });

  test("show what ran twice, elsewhere, uncalled, or although the error denies it", () => {
    expect(problems({ kind: "answer" }, ran, ran)).toEqual(["count k of p ran 2 times"]);
    expect(problems({ kind: "answer" })).toEqual(["count k of p was answered but never ran"]);
    const elsewhere = { ...ran, provider: "q" };
    expect(problems({ kind: "answer" }, elsewhere)).toEqual(["q ran count k, which was for p"]);
    const uncalled = { ...ran, key: "x" };
    expect(problems({ kind: "answer" }, ran, uncalled)).toEqual([
      "p ran count x, which nobody called",
    ]);
    expect(problems({ kind: "error", code: "timeout", sent: false }, ran)).toEqual([
      "count k of p ran, though its error (timeout) does not say `sent`",
    ]);
  });
});
