/**
 * The server that the conformance suite looks for: its tools, prompts and resources by name, with the payloads
 * its scenarios compare with. What a scenario does not look at is as small as it can be.
 */
import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import {
  acceptedContent,
  type CallToolResult,
  CLIENT_CAPABILITIES_META_KEY,
  type ClientCapabilities,
  completable,
  createRequestStateCodec,
  type ElicitResult,
  fromJsonSchema,
  inputRequired,
  inputResponse,
  McpServer,
  ResourceTemplate,
  type ServerContext,
} from "@modelcontextprotocol/server";
import * as z from "zod";

/** Tells clients that a list has changed; who carries that differs between one connection and many. */
export interface Changes {
  toolsChanged(): void;
  promptsChanged(): void;
}

const PNG =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==";
/** A header, and no samples. */
const WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA=";
const STEP_MS = 50;

/** One key for the process: over HTTP every request of the modern era has a server of its own. */
const states = createRequestStateCodec<string>({ key: randomBytes(32) });

/** One server, for one connection or one request; `changes` as in Changes, or the server's own connection. */
export function createServer(changes?: Changes): McpServer {
  const server = new McpServer(
    { name: "conformance-fixture", version: "1.0.0" },
    {
      capabilities: {
        completions: {},
        logging: {},
        prompts: { listChanged: true },
        resources: { listChanged: true, subscribe: true },
        tools: { listChanged: true },
      },
      requestState: { verify: (state, ctx) => states.verify(state, ctx) },
    },
  );
  addContentTools(server);
  addRunningTools(server);
  addAskingTools(server);
  addInputRequiredTools(server);
  addTaskTools(server);
  addChangeTools(server, changes ?? ownConnection(server));
  addPrompts(server);
  addResources(server);
  return server;
}

function ownConnection(server: McpServer): Changes {
  return {
    toolsChanged: () => server.sendToolListChanged(),
    promptsChanged: () => server.sendPromptListChanged(),
  };
}

function text(value: string): CallToolResult {
  return { content: [{ type: "text", text: value }] };
}

const image = { type: "image" as const, data: PNG, mimeType: "image/png" };

/** Apart, because the type of schemas knows no keywords but its own. */
const headerSchema = {
  type: "object" as const,
  properties: { region: { type: "string" as const, "x-mcp-header": "Region" } },
};

/** Tools that only answer. The first one takes no arguments, which the header scenarios count on. */
function addContentTools(server: McpServer): void {
  server.registerTool("test_simple_text", { description: "Returns text" }, () =>
    text("This is a simple text response for testing."),
  );
  server.registerTool("test_image_content", { description: "Returns an image" }, () => ({
    content: [image],
  }));
  server.registerTool("test_audio_content", { description: "Returns audio" }, () => ({
    content: [{ type: "audio", data: WAV, mimeType: "audio/wav" }],
  }));
  server.registerTool("test_embedded_resource", { description: "Returns a resource" }, () => ({
    content: [
      {
        type: "resource",
        resource: {
          uri: "test://embedded-resource",
          mimeType: "text/plain",
          text: "This is an embedded resource content.",
        },
      },
    ],
  }));
  server.registerTool(
    "test_multiple_content_types",
    { description: "Returns text, an image and a resource" },
    () => ({
      content: [
        { type: "text", text: "Multiple content types test:" },
        image,
        {
          type: "resource",
          resource: {
            uri: "test://mixed-content-resource",
            mimeType: "application/json",
            text: JSON.stringify({ test: "data", value: 123 }),
          },
        },
      ],
    }),
  );
  server.registerTool("test_error_handling", { description: "Always fails" }, () => {
    throw new Error("This tool intentionally returns an error for testing");
  });
  server.registerTool(
    "json_schema_2020_12_tool",
    {
      description: "Tool with JSON Schema 2020-12 features",
      inputSchema: fromJsonSchema({
        $schema: "https://json-schema.org/draft/2020-12/schema",
        type: "object",
        $defs: {
          address: {
            $anchor: "addressDef",
            type: "object",
            properties: { street: { type: "string" }, city: { type: "string" } },
          },
        },
        properties: {
          name: { type: "string" },
          address: { $ref: "#/$defs/address" },
          contactMethod: { type: "string", enum: ["phone", "email"] },
          phone: { type: "string" },
          email: { type: "string" },
        },
        allOf: [{ anyOf: [{ required: ["phone"] }, { required: ["email"] }] }],
        if: { properties: { contactMethod: { const: "phone" } }, required: ["contactMethod"] },
        // oxlint-disable-next-line no-thenable -- a keyword of JSON Schema
        then: { required: ["phone"] },
        else: { required: ["email"] },
        additionalProperties: false,
      }),
    },
    () => text("valid"),
  );
  server.registerTool(
    "test_header_param",
    {
      description: "Wants its argument in a header too",
      inputSchema: fromJsonSchema<{ region?: string }>(headerSchema),
    },
    ({ region }) => text(`region: ${region ?? "none"}`),
  );
}

