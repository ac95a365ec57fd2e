import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { expand } from "../../src/config/expand.ts";

const env = { NAME: "value", EMPTY: "", NESTED: "${NAME} $${NAME}", _x9: "under" };

function text(input: string): string {
  const { text: output, unset, malformed } = expand(input, env);
  expect([unset, malformed]).toEqual([[], []]);
  return output;
}

const name = fc.stringMatching(/^[A-Za-z_][A-Za-z0-9_]{0,8}$/);
const anyText = fc.string({
  unit: fc.constantFrom("$", "{", "}", ":", "-", "A", "1", " ", "é", "😀"),
  maxLength: 30,
});

describe("expanding variables", () => {
  test("a set variable is replaced, wherever it stands and however often", () => {
    expect(text("${NAME}")).toBe("value");
    expect(text("a${NAME}b${NAME}${_x9}")).toBe("avaluebvalueunder");
  });

  test("a default stands in for an unset and for an empty variable", () => {
    expect(text("${NOPE:-default}")).toBe("default");
    expect(text("${EMPTY:-default}")).toBe("default");
    expect(text("${NAME:-default}")).toBe("value");
    expect(text("[${NOPE:-}]")).toBe("[]");
    expect(text('${NOPE:-a:-b $x "q"}')).toBe('a:-b $x "q"');
  });

  test("an empty variable without a default counts as set", () => {
    expect(text("[${EMPTY}]")).toBe("[]");
  });

  test("a bare dollar name and other dollars stay as they are", () => {
    expect(text("$NAME $ $$ 5$ $(x) {NAME}")).toBe("$NAME $ $$ 5$ $(x) {NAME}");
  });

  test("a doubled dollar makes a plain reference", () => {
    expect(text("$${NAME}")).toBe("${NAME}");
    expect(text("$${")).toBe("${");
    expect(text("$$${NAME}")).toBe("$${NAME}");
    expect(text("$${NAME}${NAME}")).toBe("${NAME}value");
  });

  test("what a variable contains is not expanded again", () => {
    expect(text("${NESTED}")).toBe("${NAME} $${NAME}");
  });

  test("unset variables are named, and their references stand as they were", () => {
    expect(expand("a${NOPE}${NAME}${ALSO_NOT}", env)).toEqual({
      text: "a${NOPE}value${ALSO_NOT}",
      unset: ["NOPE", "ALSO_NOT"],
      malformed: [],
    });
  });

  test.each([
    "${}",
    "${1x}",
    "${a b}",
    "${env:HOME}",
    "${a-b}",
    "${A:+x}",
    "${:-x}",
    "${A",
    "${",
    "${A:-${B}",
  ])("%s is malformed and stands as it was", (reference) => {
    expect(expand(reference, env)).toEqual({ text: reference, unset: [], malformed: [reference] });
  });

  test("names that every object has are no variables", () => {
    expect(expand("${constructor}${__proto__}", {}).unset).toEqual(["constructor", "__proto__"]);
  });

  test("text without a reference never changes", () => {
    fc.assert(
      fc.property(anyText, (input) => {
        fc.pre(!input.includes("${"));
        expect(expand(input, env)).toEqual({ text: input, unset: [], malformed: [] });
      }),
    );
  });

  test("any text comes through unchanged when its references are escaped", () => {
    fc.assert(
      fc.property(anyText, (input) => {
        expect(
          expand(
            input.replaceAll("${", () => "$${"),
            env,
          ).text,
        ).toBe(input);
      }),
    );
  });

  test("any value of a variable comes through unchanged, between any harmless texts", () => {
    fc.assert(
      fc.property(name, anyText, anyText, anyText, (variable, value, before, after) => {
        fc.pre(!before.includes("${") && !before.endsWith("$") && !after.includes("${"));
        const result = expand(`${before}\${${variable}}${after}`, { [variable]: value });
        expect(result).toEqual({ text: before + value + after, unset: [], malformed: [] });
      }),
    );
  });

  test("it agrees with a regular expression on every text", () => {
    const reference = /\$\$\{|\$\{([^}]*)(\}?)/g;
    fc.assert(
      fc.property(anyText, fc.dictionary(name, anyText), (input, variables) => {
        const expected = input.replaceAll(
          reference,
          (all: string, inside: string | undefined, end: string) => {
            if (inside === undefined) return "${";
            const parts = /^([A-Za-z_]\w*)(?::-(.*))?$/su.exec(inside);
            if (end === "" || parts === null || parts[2]?.includes("${") === true) return all;
            const value = Object.hasOwn(variables, parts[1] ?? "")
              ? variables[parts[1] ?? ""]
              : undefined;
            return parts[2] === undefined ? (value ?? all) : value || parts[2];
          },
        );
        expect(expand(input, variables).text).toBe(expected);
      }),
      { numRuns: 2000 },
    );
  });

  test("it takes linear time", () => {
    const started = performance.now();
    expand("${".repeat(500_000), env);
    expand("${NAME}".repeat(100_000), env);
    expect(performance.now() - started).toBeLessThan(2000);
  });
});
