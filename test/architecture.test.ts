import { globSync, readFileSync } from "node:fs";
import { stripTypeScriptTypes } from "node:module";
import { dirname, join, relative, resolve, sep } from "node:path";
import { describe, expect, test } from "vitest";

const SRC = join(import.meta.dirname, "..", "src");

/** What is known everywhere. */
const SHARED = ["version.ts", "errors.ts", "target.ts", "wire", "config", "observe", "lib"];
const EVERYTHING = [...SHARED, "front", "routing", "providers", "drivers", "loops"];

/** The dependency rule: what each folder of src, or file beside them, may import. */
const MAY_IMPORT: Record<string, readonly string[]> = {
  "version.ts": [],
  "errors.ts": [],
  wire: ["errors.ts"],
  "target.ts": ["errors.ts", "wire"],
  lib: ["errors.ts"],
  config: ["errors.ts", "lib"],
  observe: ["errors.ts", "target.ts", "lib"],
  drivers: SHARED,
  providers: [...SHARED, "drivers"],
  routing: [...SHARED, "providers", "drivers"],
  front: [...SHARED, "routing", "providers", "drivers"],
  loops: [...SHARED, "routing", "providers", "drivers"],
  // A server of its own: nothing of Hangar's but how messages look.
  chaos: ["version.ts", "errors.ts", "wire"],
  "hangar.ts": EVERYTHING,
  cli: [...EVERYTHING, "hangar.ts", "chaos"],
  "index.ts": [...EVERYTHING, "hangar.ts"],
};

/** Packages and modules that only these folders may know. */
const ONLY_IN: Record<string, readonly string[]> = {
  "node:child_process": ["drivers", "chaos"],
  "node:http": ["front", "chaos"],
  yaml: ["config"],
  zod: ["config"],
  pino: ["observe"],
  undici: ["drivers"],
  commander: ["cli"],
};

/** Files of decisions only: no input or output, no clock, no chance, nothing asynchronous. */
const PURE =
  /^(errors|target|config\/(schema|document|expand|issue|diff)|wire\/.+|routing\/(call|strategies|circuit-breaker|catalog|tool-name)|providers\/(lifecycle|backoff|diagnosis)|drivers\/(driver|container-args)|observe\/(events|log-line)|lib\/(redact|glob|suggestion)|chaos\/(flags|answers))\.ts$/;

/** What a pure file may import from Node: bytes, and a function of them. */
const PURE_IMPORTS: Record<string, RegExp> = {
  "wire/lines.ts": /^import \{ (Buffer, isAscii, )?isUtf8 \} from "node:buffer";$/m,
};

const IMPURE =
  /\b(Date|Math\.random|performance|process|setTimeout|setInterval|setImmediate|queueMicrotask|fetch|crypto|console|async|await|Promise)\b/g;