/** Tools that send something before their result. */
function addRunningTools(server: McpServer): void {
  server.registerTool(
    "test_tool_with_logging",
    { description: "Logs while it runs" },
    async (ctx) => {
      await ctx.mcpReq.log("info", "Tool execution started");
      await sleep(STEP_MS);
      await ctx.mcpReq.log("info", "Tool processing data");
      await sleep(STEP_MS);
      await ctx.mcpReq.log("info", "Tool execution completed");
      return text("Tool with logging executed successfully");
    },
  );
  server.registerTool("test_logging_tool", { description: "Logs once" }, async (ctx) => {
    await ctx.mcpReq.log("info", "Only for those who asked for a log level");
    return text("logged");
  });
  server.registerTool(
    "test_tool_with_progress",
    { description: "Reports progress while it runs" },
    async (ctx) => {
      await reportProgress(ctx, 0);
      await sleep(STEP_MS);
      await reportProgress(ctx, 50);
      await sleep(STEP_MS);
      await reportProgress(ctx, 100);
      return text("Tool with progress executed successfully");
    },
  );
  server.registerTool(
    "test_reconnection",
    { description: "Closes its event stream before it answers, where there is one" },
    async (ctx) => {
      ctx.http?.closeSSE?.();
      await sleep(2 * STEP_MS);
      return text("Reconnection test completed");
    },
  );
}

async function reportProgress(ctx: ServerContext, progress: number): Promise<void> {
  const progressToken = ctx.mcpReq._meta?.progressToken;
  if (progressToken === undefined) return;
  await ctx.mcpReq.notify({
    method: "notifications/progress",
    params: { progressToken, progress, total: 100 },
  });
}

