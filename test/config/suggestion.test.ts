import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { suggest } from "../../src/lib/suggestion.ts";

const KEYS = ["command", "env", "cwd", "idle_ttl_s", "timeout_s", "startup_timeout_s", "tools"];

describe("suggesting a key", () => {
  test.each([
    ["comand", "command"],
    ["ocmmand", "command"],
    ["Command", "command"],
    ["idle_ttl", "idle_ttl_s"],
    ["idleTtlS", "idle_ttl_s"],
    ["timeout", "timeout_s"],
    ["tool", "tools"],
    ["evn", "env"],
  ])("%s was meant to be %s", (word, key) => {
    expect(suggest(word, KEYS)).toBe(key);
  });

  test.each(["image", "x", "", "volumes", "dir"])("%j is like none of them", (word) => {
    expect(suggest(word, KEYS)).toBeUndefined();
  });

  test("a word of the list is its own suggestion, and one wrong letter is forgiven", () => {
    fc.assert(
      fc.property(fc.constantFrom(...KEYS), fc.nat(), (key, at) => {
        expect(suggest(key, KEYS)).toBe(key);
        const place = at % key.length;
        fc.pre(key.length > 3);
        expect(suggest(`${key.slice(0, place)}#${key.slice(place + 1)}`, KEYS)).toBe(key);
      }),
    );
  });
});
