/** What operators ask over HTTP: liveness, readiness, start-up. Readiness during a drain is in drain.test.ts. */
import { beforeAll, describe, expect, test } from "vitest";
import { configOf, fixture, type HttpHangar, startHttp } from "../harness.ts";

const PATHS = ["/health", "/health/live", "/health/ready", "/ready", "/health/startup"];
const TOKEN = "correct-horse-battery-staple";
const PROXIED = { "x-forwarded-for": "203.0.113.7", host: "hangar.example.com" };
const OK = '{"status":"ok"}';

let hangar: HttpHangar;

beforeAll(async () => {
  const providers = {
    cold: { command: fixture("add") },
    dead: { command: ["no-such-program-here"] },
  };
  hangar = await startHttp({
    config: configOf(providers),
    env: { MCP_HANGAR_TOKEN: TOKEN },
    era: "modern",
  });
  await hangar.callTool("registry_start", { provider: "dead" });
});

describe.each(PATHS)("%s", (path) => {
  test("says ok, and nothing else, whatever the providers do, and starts none", async () => {
    const { status, headers, text } = await hangar.send("GET", `${path}?verbose=1`);
    expect({ status, text }).toEqual({ status: 200, text: OK });
    expect(headers).toMatchObject({
      "content-type": "application/json",
      "cache-control": "no-store",
      "content-length": String(OK.length),
    });
    expect((await hangar.details("dead")).state).toBe("dead");
    expect((await hangar.details("cold")).state).toBe("cold");
  });

  test("answers HEAD with the same, less the body", async () => {
    const { status, headers, text } = await hangar.send("HEAD", path);
    expect({ status, text }).toEqual({ status: 200, text: "" });
    expect(headers["content-length"]).toBe(String(OK.length));
  });

  test.each(["POST", "PUT", "DELETE", "OPTIONS"])(
    "refuses %s and says what is allowed",
    async (verb) => {
      const { status, headers } = await hangar.send(verb, path);
      expect(status).toBe(405);
      expect(headers.allow).toBe("GET, HEAD");
    },
  );

  test("needs no token, and looks at none", async () => {
    expect((await hangar.send("GET", path, PROXIED)).status).toBe(200);
    const wrong = { authorization: "Bearer wrong" };
    expect((await hangar.send("GET", path, wrong)).status).toBe(200);
    expect((await hangar.send("GET", path, { ...PROXIED, ...wrong })).status).toBe(200);
  });

  test("is for no strange web page on this machine", async () => {
    const rebound = { host: "evil.example.com" };
    expect((await hangar.send("GET", path, rebound)).status).toBe(403);
    const strange = { origin: "https://evil.example.com" };
    expect((await hangar.send("GET", path, strange)).status).toBe(403);
    const own = { origin: "http://localhost:3000" };
    const { status, headers } = await hangar.send("GET", path, own);
    expect(status).toBe(200);
    expect(headers["access-control-allow-origin"]).toBe(own.origin);
  });
});

test.each(["/health/", "/health/x", "/ready/x", "/healthz"])(
  "%s is nothing, and for nobody without a token",
  async (path) => {
    expect((await hangar.send("GET", path)).status).toBe(404);
    expect((await hangar.send("GET", path, PROXIED)).status).toBe(401);
  },
);