/** Tools that ask the client in the middle of a call, as the legacy era does. */
function addAskingTools(server: McpServer): void {
  server.registerTool(
    "test_sampling",
    { description: "Asks for sampling", inputSchema: z.object({ prompt: z.string() }) },
    async ({ prompt }, ctx) => {
      const { content } = await ctx.mcpReq.requestSampling({
        messages: [{ role: "user", content: { type: "text", text: prompt } }],
        maxTokens: 100,
      });
      const [first] = [content].flat();
      return text(`LLM response: ${first?.type === "text" ? first.text : "no text"}`);
    },
  );
  server.registerTool(
    "test_elicitation",
    { description: "Asks the user", inputSchema: z.object({ message: z.string() }) },
    async ({ message }, ctx) => {
      const answer = await ctx.mcpReq.elicitInput({
        message,
        requestedSchema: {
          type: "object",
          properties: {
            username: { type: "string", description: "User's response" },
            email: { type: "string", description: "User's email address" },
          },
          required: ["username", "email"],
        },
      });
      return text(`User response: ${describe(answer)}`);
    },
  );
  server.registerTool(
    "test_elicitation_sep1034_defaults",
    { description: "Asks the user, with a default for every primitive type" },
    async (ctx) => {
      const answer = await ctx.mcpReq.elicitInput({
        message: "Please review the defaults",
        requestedSchema: {
          type: "object",
          properties: {
            name: { type: "string", default: "John Doe" },
            age: { type: "integer", default: 30 },
            score: { type: "number", default: 95.5 },
            status: { type: "string", enum: ["active", "inactive", "pending"], default: "active" },
            verified: { type: "boolean", default: true },
          },
        },
      });
      return text(`Elicitation completed: ${describe(answer)}`);
    },
  );
  server.registerTool(
    "test_elicitation_sep1330_enums",
    { description: "Asks the user, with every kind of enumeration" },
    async (ctx) => {
      const options = ["option1", "option2", "option3"];
      const titled = (kind: string) =>
        ["First", "Second", "Third"].map((nth, index) => ({
          const: `value${index + 1}`,
          title: `${nth} ${kind}`,
        }));
      const answer = await ctx.mcpReq.elicitInput({
        message: "Please choose",
        requestedSchema: {
          type: "object",
          properties: {
            untitledSingle: { type: "string", enum: options },
            titledSingle: { type: "string", oneOf: titled("Option") },
            legacyEnum: {
              type: "string",
              enum: ["opt1", "opt2", "opt3"],
              enumNames: ["Option One", "Option Two", "Option Three"],
            },
            untitledMulti: { type: "array", items: { type: "string", enum: options } },
            titledMulti: { type: "array", items: { anyOf: titled("Choice") } },
          },
        },
      });
      return text(`Elicitation completed: ${describe(answer)}`);
    },
  );
}

function describe({ action, content }: ElicitResult): string {
  return `action=${action}, content=${JSON.stringify(content ?? {})}`;
}

const askName = inputRequired.elicit({
  message: "What is your name?",
  requestedSchema: {
    type: "object",
    properties: { name: { type: "string" } },
    required: ["name"],
  },
});
const askColor = inputRequired.elicit({
  message: "Step 2: What is your favorite color?",
  requestedSchema: {
    type: "object",
    properties: { color: { type: "string" } },
    required: ["color"],
  },
});
const askConfirmation = inputRequired.elicit({
  message: "Please confirm",
  requestedSchema: {
    type: "object",
    properties: { ok: { type: "boolean" } },
    required: ["ok"],
  },
});

function askSampling(prompt: string, maxTokens: number) {
  return inputRequired.createMessage({
    messages: [{ role: "user", content: { type: "text", text: prompt } }],
    maxTokens,
  });
}

