import { describe, expect, it } from "vitest";
import { HangarError } from "../../src/errors.ts";
import { admit, isAllowedOrigin, isProxied, type Visitor } from "../../src/front/guard.ts";

const TOKEN = "s3cret-token-of-this-hangar";
const OPTIONS = {
  token: TOKEN,
  allowed_origins: ["https://app.example", "https://b.example:8443"],
};

/** A browserless client on this machine. */
const LOCAL: Visitor = {
  address: "127.0.0.1",
  host: "localhost:8000",
  origin: undefined,
  authorization: undefined,
  proxied: false,
};

/** Who the visitor turned out to be, or the code it was refused with. */
function verdict(visitor: Partial<Visitor>, options = OPTIONS): string {
  try {
    return admit({ ...LOCAL, ...visitor }, options);
  } catch (error) {
    return (error as HangarError).code;
  }
}

const LOCAL_ADDRESSES = ["127.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.1", "::FFFF:127.0.0.1"];
const FOREIGN_ADDRESSES = [
  "192.168.1.5",
  "10.0.0.1",
  "8.8.8.8",
  "0.0.0.0",
  "12.7.0.0",
  "::ffff:10.0.0.1",
  "::ffff:192.168.0.1",
  "fe80::1",
  "::2",
  "2001:db8::127.0.0.1",
  "",
  undefined,
];

const LOCAL_HOSTS = [
  "localhost",
  "localhost:1",
  "localhost:8000",
  "LOCALHOST",
  "LocalHost:8000",
  "127.0.0.1",
  "127.0.0.1:8000",
  "[::1]",
  "[::1]:8000",
];
const FOREIGN_HOSTS = [
  "evil.com",
  "evil.com:8000",
  "127.0.0.1.nip.io",
  "127.0.0.1.nip.io:8000",
  "localhost.evil",
  "localhost.evil:8000",
  "evil.localhost",
  "evil.com:localhost",
  "localhost:80.evil.com",
  "localhost:80:80",
  "localhost@evil.com",
  "evil.com#localhost",
  "localhost,evil.com",
  "localhost ",
  " localhost",
  "localhost:",
  "localhost:123456",
  "localhost\n",
  "127.0.0.2",
  "0.0.0.0",
  "2130706433",
  "0x7f.1",
  "::1",
  "[::1",
  "[::ffff:127.0.0.1]",
  "192.168.1.5:8000",
  "",
  undefined,
];

const LOCAL_ORIGINS = [
  undefined,
  "http://localhost",
  "http://localhost:3000",
  "https://localhost:3000",
  "http://127.0.0.1:5173",
  "http://[::1]:3000",
  "HTTP://LOCALHOST:3000",
];
const ALLOWED_ORIGINS = ["https://app.example", "https://b.example:8443", "HTTPS://App.Example"];
const FOREIGN_ORIGINS = [
  "null",
  "",
  "https://evil.com",
  "http://evil.com:8000",
  "http://app.example",
  "https://app.example:8443",
  "https://b.example",
  "https://app.example.evil.com",
  "https://evil.com/https://app.example",
  "http://localhost.evil.com",
  "http://evil.com#localhost",
  "http://user@localhost",
  "http://localhost:3000/",
  "http://127.0.0.1.nip.io",
  "file://",
  "file://localhost",
  "chrome-extension://localhost",
  "ftp://localhost",
  "localhost",
  "http://",
  "http://localhost http://evil.com",
];

