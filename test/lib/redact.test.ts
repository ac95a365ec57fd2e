import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { redactor } from "../../src/lib/redact.ts";

describe("redactor", () => {
  it.each([
    "API_KEY",
    "apiKey",
    "GITHUB_TOKEN",
    "DB_PASSWORD",
    "PASSPHRASE",
    "CLIENT_SECRET",
    "AWS_CREDENTIALS",
    "AUTHORIZATION",
    "SESSION_COOKIE",
    "MY_JWT",
    "SENTRY_DSN",
    "CONNECTION_STRING",
    "PRIVATE_PEM",
  ])("takes the value of %s out of text", (name) => {
    const redact = redactor({ [name]: "hunter22" });
    expect(redact("it is hunter22, I said hunter22!")).toBe("it is [redacted], I said [redacted]!");
  });

  it.each(["HOME", "LOG_LEVEL", "PORT", "MODE"])("leaves the value of %s alone", (name) => {
    expect(redactor({ [name]: "hunter22" })("hunter22")).toBe("hunter22");
  });

  it("leaves values under four characters alone", () => {
    expect(redactor({ TOKEN: "abc" })("abc")).toBe("abc");
    expect(redactor({ TOKEN: "abcd" })("abcd")).toBe("[redacted]");
    expect(redactor({ TOKEN: "" })("text")).toBe("text");
  });

  it("takes the longer of two secrets first, so that no rest of it stays", () => {
    expect(redactor({ A_KEY: "abcd", B_KEY: "abcdefgh" })("abcdefgh abcd")).toBe(
      "[redacted] [redacted]",
    );
  });

  it("takes a secret with special characters literally", () => {
    expect(redactor({ TOKEN: "$&.*$1(" })("a$&.*$1(b")).toBe("a[redacted]b");
  });

  it("takes the lines of a secret of several lines, as they are printed one by one", () => {
    const key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END KEY-----";
    const redact = redactor({ PRIVATE_KEY: key });
    expect(redact(key)).not.toContain("MIIEvQIBADANBgkq");
    const printed = key
      .split("\n")
      .map((line) => redact(line))
      .join("\n");
    expect(printed).not.toContain("MIIEvQIBADANBgkq");
    expect(printed).not.toContain("hkiG9w0BAQEFAASC");
  });

  it("takes an end that a secret may begin with, where text was cut", () => {
    const redact = redactor({ TOKEN: "abcdefgh" });
    expect(redact("it is abcdefg", true)).toBe("it is ");
    expect(redact("it is abcd", true)).toBe("it is ");
    expect(redact("it is abcd")).toBe("it is abcd");
    expect(redact("it is abc", true)).toBe("it is abc");
    expect(redact("abcdefgh is what it is", true)).toBe("[redacted] is what it is");
  });

  it("leaves no secret in any text, and everything else as it was", () => {
    // Capitals only: no secret is part of what it is replaced by.
    const secret = fc.string({ unit: fc.constantFrom("A", "B", "C"), minLength: 4, maxLength: 8 });
    const plain = fc.string({ unit: fc.constantFrom("a", " ", "."), maxLength: 8 });
    fc.assert(
      fc.property(
        fc.array(secret, { minLength: 1, maxLength: 4 }),
        fc.array(plain, { minLength: 1, maxLength: 6 }),
        fc.infiniteStream(fc.nat()),
        (secrets, texts, picks) => {
          const variables = Object.fromEntries(secrets.map((value, n) => [`KEY_${n}`, value]));
          const redact = redactor({ ...variables, PLAIN: "a.a." });
          const pick = (): string => secrets[picks.next().value % secrets.length] as string;
          const joined = texts.reduce((text, piece) => `${text} ${pick()} ${piece}`);
          const wanted = texts.reduce((text, piece) => `${text} [redacted] ${piece}`);
          expect(redact(joined)).toBe(wanted);
        },
      ),
    );
  });
});