/** `source` with comments and the insides of strings and regular expressions blanked, every offset kept. */
function blank(source: string): string {
  let out = "";
  let at = 0;
  /** What each open `{` of a template literal's `${` closes back into. */
  const templates: number[] = [];
  let depth = 0;

  function copy(end: number, visible: boolean): void {
    const text = source.slice(at, end);
    out += visible ? text : text.replaceAll(/[^\n]/g, " ");
    at = end;
  }
  function skipQuoted(quote: string): void {
    copy(at + 1, true);
    let end = at;
    while (end < source.length && source[end] !== quote) end += source[end] === "\\" ? 2 : 1;
    copy(end, false);
    copy(end + 1, true);
  }
  /** To the end of a template literal's text: its closing backtick, or the next `${`. */
  function skipTemplate(): void {
    let end = at;
    while (end < source.length && source[end] !== "`" && !source.startsWith("${", end)) {
      end += source[end] === "\\" ? 2 : 1;
    }
    copy(end, false);
    if (source[end] === "`") copy(end + 1, true);
    else {
      copy(end + 2, true);
      templates.push(depth);
    }
  }
  function skipRegExp(): void {
    let end = at + 1;
    let inClass = false;
    while (end < source.length && (source[end] !== "/" || inClass)) {
      if (source[end] === "\\") end += 1;
      else if (source[end] === "[") inClass = true;
      else if (source[end] === "]") inClass = false;
      end += 1;
    }
    copy(at + 1, true);
    copy(end, false);
    copy(end + 1, true);
  }

  while (at < source.length) {
    const char = source[at];
    if (source.startsWith("//", at)) {
      const end = source.indexOf("\n", at);
      copy(end < 0 ? source.length : end, false);
    } else if (source.startsWith("/*", at)) {
      const end = source.indexOf("*/", at);
      copy(end < 0 ? source.length : end + 2, false);
    } else if (char === '"' || char === "'") {
      skipQuoted(char);
    } else if (char === "`") {
      copy(at + 1, true);
      skipTemplate();
    } else if (char === "/" && /(^|[=(,:[!&|?{};+\n]|\b(return|case|typeof))\s*$/.test(out)) {
      skipRegExp();
    } else {
      copy(at + 1, true);
      if (char === "{") depth += 1;
      if (char === "}") {
        if (templates.at(-1) === depth) {
          templates.pop();
          skipTemplate();
        } else {
          depth -= 1;
        }
      }
    }
  }
  return out;
}

/** Everything `source` imports or re-exports, of types too. */
function importsOf(source: string): string[] {
  const code = blank(source);
  const pattern = /\b(?:from\s*|import\s*(?:\(\s*)?)(["'`])/g;
  return [...code.matchAll(pattern)].map((match) => {
    const start = match.index + match[0].length;
    const end = code.indexOf(match[1] ?? '"', start);
    return source.slice(start, end);
  });
}

function placeOf(path: string): string {
  return path.split("/")[0] ?? path;
}

/** Every breach of the dependency rule in one file of src, as a sentence. */
function breaches(path: string, source: string): string[] {
  const place = placeOf(path);
  const allowed = MAY_IMPORT[place];
  if (allowed === undefined) return [`${path}: ${place} has no place in the dependency rule`];
  return importsOf(source)
    .filter((specifier) => specifier.startsWith("."))
    .map((specifier) => relative(SRC, resolve(SRC, dirname(path), specifier)).replaceAll(sep, "/"))
    .filter((target) => placeOf(target) !== place && !allowed.includes(placeOf(target)))
    .map((target) => `${path} imports ${target}`);
}

/** Every import of a package or module by a folder that must not know it, as a sentence. */
function strangers(path: string, source: string): string[] {
  return importsOf(source)
    .filter((specifier) => {
      const homes = ONLY_IN[specifier];
      if (homes !== undefined) return !homes.includes(placeOf(path));
      return !specifier.startsWith(".") && !specifier.startsWith("node:");
    })
    .map((specifier) => `${path} imports ${specifier}`);
}

/** Every breach of purity in one pure file, as a sentence. Types do nothing, so they are not looked at. */
function impurities(path: string, source: string): string[] {
  const runtime = stripTypeScriptTypes(source).replace(PURE_IMPORTS[path] ?? /^$/, "");
  const imported = importsOf(runtime)
    .filter((specifier) => !specifier.startsWith("."))
    .filter((specifier) => specifier.startsWith("node:") || specifier === "pino")
    .map((specifier) => `${path} imports ${specifier}`);
  const used = [...blank(runtime).matchAll(IMPURE)].map((match) => `${path} uses ${match[0]}`);
  return [...imported, ...used];
}

const files = globSync("**/*.ts", { cwd: SRC }).map((path) => path.replaceAll(sep, "/"));
const sources = new Map(files.map((path) => [path, readFileSync(join(SRC, path), "utf8")]));

describe("the dependency rule", () => {
  test("src holds files, and they import each other", () => {
    const relatives = [...sources.values()]
      .flatMap(importsOf)
      .filter((specifier) => specifier.startsWith("."));
    expect(files.length).toBeGreaterThan(20);
    expect(relatives.length).toBeGreaterThan(files.length);
  });

  test("imports go right along front, routing, providers, drivers", () => {
    expect([...sources].flatMap(([path, source]) => breaches(path, source))).toEqual([]);
  });

  test("a breach is found in whatever form it comes", () => {
    expect(breaches("drivers/a.ts", 'import type { B } from "../routing/b.ts";')).toEqual([
      "drivers/a.ts imports routing/b.ts",
    ]);
    expect(breaches("wire/a.ts", 'export { b } from "../lib/b.ts";')).toHaveLength(1);
    expect(breaches("config/a.ts", "type B = import('../front/b.ts').B;")).toHaveLength(1);
    expect(breaches("loops/a.ts", "await import(`../front/b.ts`);")).toHaveLength(1);
    expect(breaches("routing/a.ts", "import '../loops/b.ts';")).toHaveLength(1);
    expect(breaches("front/a.ts", 'import {\n  b,\n} from "../hangar.ts";')).toHaveLength(1);
    expect(breaches("managers/a.ts", "")).toEqual([
      "managers/a.ts: managers has no place in the dependency rule",
    ]);
  });

  test("each package is known in its folders only, and the SDK in none", () => {
    expect([...sources].flatMap(([path, source]) => strangers(path, source))).toEqual([]);
    expect(strangers("front/a.ts", 'import * as z from "zod";')).toHaveLength(1);
    expect(strangers("front/a.ts", 'import "@modelcontextprotocol/sdk/types.js";')).toHaveLength(1);
    expect(strangers("providers/a.ts", 'import "node:child_process";')).toHaveLength(1);
  });

  test("what only looks like an import is none", () => {
    expect(breaches("wire/a.ts", '// import "../front/b.ts";')).toEqual([]);
    expect(breaches("wire/a.ts", `const text = 'import "../front/b.ts"';`)).toEqual([]);
    expect(breaches("wire/a.ts", 'const text = `${`${1}`} from "../front/b.ts"`;')).toEqual([]);
    expect(breaches("wire/a.ts", 'const quote = /["\'`]/; // from "../front/b.ts"')).toEqual([]);
  });
});

describe("pure files", () => {
  const pure = files.filter((path) => PURE.test(path));

  test("there are some in every folder that decides something", () => {
    expect([...new Set(pure.map(placeOf))]).toEqual(
      expect.arrayContaining(["errors.ts", "wire", "config", "providers"]),
    );
  });

  test("they do no input or output, know no clock and wait for nothing", () => {
    expect(pure.flatMap((path) => impurities(path, sources.get(path) ?? ""))).toEqual([]);
  });

  test("an impurity is found in whatever form it comes", () => {
    expect(impurities("wire/a.ts", 'import { open } from "node:fs";')).toEqual([
      "wire/a.ts imports node:fs",
    ]);
    expect(impurities("wire/a.ts", 'import { isUtf8 } from "node:buffer";')).toHaveLength(1);
    expect(impurities("wire/a.ts", "const now = Date.now();")).toEqual(["wire/a.ts uses Date"]);
    expect(impurities("wire/a.ts", "const dice = `${Math.random()}`;")).toHaveLength(1);
    expect(impurities("wire/a.ts", "export async function a() {}")).toHaveLength(1);
    expect(impurities("wire/a.ts", "setTimeout(() => {}, 1);")).toHaveLength(1);
    expect(impurities("wire/a.ts", "const home = process.env.HOME;")).toHaveLength(1);
  });

  test("types, comments and strings are no impurity", () => {
    expect(impurities("wire/a.ts", "export type A = Promise<Date>; // async")).toEqual([]);
    expect(impurities("wire/a.ts", 'const text = "the process ended";')).toEqual([]);
    expect(impurities("wire/lines.ts", 'import { isUtf8 } from "node:buffer";')).toEqual([]);
  });
});