describe("a visitor without a token", () => {
  it("comes in only from this machine, with a local Host, and no Origin but a local or allowed one", () => {
    const origins = [...LOCAL_ORIGINS, ...ALLOWED_ORIGINS];
    const seen = new Map<string, number>();
    for (const address of [...LOCAL_ADDRESSES, ...FOREIGN_ADDRESSES]) {
      for (const proxied of [false, true]) {
        for (const host of [...LOCAL_HOSTS, ...FOREIGN_HOSTS]) {
          for (const origin of [...origins, ...FOREIGN_ORIGINS]) {
            const visitor = { address, proxied, host, origin };
            const expected =
              proxied || !LOCAL_ADDRESSES.includes(address as string)
                ? "unauthorized"
                : LOCAL_HOSTS.includes(host as string) && origins.includes(origin)
                  ? "local"
                  : "forbidden";
            expect(verdict(visitor), JSON.stringify(visitor)).toBe(expected);
            seen.set(expected, (seen.get(expected) ?? 0) + 1);
          }
        }
      }
    }
    expect([...seen.keys()].toSorted()).toEqual(["forbidden", "local", "unauthorized"]);
  });

  it("learns from a refusal what to do", () => {
    const far = { ...LOCAL, address: "192.168.1.5" };
    expect(() => admit(far, OPTIONS)).toThrow(/MCP_HANGAR_TOKEN/);
    expect(() => admit({ ...LOCAL, host: "evil.com" }, OPTIONS)).toThrow(/evil\.com.*localhost/);
    expect(() => admit({ ...LOCAL, origin: "https://evil.com" }, OPTIONS)).toThrow(
      /https:\/\/evil\.com.*allowed_origins/,
    );
  });
});

describe("a visitor with a token", () => {
  const anywhere = FOREIGN_ADDRESSES.map((address) => ({
    address,
    host: "hangar.example",
    origin: "https://evil.com",
    proxied: true,
  }));

  it.each([
    ["as it is", `Bearer ${TOKEN}`],
    ["in lower case", `bearer ${TOKEN}`],
    ["in upper case", `BEARER ${TOKEN}`],
    ["with trailing spaces", `Bearer ${TOKEN}   `],
    ["with spaces before it", `Bearer   ${TOKEN}`],
  ])("comes in from anywhere: %s", (_, authorization) => {
    for (const visitor of anywhere) expect(verdict({ ...visitor, authorization })).toBe("token");
    expect(verdict({ authorization })).toBe("token");
  });

  it.each([
    ["wrong", "Bearer nope"],
    ["longer", `Bearer ${TOKEN}x`],
    ["shorter", `Bearer ${TOKEN.slice(0, -1)}`],
    ["in other case", `Bearer ${TOKEN.toUpperCase()}`],
    ["twice", `Bearer ${TOKEN} ${TOKEN}`],
    ["two of them", `Bearer nope, Bearer ${TOKEN}`],
    ["none", "Bearer "],
    ["without a scheme", TOKEN],
    ["without a space", `Bearer${TOKEN}`],
    ["of another scheme", `Basic ${Buffer.from(`user:${TOKEN}`).toString("base64")}`],
    ["empty", ""],
  ])("is refused, also from this machine, when the token is: %s", (_, authorization) => {
    for (const visitor of [{}, ...anywhere]) {
      expect(verdict({ ...visitor, authorization })).toBe("unauthorized");
    }
  });

  it("does not find the token in the refusal", () => {
    expect(() => admit({ ...LOCAL, authorization: "Bearer guess" }, OPTIONS)).not.toThrow(TOKEN);
  });
});

describe("isProxied", () => {
  it.each([
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-by-someone",
    "x-real-ip",
    "via",
  ])("knows a proxy by its header %s", (name) => {
    expect(isProxied({ host: "localhost", [name]: "10.0.0.1" })).toBe(true);
    expect(isProxied({ host: "localhost", [name]: "" })).toBe(true);
  });

  it("takes everything else for a direct visit", () => {
    expect(isProxied({})).toBe(false);
    expect(isProxied({ host: "localhost", "user-agent": "via forwarded", x: "1" })).toBe(false);
  });
});

describe("isAllowedOrigin", () => {
  it("allows localhost and the listed origins, and nothing else", () => {
    for (const origin of [...LOCAL_ORIGINS, ...ALLOWED_ORIGINS]) {
      if (origin !== undefined) expect(isAllowedOrigin(origin, OPTIONS), origin).toBe(true);
    }
    for (const origin of FOREIGN_ORIGINS) {
      expect(isAllowedOrigin(origin, OPTIONS), origin).toBe(false);
    }
  });
});
