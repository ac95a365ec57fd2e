/** The ways a call can take to the echo, each as processes of its own. */
import { writeFileSync } from "node:fs";
import { request } from "node:http";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Child, HANGAR, newFolder, startNode } from "./children.ts";
import { callBody, Frame, type Link, openHttp, openPipe, postFrame, textOf } from "./load.ts";

const PROTOCOL = "2025-11-25";
const PROVIDER = fileURLToPath(new URL("echo-provider.ts", import.meta.url));
const RAW_HTTP = fileURLToPath(new URL("raw-http.ts", import.meta.url));
const SDK_HTTP = fileURLToPath(new URL("sdk-http.ts", import.meta.url));
const PROVIDER_ID = "echo";

/** A way that is up and answers. */
export interface Arm {
  /** The process between the load generator and the echo, whose CPU time and memory count. */
  readonly gateway?: Child;
  /** Makes the bytes of one call with a text of that size. */
  call(textBytes: number): () => Frame;
  open(lanes: number): Promise<Link>;
}

export interface ArmOptions {
  /** Where Hangar's CPU profile goes; none is taken without. */
  readonly profiles?: string | undefined;
}

/** Starts an arm; undefined when what it measures does not exist. */
type Start = (options: ArmOptions) => Promise<Arm | undefined>;

const initialize = {
  jsonrpc: "2.0",
  id: 1,
  method: "initialize",
  params: {
    protocolVersion: PROTOCOL,
    capabilities: {},
    clientInfo: { name: "bench", version: "1.0.0" },
  },
};
const initialized = { jsonrpc: "2.0", method: "notifications/initialized" };

function echoParams(textBytes: number): object {
  return { name: "echo", arguments: { text: textOf(textBytes) } };
}

function invokeParams(textBytes: number): object {
  const args = { provider: PROVIDER_ID, tool: "echo", arguments: { text: textOf(textBytes) } };
  return { name: "registry_invoke", arguments: args };
}

async function directStdio(): Promise<Arm> {
  const provider = startNode(PROVIDER);
  const { stdin, stdout } = provider;
  const answered = new Promise((resolve) => void stdout.once("data", resolve));
  stdin.write(`${JSON.stringify(initialize)}\n`);
  await Promise.race([answered, provider.lost]);
  stdin.write(`${JSON.stringify(initialized)}\n`);
  return {
    call(textBytes) {
      const line = Buffer.concat([callBody(echoParams(textBytes)), Buffer.from("\n")]);
      return () => new Frame("", line);
    },
    open: (lanes) => Promise.resolve(openPipe(provider, lanes)),
  };
}

async function rawHttp(): Promise<Arm> {
  const gateway = startNode(RAW_HTTP);
  return httpArm(gateway, await gateway.port(), "/mcp", undefined, echoParams);
}

async function sdkHttp(): Promise<Arm | undefined> {
  return sessionArm(startNode(SDK_HTTP), "/mcp", echoParams);
}

function startHangar({ profiles }: ArmOptions): Child {
  const folder = newFolder();
  const config = join(folder, "config.yaml");
  const command = [process.execPath, PROVIDER];
  // Stopping and checking the provider are not what is measured.
  const provider = { command, idle_ttl_s: 0, health_check_interval_s: 3600 };
  writeFileSync(config, JSON.stringify({ providers: { [PROVIDER_ID]: provider } }));
  return startNode(
    ...(profiles === undefined ? [] : ["--cpu-prof", `--cpu-prof-dir=${profiles}`]),
    HANGAR,
    ...["serve", "--http", "--host", "127.0.0.1", "--port", "0"],
    ...["--config", config, "--state-dir", join(folder, "state")],
  );
}

/** All arms, in the order of the report. */
export const ARMS = {
  "direct-stdio": directStdio,
  "raw-http": rawHttp,
  "sdk-http": sdkHttp,
  "hangar /mcp": (options) => sessionArm(startHangar(options), "/mcp", invokeParams),
  "hangar /mcp/<name>": (options) =>
    sessionArm(startHangar(options), `/mcp/${PROVIDER_ID}`, echoParams),
} satisfies Record<string, Start>;

export type ArmName = keyof typeof ARMS;

/** Opens the one session that all connections share; undefined when the server knows no such path. */
async function sessionArm(
  gateway: Child,
  path: string,
  params: (textBytes: number) => object,
): Promise<Arm | undefined> {
  const port = await gateway.port();
  const opened = await post(port, path, initialize, {});
  if (opened.status === 404) {
    await gateway.stop();
    return undefined;
  }
  if (opened.status !== 200) throw new Error(`initialize at ${path}: HTTP ${opened.status}`);
  const { session } = opened;
  await post(port, path, initialized, {
    "MCP-Protocol-Version": PROTOCOL,
    ...(session === undefined ? {} : { "Mcp-Session-Id": session }),
  });
  return httpArm(gateway, port, path, session, params);
}

function httpArm(
  gateway: Child,
  port: number,
  path: string,
  session: string | undefined,
  params: (textBytes: number) => object,
): Arm {
  return {
    gateway,
    call: (textBytes) => postFrame(port, path, session, callBody(params(textBytes))),
    open: (lanes) => openHttp(port, lanes),
  };
}

function post(
  port: number,
  path: string,
  message: object,
  headers: Record<string, string>,
): Promise<{ status: number; session: string | undefined }> {
  const body = JSON.stringify(message);
  const all = {
    "Content-Type": "application/json",
    Accept: "application/json, text/event-stream",
    "Content-Length": Buffer.byteLength(body),
    ...headers,
  };
  return new Promise((resolve, reject) => {
    const options = { host: "127.0.0.1", port, path, method: "POST", agent: false, headers: all };
    request(options, (response) => {
      const session = response.headers["mcp-session-id"];
      response.once("error", reject).once("end", () => {
        resolve({
          status: response.statusCode ?? 0,
          session: Array.isArray(session) ? session[0] : session,
        });
      });
      response.resume();
    })
      .once("error", reject)
      .end(body);
  });
}
