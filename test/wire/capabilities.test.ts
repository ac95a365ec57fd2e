import { describe, expect, it } from "vitest";
import { missingCapability, SHARED_CAPABILITIES } from "../../src/wire/capabilities.ts";
import { type Message, scanMessage } from "../../src/wire/envelope.ts";

function ask(method: string, params: unknown = {}): Message {
  return scanMessage(JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }));
}

const ROOTS = ask("roots/list");
const SAMPLING = ask("sampling/createMessage", { messages: [] });
const SAMPLING_TOOLS = ask("sampling/createMessage", { messages: [], tools: [] });
const FORM = ask("elicitation/create", { message: "?" });
const NAMED_FORM = ask("elicitation/create", { mode: "form", message: "?" });
const URL_MODE = ask("elicitation/create", { mode: "url", url: "https://x" });

describe("what a client lacks to be asked a question", () => {
  it.each([
    ["{}", ROOTS, "roots"],
    ["{}", SAMPLING, "sampling"],
    ["{}", SAMPLING_TOOLS, "sampling.tools"],
    ["{}", FORM, "elicitation"],
    ["{}", URL_MODE, "elicitation.url"],
    ['{"sampling":{}}', SAMPLING_TOOLS, "sampling.tools"],
    ['{"sampling":{"context":{}}}', SAMPLING_TOOLS, "sampling.tools"],
    ['{"elicitation":{}}', URL_MODE, "elicitation.url"],
    ['{"elicitation":{"url":{}}}', FORM, "elicitation.form"],
    ['{"elicitation":{"url":{}}}', NAMED_FORM, "elicitation.form"],
    ['{"Roots":{},"experimental":{"roots":{}}}', ROOTS, "roots"],
  ])("having declared %s is named", (declared, question, missing) => {
    expect(missingCapability(declared, question)).toBe(missing);
  });

  it.each([
    ['{"roots":{}}', ROOTS],
    ['{"roots":{"listChanged":true}}', ROOTS],
    ['{"sampling":{}}', SAMPLING],
    ['{"sampling":{"tools":{}}}', SAMPLING_TOOLS],
    ['{"elicitation":{}}', FORM],
    ['{"elicitation":{}}', NAMED_FORM],
    ['{"elicitation":{"form":{},"url":{}}}', FORM],
    ['{"elicitation":{"form":{},"url":{}}}', URL_MODE],
    ['{"elicitation":{"url":{}}}', URL_MODE],
    ['{"\\u0072oots":{}}', ROOTS],
  ])("having declared %s is nothing", (declared, question) => {
    expect(missingCapability(declared, question)).toBeUndefined();
  });

  it("is nothing for methods that the protocol does not know", () => {
    expect(missingCapability("{}", ask("vendor/question"))).toBeUndefined();
    expect(missingCapability("{}", ask("toString"))).toBeUndefined();
  });
});

it("a shared run declares all that any client may be able to answer", () => {
  for (const question of [ROOTS, SAMPLING, SAMPLING_TOOLS, FORM, NAMED_FORM, URL_MODE]) {
    expect(missingCapability(SHARED_CAPABILITIES, question)).toBeUndefined();
  }
});