/** Tools that end a call with a question, as the modern era does. */
function addInputRequiredTools(server: McpServer): void {
  server.registerTool(
    "test_input_required_result_elicitation",
    { description: "Asks for a name" },
    (ctx) => {
      const answer = acceptedContent(ctx.mcpReq.inputResponses, "user_name");
      if (typeof answer?.["name"] === "string") return text(`Hello, ${answer["name"]}!`);
      return inputRequired({ inputRequests: { user_name: askName } });
    },
  );
  server.registerTool(
    "test_input_required_result_sampling",
    { description: "Asks for sampling" },
    (ctx) => {
      const answer = inputResponse(ctx.mcpReq.inputResponses, "capital_question");
      if (answer.kind === "sampling") return text(JSON.stringify(answer.result.content));
      const question = askSampling("What is the capital of France?", 100);
      return inputRequired({ inputRequests: { capital_question: question } });
    },
  );
  server.registerTool(
    "test_input_required_result_list_roots",
    { description: "Asks for the roots" },
    (ctx) => {
      const answer = inputResponse(ctx.mcpReq.inputResponses, "client_roots");
      if (answer.kind === "roots") return text(`Roots: ${JSON.stringify(answer.roots)}`);
      return inputRequired({ inputRequests: { client_roots: inputRequired.listRoots() } });
    },
  );
  // The suite sends this one a state that it has changed; the codec refuses it before the tool is reached.
  for (const name of ["request_state", "tampered_state"]) {
    server.registerTool(
      `test_input_required_result_${name}`,
      { description: "Asks for a confirmation, and keeps its state with the client" },
      async (ctx) => {
        const state = ctx.mcpReq.requestState<string>();
        const answer = acceptedContent(ctx.mcpReq.inputResponses, "confirm");
        if (state === name && answer !== undefined) return text("state-ok");
        return inputRequired({
          inputRequests: { confirm: askConfirmation },
          requestState: await states.mint(name),
        });
      },
    );
  }
  server.registerTool(
    "test_input_required_result_multiple_inputs",
    { description: "Asks for three things at once" },
    async (ctx) => {
      const responses = ctx.mcpReq.inputResponses;
      const name = acceptedContent(responses, "user_name");
      const greeting = inputResponse(responses, "greeting");
      const roots = inputResponse(responses, "client_roots");
      if (name !== undefined && greeting.kind === "sampling" && roots.kind === "roots") {
        return text("All inputs received");
      }
      return inputRequired({
        inputRequests: {
          user_name: askName,
          greeting: askSampling("Generate a greeting", 50),
          client_roots: inputRequired.listRoots(),
        },
        requestState: await states.mint("multiple_inputs"),
      });
    },
  );
  server.registerTool(
    "test_input_required_result_multi_round",
    { description: "Asks twice" },
    async (ctx) => {
      const state = ctx.mcpReq.requestState<string>();
      const responses = ctx.mcpReq.inputResponses;
      if (state === "step2" && acceptedContent(responses, "step2") !== undefined) {
        return text("Both steps done");
      }
      const step =
        state === "step1" && acceptedContent(responses, "step1") !== undefined ? "step2" : "step1";
      return inputRequired({
        inputRequests: { [step]: step === "step1" ? askName : askColor },
        requestState: await states.mint(step),
      });
    },
  );
  server.registerTool(
    "test_input_required_result_capabilities",
    { description: "Asks only for what the client can do" },
    (ctx) => {
      // The SDK's type of the envelope names none of its keys.
      const envelope: Record<string, ClientCapabilities> = ctx.mcpReq.envelope ?? {};
      const capabilities = envelope[CLIENT_CAPABILITIES_META_KEY] ?? {};
      const inputRequests = {
        ...(capabilities.sampling && { sampling: askSampling("Say hello", 50) }),
        ...(capabilities.elicitation && { elicitation: askName }),
        ...(capabilities.roots && { roots: inputRequired.listRoots() }),
      };
      if (Object.keys(inputRequests).length === 0) return text("This client can do nothing");
      return inputRequired({ inputRequests });
    },
  );
  // The SDK answers with -32021 when the client has not declared sampling.
  server.registerTool("test_missing_capability", { description: "Needs sampling" }, () =>
    inputRequired({ inputRequests: { sampling: askSampling("Say hello", 50) } }),
  );
  server.registerTool(
    "test_streaming_elicitation",
    { description: "Sends something, then asks" },
    async (ctx) => {
      await reportProgress(ctx, 50);
      return inputRequired({ inputRequests: { user_name: askName } });
    },
  );
}

/** The tools of the tasks extension. The SDK has no tasks, so they answer at once, as for a client without them. */
function addTaskTools(server: McpServer): void {
  server.registerTool(
    "greet",
    { description: "Greets", inputSchema: z.object({ name: z.string() }) },
    ({ name }) => text(`Hello, ${name}!`),
  );
  for (const name of ["slow_compute", "confirm_delete", "multi_input", "test_tool_with_task"]) {
    server.registerTool(name, { description: "Would be a task" }, () => text(`${name} done`));
  }
  server.registerTool("failing_job", { description: "Would be a task that fails" }, () => {
    throw new Error("This job always fails");
  });
}

