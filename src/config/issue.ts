import * as z from "zod";
import { shorten } from "./document.ts";
import type { Path } from "./document.ts";
import { suggest } from "../lib/suggestion.ts";

/** What a refused value is told; `part` says whether the key or the value is at fault. */
export interface Complaint {
  readonly path: Path;
  readonly part: "key" | "value";
  readonly message: string;
}

const TYPE_NAMES: Readonly<Record<string, string>> = {
  string: "text",
  number: "a number",
  int: "a whole number",
  boolean: "`true` or `false`",
  array: "a list",
  object: "a map",
  record: "a map",
};

/** Keys that other programs' files have in this place, and what to write here. */
const HABITS: Readonly<Record<string, string>> = {
  args: "`command` is one list, the program first and then its arguments",
  disabled: "write `enabled: false`",
  url: "write `mode: remote` and `endpoint`",
  endpoint: "that belongs to `mode: remote`",
  image: "that belongs to `mode: container`, which is not built yet",
};

/**
 * The complaints about `issue`, which `schema` raised about the value found at `base` of the file.
 * `given` is that value as written, before variables were replaced, so that no variable's value is ever shown.
 */
export function complaintsOf(
  issue: z.core.$ZodIssue,
  schema: z.ZodType,
  base: Path,
  given: unknown,
): Complaint[] {
  const path = [...base, ...(issue.path as (string | number)[])];
  const name = pathName(path);
  if (issue.code === "unrecognized_keys") {
    const keys = keysAt(schema, issue.path as (string | number)[]);
    return issue.keys.map((key) => ({
      path: [...path, key],
      part: "key",
      message: unknownKeyMessage(key, name, keys),
    }));
  }
  if (issue.code === "invalid_key") {
    const message = issue.issues[0]?.message ?? "cannot be used as a name";
    return [{ path, part: "key", message: `\`${shorten(name)}\` ${message}` }];
  }
  const value = valueAt(given, issue.path as (string | number)[]);
  if (value === undefined) {
    return [{ path, part: "value", message: `\`${name}\` is missing` }];
  }
  const rule = ruleOf(issue, value);
  return [{ path, part: "value", message: `\`${name}\` ${rule}; it is ${show(value, path)}` }];
}

/** `unknown key` with the best advice there is. */
export function unknownKeyMessage(key: string, parent: string, known: readonly string[]): string {
  const where = parent === "" ? "" : ` in \`${parent}\``;
  const close = suggest(key, known);
  const habit = known.includes("command") ? HABITS[key] : undefined;
  if (close !== undefined && habit === undefined) {
    return `unknown key \`${shorten(key)}\`${where}; did you mean \`${close}\`?`;
  }
  return `unknown key \`${shorten(key)}\`${where}; ${habit ?? `there are ${known.map((name) => `\`${name}\``).join(", ")}`}`;
}

/** A path as a reader writes it: `providers.math.command[1]`. */
export function pathName(path: Path): string {
  return path
    .map((step, index) =>
      typeof step === "number" ? `[${step}]` : `${index === 0 ? "" : "."}${step}`,
    )
    .join("");
}

/** True where values may be secrets and are therefore never shown. */
export function isSecretPlace(path: Path): boolean {
  return path.some((step) => SECRET_PLACES.has(step));
}

const SECRET_PLACES: ReadonlySet<string | number> = new Set([
  "env",
  "headers",
  "command",
  "args",
  "url",
  "endpoint",
]);

function ruleOf(issue: z.core.$ZodIssue, value: unknown): string {
  switch (issue.code) {
    case "invalid_type": {
      const rule = `must be ${TYPE_NAMES[issue.expected] ?? issue.expected}`;
      const scalar = typeof value === "number" || typeof value === "boolean";
      return issue.expected === "string" && scalar ? `${rule}, so put it in quotes` : rule;
    }
    case "too_small":
      if (issue.origin === "string" || issue.origin === "array") return "must not be empty";
      return `must be at least ${issue.minimum}`;
    case "too_big":
      return issue.origin === "array"
        ? `must have at most ${issue.maximum} entries`
        : `must be at most ${issue.maximum}`;
    case "invalid_value": {
      const close =
        typeof value === "string" ? suggest(value, issue.values.map(String)) : undefined;
      const rule = `must be one of ${issue.values.map((one) => `\`${String(one)}\``).join(", ")}`;
      return close === undefined ? rule : `${rule} (did you mean \`${close}\`?)`;
    }
    default:
      return issue.message;
  }
}

function show(value: unknown, path: Path): string {
  if (value === null) return "nothing";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object") return "a map";
  if (isSecretPlace(path)) return typeof value === "string" ? "text" : `a ${typeof value}`;
  if (typeof value === "string") return `the text ${JSON.stringify(shorten(value))}`;
  return typeof value === "number" || typeof value === "boolean" ? `${value}` : `a ${typeof value}`;
}

function valueAt(value: unknown, path: Path): unknown {
  let here = value;
  for (const step of path) {
    if (typeof here !== "object" || here === null || !Object.hasOwn(here, step)) return undefined;
    here = (here as Record<string | number, unknown>)[step];
  }
  return here;
}

function keysAt(schema: z.ZodType, path: Path): string[] {
  let here: z.core.JSONSchema.BaseSchema = z.toJSONSchema(schema, { io: "input" });
  for (const step of path) {
    const next = here.properties?.[step];
    if (typeof next !== "object") return [];
    here = next;
  }
  return Object.keys(here.properties ?? {});
}
