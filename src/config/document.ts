import { isAlias, isMap, isScalar, isSeq, LineCounter, parseDocument } from "yaml";
import type { Node, YAMLError } from "yaml";

/** Where something stands in the text; both count from 1. */
interface Position {
  readonly line: number;
  readonly column: number;
}

export type Path = readonly (string | number)[];

/** A YAML or JSON text as plain values that remember where they stood. */
export interface ConfigDocument {
  /** Maps as plain objects, lists as arrays; undefined when the text cannot be read at all. */
  readonly value: unknown;
  readonly problems: readonly (Position & { readonly message: string })[];
  /** The position of the value at `path`, or of its key; of the nearest thing around it where there is none. */
  position(path: Path, part: "key" | "value"): Position;
}

const MAX_DEPTH = 64;
/** How many values all aliases together may stand for; this is what defuses a bomb of nested aliases. */
const MAX_ALIASED_VALUES = 10_000;

const UNQUOTED_VARIABLE =
  "not valid YAML: inside `[...]` and `{...}`, put text with `${...}` in quotes";

interface Offsets {
  readonly key: number;
  readonly value: number;
}

/**
 * Reads one YAML 1.2 document of the core schema (or JSON, which it contains).
 * Custom tags, duplicate keys, keys that are not text, merge keys, `__proto__` and nesting beyond 64 are problems.
 */
export function readDocument(text: string): ConfigDocument {
  const lines = new LineCounter();
  const positionAt = (offset: number): Position => {
    const { line, col } = lines.linePos(offset);
    return { line: Math.max(line, 1), column: Math.max(col, 1) };
  };
  const problems: (Position & { message: string })[] = [];
  const report = (offset: number, message: string): void => {
    problems.push({ ...positionAt(offset), message });
  };
  const offsets = new WeakMap<object, Map<string | number, Offsets>>();
  const position = (path: Path, part: "key" | "value"): Position => {
    let found: Offsets = { key: 0, value: 0 };
    let value = root;
    for (const [index, step] of path.entries()) {
      if (typeof value !== "object" || value === null) return positionAt(found.key);
      const next = offsets.get(value)?.get(step);
      if (next === undefined) return positionAt(found.key);
      found = next;
      if (index < path.length - 1) value = (value as Record<string | number, unknown>)[step];
    }
    return positionAt(found[part]);
  };
  let root: unknown;

  let document: ReturnType<typeof parseDocument>;
  try {
    document = parseDocument(text, {
      schema: "core",
      version: "1.2",
      resolveKnownTags: false,
      // The parser's own check is quadratic in the number of keys; the walk below does it.
      uniqueKeys: false,
      prettyErrors: false,
      lineCounter: lines,
    });
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    report(0, "is nested too deeply");
    return { value: undefined, problems, position };
  }
  let lastLine = 0;
  for (const error of document.errors) {
    const [offset] = error.pos;
    const { line } = positionAt(offset);
    // One mistake often upsets the rest of its line, and then the stream of everything after it.
    if (line === lastLine || (lastLine > 0 && error.message.includes(" in YAML stream"))) continue;
    lastLine = line;
    const unquoted = text[offset] === "{" && text[offset - 1] === "$";
    report(offset, unquoted ? UNQUOTED_VARIABLE : syntaxMessage(error));
  }
  if (problems.length > 0) return { value: undefined, problems, position };
  for (const warning of document.warnings) report(warning.pos[0], syntaxMessage(warning));
  if (document.directives?.yaml.explicit === true && document.directives.yaml.version !== "1.2") {
    report(0, "`%YAML` must be 1.2");
  }

  const anchors = new Map<string, Node>();
  let aliasedValues = 0;
  let bomb = false;

  function read(node: unknown, depth: number, aliased: boolean): unknown {
    if (aliased && ++aliasedValues > MAX_ALIASED_VALUES) bomb = true;
    if (bomb) return undefined;
    if (isAlias(node)) {
      const target = anchors.get(node.source);
      if (target !== undefined) return read(target, depth, true);
      report(startOf(node), `the alias \`*${node.source}\` has no anchor before it`);
      return undefined;
    }
    const value = readNode(node, depth, aliased);
    // Only now, so that an alias inside its own anchor finds nothing and no cycle can arise.
    if ((isMap(node) || isSeq(node) || isScalar(node)) && node.anchor !== undefined) {
      anchors.set(node.anchor, node);
    }
    return value;
  }

  function readNode(node: unknown, depth: number, aliased: boolean): unknown {
    if (isScalar(node)) return node.value;
    if (!isMap(node) && !isSeq(node)) return null;
    if (depth >= MAX_DEPTH) {
      report(startOf(node), `is nested more than ${MAX_DEPTH} levels deep`);
      return undefined;
    }
    const places = new Map<string | number, Offsets>();
    if (isSeq(node)) {
      const list: unknown[] = [];
      offsets.set(list, places);
      for (const [index, item] of node.items.entries()) {
        const start = startOf(item);
        places.set(index, { key: start, value: start });
        list.push(read(item, depth + 1, aliased));
      }
      return list;
    }
    const map: Record<string, unknown> = {};
    offsets.set(map, places);
    for (const { key, value } of node.items) {
      const start = startOf(key);
      const name = isScalar(key) ? key.value : undefined;
      if (typeof name !== "string") report(start, "a key must be text; put it in quotes");
      else if (name === "<<")
        report(
          start,
          "merge keys (`<<`) are not supported; use an alias as a whole value, or repeat the keys",
        );
      else if (name === "__proto__") report(start, "`__proto__` cannot be used as a name");
      else if (places.has(name)) report(start, `the key \`${shorten(name)}\` stands here twice`);
      else {
        places.set(name, { key: start, value: value === null ? start : startOf(value) });
        map[name] = read(value, depth + 1, aliased);
      }
    }
    return map;
  }

  root = read(document.contents, 0, false);
  if (bomb) {
    report(0, `its aliases stand for more than ${MAX_ALIASED_VALUES} values`);
    return { value: undefined, problems, position };
  }
  return { value: root, problems, position };
}

/** `text` cut to a length that fits into a message. */
export function shorten(text: string): string {
  return text.length <= 60 ? text : `${text.slice(0, 57)}...`;
}

function startOf(node: unknown): number {
  return (node as Node | null)?.range?.[0] ?? 0;
}

/** The parser's message without the piece of the text that some quote, which may be a secret. */
function syntaxMessage({ code, message }: YAMLError): string {
  if (code === "MULTIPLE_DOCS")
    return "only one YAML document is allowed; a second one starts here";
  if (code === "TAG_RESOLVE_FAILED") return "tags (`!name`) are not supported";
  if (message.startsWith("Maximum call stack")) return "is nested too deeply";
  const end = message.search(/(?<=\w):? ["'`]|(?<=\w): |\n/);
  return `not valid YAML: ${end === -1 ? message : message.slice(0, end)}`;
}