/** Tools that make the server say that its lists have changed; the lists stay, for the suite's other scenarios. */
function addChangeTools(server: McpServer, changes: Changes): void {
  server.registerTool("test_trigger_tool_change", { description: "Announces new tools" }, () => {
    changes.toolsChanged();
    return text("announced");
  });
  server.registerTool(
    "test_trigger_prompt_change",
    { description: "Announces new prompts" },
    () => {
      changes.promptsChanged();
      return text("announced");
    },
  );
}

function addPrompts(server: McpServer): void {
  const say = (value: string) => ({
    role: "user" as const,
    content: { type: "text" as const, text: value },
  });
  server.registerPrompt("test_simple_prompt", { description: "Takes no arguments" }, () => ({
    messages: [say("This is a simple prompt for testing.")],
  }));
  const completeArg = (value: string) =>
    ["paris", "park", "party"].filter((candidate) => candidate.startsWith(value));
  server.registerPrompt(
    "test_prompt_with_arguments",
    {
      description: "Takes two arguments",
      argsSchema: z.object({
        arg1: completable(z.string().describe("First test argument"), completeArg),
        arg2: z.string().describe("Second test argument"),
      }),
    },
    ({ arg1, arg2 }) => ({
      messages: [say(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`)],
    }),
  );
  server.registerPrompt(
    "test_prompt_with_embedded_resource",
    {
      description: "Embeds a resource",
      argsSchema: z.object({ resourceUri: z.string().describe("URI of the resource to embed") }),
    },
    ({ resourceUri }) => ({
      messages: [
        {
          role: "user",
          content: {
            type: "resource",
            resource: {
              uri: resourceUri,
              mimeType: "text/plain",
              text: "Embedded resource content for testing.",
            },
          },
        },
        say("Please process the embedded resource above."),
      ],
    }),
  );
  server.registerPrompt("test_prompt_with_image", { description: "Holds an image" }, () => ({
    messages: [{ role: "user", content: image }, say("Please analyze the image above.")],
  }));
  server.registerPrompt(
    "test_input_required_result_prompt",
    { description: "Asks for its context" },
    (ctx) => {
      const answer = acceptedContent(ctx.mcpReq.inputResponses, "user_context");
      if (answer !== undefined) return { messages: [say(`Context: ${String(answer["context"])}`)] };
      const question = inputRequired.elicit({
        message: "What context should the prompt use?",
        requestedSchema: {
          type: "object",
          properties: { context: { type: "string" } },
          required: ["context"],
        },
      });
      return inputRequired({ inputRequests: { user_context: question } });
    },
  );
}

function addResources(server: McpServer): void {
  server.registerResource(
    "static-text",
    "test://static-text",
    { description: "A text that never changes", mimeType: "text/plain" },
    ({ href }) => ({
      contents: [
        {
          uri: href,
          mimeType: "text/plain",
          text: "This is the content of the static text resource.",
        },
      ],
    }),
  );
  server.registerResource(
    "static-binary",
    "test://static-binary",
    { description: "An image that never changes", mimeType: "image/png" },
    ({ href }) => ({ contents: [{ uri: href, mimeType: "image/png", blob: PNG }] }),
  );
  server.registerResource(
    "watched-resource",
    "test://watched-resource",
    { description: "A resource to subscribe to", mimeType: "text/plain" },
    ({ href }) => ({ contents: [{ uri: href, mimeType: "text/plain", text: "Watched." }] }),
  );
  server.registerResource(
    "template",
    new ResourceTemplate("test://template/{id}/data", { list: undefined }),
    { description: "A resource for every id", mimeType: "application/json" },
    ({ href }, variables) => ({
      contents: [
        {
          uri: href,
          mimeType: "application/json",
          text: JSON.stringify(templateData(String(variables["id"]))),
        },
      ],
    }),
  );
  // Nothing here ever changes a resource, so there is nothing to remember; only the legacy era has these two.
  server.server.setRequestHandler("resources/subscribe", () => ({}));
  server.server.setRequestHandler("resources/unsubscribe", () => ({}));
}

function templateData(id: string) {
  return { id, templateTest: true, data: `Data for ID: ${id}` };
}
