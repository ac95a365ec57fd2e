/** Headers that repeat a tool's arguments, as the provider lists the tool now. */
import { expect, test } from "vitest";
import { configOf, ENVELOPE, fixture, type HttpReply, startHttp } from "../harness.ts";

test("a tool whose headers have changed is called as it is listed now", async () => {
  const config = configOf({ p: { command: fixture("changes-headers") } });
  const hangar = await startHttp({ config, era: "modern" });
  const call = (name: string, args: object): Promise<HttpReply> => {
    const params = { name, arguments: args, _meta: ENVELOPE };
    const message = { jsonrpc: "2.0", id: 1, method: "tools/call", params };
    return hangar.post(message, hangar.headersFor(message), "/mcp/p");
  };
  expect((await call("go", { region: "eu" })).messages).toMatchObject([
    { error: { code: -32_020 } },
  ]);
  await call("change", {});
  const { messages } = await call("go", { region: "eu" });
  expect(messages).toMatchObject([{ result: { structuredContent: { region: "eu" } } }]);
});
