import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { HangarError } from "../../src/errors.ts";
import {
  type Edit,
  idIn,
  itemsOf,
  membersOf,
  scanMessage,
  splice,
  stringAt,
  textOf,
} from "../../src/wire/envelope.ts";

/** Deepest nesting that is accepted, as the documentation says. */
const MAX_DEPTH = 64;

const RUNS = { numRuns: 1500 };

// ---- An independent, slow opinion: a tree that keeps duplicates and positions, of text that JSON.parse took.

interface Tree {
  start: number;
  end: number;
  value: unknown;
  members?: { key: string; tree: Tree }[];
  items?: Tree[];
}

function treeOf(text: string): Tree {
  const tokens = [...text.matchAll(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/gs)];
  let next = 0;
  function take(): { text: string; start: number; end: number } {
    const token = tokens[next++]!;
    return { text: token[0], start: token.index, end: token.index + token[0].length };
  }
  function value(): Tree {
    const first = take();
    const tree: Tree = { start: first.start, end: first.end, value: undefined };
    if (first.text === "{" || first.text === "[") {
      const isObject = first.text === "{";
      const members: { key: string; tree: Tree }[] = [];
      const items: Tree[] = [];
      let last = first;
      if (["}", "]"].includes(tokens[next]![0])) last = take();
      while (last.text !== "}" && last.text !== "]") {
        if (isObject) {
          const key: string = JSON.parse(take().text);
          take();
          members.push({ key, tree: value() });
        } else items.push(value());
        last = take();
      }
      tree.end = last.end;
      if (isObject) tree.members = members;
      else tree.items = items;
    }
    tree.value = JSON.parse(text.slice(tree.start, tree.end));
    return tree;
  }
  return value();
}

function depthOf(tree: Tree): number {
  const inner = tree.members?.map((found) => found.tree) ?? tree.items;
  return inner === undefined ? 0 : 1 + Math.max(0, ...inner.map(depthOf));
}

const NAMES = ["jsonrpc", "id", "method", "params", "result", "error"];

function keysAreClean(tree: Tree | undefined): boolean {
  const keys = tree?.members?.map((found) => found.key) ?? [];
  return new Set(keys).size === keys.length && !keys.some((key) => key.includes("\0"));
}

function find(tree: Tree | undefined, name: string): Tree | undefined {
  return tree?.members?.find((found) => found.key === name)?.tree;
}

function isPlainObject(found: unknown): boolean {
  return typeof found === "object" && found !== null && !Array.isArray(found);
}

/** Whether `text`, valid JSON, is a message by the rules that scanMessage documents. */
function isMessage(text: string): boolean {
  const tree = treeOf(text);
  if (tree.members === undefined || depthOf(tree) > MAX_DEPTH || !keysAreClean(tree)) return false;
  for (const { key } of tree.members) {
    if (!NAMES.includes(key) && NAMES.includes(key.toUpperCase().toLowerCase())) return false;
  }
  const [jsonrpc, id, method, params, result, error] = NAMES.map((name) => find(tree, name));
  for (const body of [params, result, error]) {
    if (!keysAreClean(body) || !keysAreClean(find(body, "_meta"))) return false;
  }
  if (jsonrpc?.value !== "2.0") return false;
  if (method !== undefined && typeof method.value !== "string") return false;
  if (params !== undefined && (typeof params.value !== "object" || params.value === null)) {
    return false;
  }
  if (error !== undefined && !isPlainObject(error.value)) return false;
  if ([method, result, error].filter((found) => found !== undefined).length !== 1) return false;
  if (id === undefined) return result === undefined;
  return ["string", "number"].includes(typeof id.value) || (id.value === null && !!error);
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** The code scanMessage refuses `text` with, or undefined. */
function refusalOf(text: string): string | undefined {
  try {
    scanMessage(text);
    return undefined;
  } catch (error) {
    if (error instanceof HangarError) return error.code;
    throw error;
  }
}

function reasonOf(text: string): string {
  try {
    scanMessage(text);
  } catch (error) {
    if (error instanceof HangarError) return `${error.code}: ${error.message}`;
    throw error;
  }
  return "accepted";
}

// ---- JSON in many spellings

const space = fc.constantFrom("", "", "", " ", "\n", "\t", "\r\n  ");

/** One character of a string, written plainly or escaped. */
const spelledCharacter = fc
  .tuple(
    fc.oneof(
      fc.constantFrom(...'aZ09 "\\/\b\f\n\r\t\0é語\u2028\u007f'.split(""), "😀", "\ud800"),
      fc.string({ unit: "binary", minLength: 1, maxLength: 1 }),
    ),
    fc.boolean(),
  )
  .map(([character, escaped]) =>
    escaped ? escape(character) : JSON.stringify(character).slice(1, -1),
  );

function escape(piece: string): string {
  return piece
    .split("")
    .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`)
    .join("");
}

const randomString = fc
  .array(spelledCharacter, { maxLength: 12 })
  .map((characters) => `"${characters.join("")}"`);

/** `name` as JSON text, with some of its letters escaped. */
function spelled(name: string): fc.Arbitrary<string> {
  return fc.nat().map((bits) => {
    const letters = name.split("");
    return `"${letters.map((c, i) => ((bits >> i) & 7 ? c : escape(c))).join("")}"`;
  });
}

const number = fc.constantFrom(
  "0",
  "-0",
  "7",
  "1.0",
  "-1.5e+3",
  "1E400",
  "9007199254740993",
  "2e-7",
);
const scalar = fc.oneof(number, randomString, fc.constantFrom("true", "false", "null"));
const key = fc.oneof(
  { weight: 4, arbitrary: randomString },
  { weight: 1, arbitrary: fc.constantFrom("_meta", "name", "id", "__proto__").chain(spelled) },
);

function objectOf(one: fc.Arbitrary<string>, maxLength: number): fc.Arbitrary<string> {
  return fc
    .tuple(fc.array(fc.tuple(space, one, space), { maxLength }), space)
    .map(
      ([members, inner]) =>
        `{${members.length > 0 ? members.map((m) => m.join("")).join(",") : inner}}`,
    );
}

function member(keyText: fc.Arbitrary<string>, value: fc.Arbitrary<string>): fc.Arbitrary<string> {
  return fc
    .tuple(keyText, space, space, value)
    .map(([k, before, after, v]) => `${k}${before}:${after}${v}`);
}

const { value } = fc.letrec<{ value: string; object: string; array: string }>((tie) => ({
  value: fc.oneof({ maxDepth: 4, depthSize: "small" }, scalar, tie("object"), tie("array")),
  object: objectOf(member(key, tie("value")), 4),
  array: fc
    .tuple(fc.array(fc.tuple(space, tie("value"), space), { maxLength: 4 }), space)
    .map(
      ([items, inner]) => `[${items.length > 0 ? items.map((i) => i.join("")).join(",") : inner}]`,
    ),
}));

const object = objectOf(member(key, value), 4);
const bodyText = objectOf(
  fc.oneof(
    { weight: 3, arbitrary: member(key, value) },
    { weight: 2, arbitrary: member(spelled("_meta"), object) },
  ),
  5,
);

/** A top-level member that fits a message. */
function part(name: string, ...values: fc.Arbitrary<string>[]): fc.Arbitrary<string> {
  return member(spelled(name), fc.oneof(...values));
}
const version = part("jsonrpc", spelled("2.0"));
const id = part("id", number, randomString);
const method = part("method", randomString);
const stranger = member(
  fc.oneof(
    { weight: 5, arbitrary: key },
    { weight: 1, arbitrary: fc.constantFrom('"Method"', '"ID"', '"jsonRPC"', '"param\u017f"') },
  ),
  value,
);
const surprise = fc.oneof(
  part("jsonrpc", value),
  part("id", value),
  part("method", value),
  part("params", value),
  part("result", value),
  part("error", value),
  stranger,
);

const message = fc
  .tuple(
    fc.oneof(
      fc.tuple(version, id, method, part("params", bodyText, bodyText, value)),
      fc.tuple(version, method, part("params", bodyText)),
      fc.tuple(version, id, part("result", bodyText, bodyText, value)),
      fc.tuple(version, part("id", number, fc.constant("null")), part("error", object)),
    ),
    fc.oneof(
      { weight: 3, arbitrary: fc.constant([]) },
      { weight: 1, arbitrary: fc.array(surprise, { minLength: 1, maxLength: 2 }) },
      { weight: 1, arbitrary: fc.array(stranger, { minLength: 1, maxLength: 2 }) },
    ),
    space,
  )
  .chain(([parts, more, around]) =>
    fc
      .shuffledSubarray([...parts, ...more], {
        minLength: Math.max(1, parts.length + more.length - 1),
      })
      .map((members) => `${around}{${around}${members.join(`${around},`)}}${around}`),
  );

const REQUEST =
  '{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"add","_meta":{"progressToken":"p"},"arguments":{"a":1.0,"b":[-2e3,true,null,"x\\n"]}}}';

describe("scanMessage", () => {
  it("accepts exactly the messages that JSON.parse and the slow check accept, in any spelling", () => {
    const seen = { accepted: 0, refused: 0 };
    fc.assert(
      fc.property(message, (text) => {
        expect(isJson(text)).toBe(true);
        const expected = isMessage(text);
        expect(refusalOf(text)).toBe(expected ? undefined : "invalid_message");
        seen[expected ? "accepted" : "refused"]++;
      }),
      RUNS,
    );
    expect(seen.accepted).toBeGreaterThan(200);
    expect(seen.refused).toBeGreaterThan(200);
  });

  it("agrees with JSON.parse and the slow check after any random damage", () => {
    const seen = { accepted: 0, refused: 0 };
    const at = fc.double({ min: 0, max: 1, noNaN: true });
    const rough = fc.record({
      at,
      remove: fc.nat(2),
      insert: fc.constantFrom(
        "",
        ...'{}[],:"\\ 0159-+.eEutrfalsnx\n\0\ufeff\u00a0é'.split(""),
        "\\u00",
        "\u0001",
      ),
    });
    const gentle = fc.record({
      at,
      remove: fc.nat(1),
      insert: fc.constantFrom(" ", "\n", "x", "0", "1", "\\n", "é"),
    });
    const damage = fc.oneof(
      fc.array(gentle, { minLength: 1, maxLength: 1 }),
      fc.array(rough, { minLength: 1, maxLength: 3 }),
    );
    const base = fc.oneof(fc.constant(REQUEST), message);
    fc.assert(
      fc.property(base, damage, (whole, edits) => {
        let text = whole;
        for (const { at: place, remove, insert } of edits) {
          const start = Math.floor(place * text.length);
          text = text.slice(0, start) + insert + text.slice(start + remove);
        }
        const refusal = refusalOf(text);
        if (isJson(text)) expect(refusal).toBe(isMessage(text) ? undefined : "invalid_message");
        else expect(refusal).toBeOneOf(["parse_error", "invalid_message"]);
        seen[refusal === undefined ? "accepted" : "refused"]++;
      }),
      { numRuns: 5000 },
    );
    expect(seen.accepted).toBeGreaterThan(200);
    expect(seen.refused).toBeGreaterThan(200);
  });

  it("agrees with JSON.parse about strings of every length, wherever escapes, quotes and controls stand", () => {
    const piece = fc.oneof(
      fc.constantFrom(1, 31, 32, 33, 998, 1000, 1003, 3000).map((n) => "a".repeat(n)),
      fc.constantFrom('\\"', "\\\\", "\\u0041", "\\n", "語", "\ud800", "\u007f"),
      fc.constantFrom('\\"', "\\\\", "\\ud83d\\ude00", "😀"),
      fc.constantFrom("\\", '"', "\\u12", "\\x", "\n", "\0", "\u001f"),
    );
    const seen = { accepted: 0, refused: 0 };
    fc.assert(
      fc.property(
        fc.array(piece, { maxLength: 8 }),
        fc.constantFrom('"}}', '"}}', '"}}', ""),
        (pieces, end) => {
          const text = `{"jsonrpc":"2.0","method":"x","params":{"text":"${pieces.join("")}${end}`;
          const refusal = refusalOf(text);
          if (isJson(text)) {
            expect(refusal).toBeUndefined();
            const { body } = scanMessage(text);
            expect(stringAt(text, body.get("text"))).toBe(JSON.parse(text).params.text);
          } else expect(refusal).toBe("parse_error");
          seen[refusal === undefined ? "accepted" : "refused"]++;
        },
      ),
      RUNS,
    );
    expect(seen.accepted).toBeGreaterThan(200);
    expect(seen.refused).toBeGreaterThan(200);
  });

  it("finds every part where the slow parser finds it", () => {
    let compared = 0;
    fc.assert(
      fc.property(message, (text) => {
        if (refusalOf(text) !== undefined) return;
        compared++;
        const scanned = scanMessage(text);
        const tree = treeOf(text);
        const idTree = find(tree, "id");
        expect(scanned.text).toBe(text);
        expect(scanned.method).toBe(find(tree, "method")?.value);
        expect(scanned.id).toBe(idTree && text.slice(idTree.start, idTree.end));
        for (const name of ["params", "result", "error"] as const) {
          const found = find(tree, name);
          expect(scanned[name]).toEqual(found && { start: found.start, end: found.end });
        }
        expect(scanned.kind).toBe(
          scanned.method === undefined
            ? "response"
            : idTree === undefined
              ? "notification"
              : "request",
        );
        const bodyTree = find(tree, scanned.kind === "response" ? "result" : "params");
        expect([...scanned.body]).toEqual(spansOf(bodyTree));
        expect([...scanned.meta]).toEqual(spansOf(find(bodyTree, "_meta")));
        for (const [name, span] of scanned.body) {
          expect(JSON.parse(textOf(text, span))).toEqual(find(bodyTree, name)?.value);
        }
      }),
      RUNS,
    );
    expect(compared).toBeGreaterThan(200);
  });

  it("reads a tools/call as a client sends it", () => {
    const scanned = scanMessage(REQUEST);
    expect(scanned.kind).toBe("request");
    expect(scanned.id).toBe("7");
    expect(scanned.method).toBe("tools/call");
    expect([...scanned.body.keys()]).toEqual(["name", "_meta", "arguments"]);
    expect(stringAt(REQUEST, scanned.body.get("name"))).toBe("add");
    expect(stringAt(REQUEST, scanned.meta.get("progressToken"))).toBe("p");
  });

  it.each(["9007199254740993", "1.0", "-0", "1e400", '"\\u0061"', '"\\ud800"', '""'])(
    "keeps the id %s as it is written",
    (raw) => {
      expect(scanMessage(`{"jsonrpc":"2.0","id": ${raw} ,"method":"ping"}`).id).toBe(raw);
    },
  );

  it("allows a null or missing id only where an error answers nothing in particular", () => {
    expect(scanMessage('{"jsonrpc":"2.0","id":null,"error":{}}').id).toBe("null");
    expect(scanMessage('{"jsonrpc":"2.0","error":{}}').id).toBeUndefined();
    expect(reasonOf('{"jsonrpc":"2.0","id":null,"result":{}}')).toMatch(/^invalid_message: `id`/);
    expect(reasonOf('{"jsonrpc":"2.0","id":null,"method":"x"}')).toMatch(/^invalid_message: `id`/);
    expect(reasonOf('{"jsonrpc":"2.0","result":{}}')).toMatch(/^invalid_message: .*no `id`/);
  });

  it("takes the result for the body of a response that also has params", () => {
    const text = '{"jsonrpc":"2.0","id":1,"result":{"r":1},"params":{"p":1}}';
    expect([...scanMessage(text).body.keys()]).toEqual(["r"]);
  });

  it("accepts 64 levels and refuses 65, wherever they are", () => {
    for (const place of ['"params":{"a":@}', '"params":{"_meta":{"a":@}}', '"params":@', '"x":@']) {
      const outer = place.split("{").length;
      const at = (levels: number) => {
        const nested = "[".repeat(levels - outer) + "]".repeat(levels - outer);
        return `{"jsonrpc":"2.0","method":"x",${place.replace("@", nested)}}`;
      };
      expect(refusalOf(at(MAX_DEPTH))).toBeUndefined();
      expect(reasonOf(at(MAX_DEPTH + 1))).toMatch(/^invalid_message: .*deeper than 64/);
    }
  });

  it("refuses hundreds of thousands of levels without overflowing the stack", () => {
    for (const opening of ["[", '{"a":', '[{"a":']) {
      const nested = opening.repeat(200_000);
      expect(reasonOf(nested)).toMatch(/deeper than 64/);
      expect(reasonOf(`{"jsonrpc":"2.0","method":"x","params":{"a":${nested}`)).toMatch(
        /deeper than 64/,
      );
    }
  });

  it.each([
    ["at the top", '{"jsonrpc":"2.0","id":1,"\\u0069d":2,"method":"x"}', '"id"', 24],
    ["among unknown keys", '{"jsonrpc":"2.0","method":"x","y":1,"y":2}', '"y"', 36],
    [
      "in params",
      '{"jsonrpc":"2.0","method":"x","params":{"name":1,"n\\u0061me":2}}',
      '"name"',
      49,
    ],
    [
      "in _meta",
      '{"jsonrpc":"2.0","method":"x","params":{"\\u005fmeta":{"a":1,"a":2}}}',
      '"a"',
      60,
    ],
    ["in a result", '{"jsonrpc":"2.0","id":1,"result":{"a":1,"a":2}}', '"a"', 40],
  ])("refuses a duplicate key %s and says where", (_where, text, name, position) => {
    expect(reasonOf(text)).toBe(
      `invalid_message: The key ${name} occurs a second time at position ${position}.`,
    );
  });

  it("leaves duplicate keys deeper inside to whom they are meant for", () => {
    const text = '{"jsonrpc":"2.0","method":"x","params":{"arguments":{"a":1,"a":2}}}';
    expect(refusalOf(text)).toBeUndefined();
  });

  it.each([
    "Method",
    "ID",
    "jsonRPC",
    "PARAMS",
    "Result",
    "eRROR",
    "\\u0049d",
    "param\u017f",
    "re\u017fult",
  ])("refuses the key %s, which a lenient parser would take for a reserved one", (name) => {
    expect(reasonOf(`{"jsonrpc":"2.0","id":1,"method":"x","${name}":{}}`)).toMatch(
      /^invalid_message: .*reserved name in the wrong case/,
    );
  });

  it("refuses a NUL in a key at the levels it reads", () => {
    for (const text of [
      '{"jsonrpc":"2.0","method":"x","id\\u0000":1}',
      '{"jsonrpc":"2.0","method":"x","params":{"a\\u0000b":1}}',
      '{"jsonrpc":"2.0","method":"x","params":{"_meta":{"\\u0000":1}}}',
    ]) {
      expect(reasonOf(text)).toMatch(/^invalid_message: .*NUL/);
    }
    expect(
      refusalOf('{"jsonrpc":"2.0","method":"x","params":{"a":{"\\u0000":1}}}'),
    ).toBeUndefined();
  });

  it("says that batches are not supported, but takes bracketed log output for bad JSON", () => {
    expect(reasonOf(`[${REQUEST}]`)).toMatch(/^invalid_message: .*batches are not supported/);
    expect(reasonOf("[INFO] listening")).toMatch(/^parse_error: .*at position 1, found "I"/);
    expect(reasonOf("Server started")).toMatch(/^parse_error: .*at position 0/);
    expect(reasonOf('"text"')).toMatch(/^invalid_message: .*must be an object, found "text"/);
  });

  it.each([
    ["", 0],
    ["{", 1],
    ['{"a":1,}', 7],
    ['{"a" 1}', 5],
    ['{"a":01}', 6],
    ['{"a":1.}', 7],
    ['{"a":-}', 6],
    ['{"a":1e}', 7],
    ['{"a":[1,]}', 8],
    ['{"a":[1}', 7],
    ['{"a":tru}', 5],
    ['{"a":NaN}', 5],
    ['{"a":"\\x"}', 7],
    ['{"a":"\\u00g0"}', 10],
    ['{"a":"\n"}', 6],
    ['{"a":"b', 7],
    ["{'a':1}", 1],
    ["\ufeff{}", 0],
    ["{} {}", 3],
    ['{"a":1}\u00a0', 7],
  ])("reports the syntax error of %j at its position", (text, position) => {
    expect(isJson(text)).toBe(false);
    expect(reasonOf(text)).toMatch(new RegExp(`^parse_error: .* at position ${position}, found `));
  });

  it.each([
    ['{"id":1,"method":"x"}', "no `jsonrpc`"],
    ['{"jsonrpc":2.0,"method":"x"}', '`jsonrpc` must be "2.0", found 2.0'],
    ['{"jsonrpc":"1.0","method":"x"}', '`jsonrpc` must be "2.0", found "1.0"'],
    ['{"jsonrpc":"2.0","id":{},"method":"x"}', "`id` must be a string or a number, found {}"],
    ['{"jsonrpc":"2.0","id":true,"method":"x"}', "`id` must be"],
    ['{"jsonrpc":"2.0","id":1,"method":7}', "`method` must be a string, found 7"],
    ['{"jsonrpc":"2.0","method":"x","params":"p"}', "`params` must be an object or an array"],
    ['{"jsonrpc":"2.0","method":"x","params":null}', "`params` must be an object or an array"],
    ['{"jsonrpc":"2.0","id":1,"result":1,"error":{}}', "both `result` and `error`"],
    ['{"jsonrpc":"2.0","id":1}', "neither `method` nor"],
    ['{"jsonrpc":"2.0","id":1,"method":"x","result":{}}', "`method` together with"],
    ['{"jsonrpc":"2.0","id":1,"error":"no"}', "`error` must be an object"],
  ])("refuses %s", (text, reason) => {
    expect(reasonOf(text)).toContain(`invalid_message: `);
    expect(reasonOf(text)).toContain(reason);
  });

  it("repeats only the beginning of a long value in its errors", () => {
    const long = "x".repeat(100_000);
    expect(reasonOf(`{"jsonrpc":"${long}","method":"x"}`).length).toBeLessThan(200);
    expect(reasonOf(`{"${long}":1,"${long}":2}`).length).toBeLessThan(200);
  });
});

function spansOf(tree: Tree | undefined): [string, { start: number; end: number }][] {
  const members = tree?.members ?? [];
  return members.map(({ key: name, tree: { start, end } }) => [name, { start, end }]);
}

describe("idIn", () => {
  it.each([
    ["another JSON-RPC", '{"jsonrpc":"1.0","id":7,"method":"a"}', "7"],
    ["the id at the end", '{"method":"a","params":[NaN,{"id":1}],"jsonrpc":"2.0", "id" : 7 }', "7"],
    ["a key twice", '{"id":"\\u0061","method":"a","params":{},"params":{}}', '"\\u0061"'],
    ["a number no double holds", '{"method":"a","id":90071992547409931e0}', "90071992547409931e0"],
    ["an end too soon", '{"id":7,"method":"a","params":{"text":"xx', "7"],
    ["an end in the id", '{"method":"a","id":7', "null"],
    ["the id twice", '{"id":7,"method":"a","id":8}', "null"],
    ["the id twice, once hidden", '{"id":7,"method":"a","\\u0069d":8}', "null"],
    ["no method", '{"id":7,"params":{}}', "null"],
    ["a result", '{"id":7,"result":NaN,"method":"a"}', "null"],
    ["an error", '{"method":"a","id":7,"error":{}}', "null"],
    ["the id null", '{"id":null,"method":"a"}', "null"],
    ["the id an object", '{"id":{},"method":"a"}', "null"],
    ["the id no number", '{"id":07,"method":"a"}', "null"],
    ["a batch", '[{"id":7,"method":"a"}]', "null"],
    ["no object", "7", "null"],
    ["nothing", "", "null"],
  ])("of a message with %s", (_, text, id) => {
    expect(idIn(text)).toBe(id);
  });

  it("is the request's own or null, whatever is cut off or damaged behind it", () => {
    const key = fc.constantFrom("a", "id", "method");
    const request = fc.record({
      id: fc.oneof(fc.string(), fc.integer()),
      method: fc.string(),
      params: fc.dictionary(key, fc.jsonValue()),
    });
    fc.assert(
      fc.property(request, fc.nat(), fc.string(), (message, at, damage) => {
        const text = JSON.stringify(message);
        const own = JSON.stringify(message.id);
        expect(idIn(text)).toBe(own);
        const behind = text.indexOf(',"params"') + 1 + (at % 20);
        const found = idIn(text.slice(0, behind) + damage);
        if (!damage.includes('"')) expect([own, "null"]).toContain(found);
      }),
      RUNS,
    );
  });

  it("throws at no text", () => {
    const pieces = fc.constantFrom(
      "{",
      "}",
      "[",
      "]",
      ",",
      ":",
      '"',
      "\\",
      '"id"',
      '"method"',
      "1",
    );
    fc.assert(
      fc.property(fc.array(pieces), fc.string(), (some, any) => {
        expect(typeof idIn(`{${some.join("")}`)).toBe("string");
        expect(idIn(any)).toBe("null");
      }),
      RUNS,
    );
  });

  it("passes hundreds of thousands of levels", () => {
    const deep = "[".repeat(300_000) + "]".repeat(300_000);
    expect(idIn(`{"method":"a","params":${deep},"id":7}`)).toBe("7");
  });
});

describe("membersOf and itemsOf", () => {
  it("find what the slow parser finds, at any level", () => {
    fc.assert(
      fc.property(value, space, (inner, around) => {
        const text = `${around}${inner}${around}`;
        const tree = treeOf(text);
        const span = { start: tree.start, end: tree.end };
        const items = tree.items?.map(({ start, end }) => ({ start, end }));
        expect(itemsOf(text, span)).toEqual(items);
        const keys = tree.members?.map((found) => found.key);
        if (new Set(keys).size < (keys?.length ?? 0)) {
          expect(() => membersOf(text, span)).toThrow(/occurs a second time/);
        } else {
          const members = membersOf(text, span);
          expect(members && [...members]).toEqual(tree.members && spansOf(tree));
        }
      }),
      RUNS,
    );
  });
});

describe("stringAt", () => {
  it("decodes strings and nothing else", () => {
    const at = (text: string) => stringAt(text, { start: 0, end: text.length });
    expect(at('"a\\u0062\\n"')).toBe("ab\n");
    expect(at('"\\ud800"')).toBe("\ud800");
    expect(at("7")).toBeUndefined();
    expect(at("{}")).toBeUndefined();
    expect(stringAt('"a"', undefined)).toBeUndefined();
  });
});

describe("splice", () => {
  it("changes what it is told to and not one other byte", () => {
    const argumentsText =
      '{"big":9007199254740993, "one":1.0,"huge":1e400,"zero":-0 ,"a":1,"a":2,"t":"é語\\u00e9😀\\ud800"}';
    const text = `{"jsonrpc": "2.0","id":"c-1","method":"tools/call","params":{"name":"math__add","arguments":${argumentsText}}}`;
    const { body, params } = scanMessage(text);
    const start = text.indexOf('"c-1"');
    const edits: Edit[] = [
      { span: body.get("name")!, text: '"add"' },
      { span: { start, end: start + 5 }, text: "41" },
      { span: { start: params!.end - 1, end: params!.end - 1 }, text: ',"_meta":{}' },
    ];
    expect(splice(text, { start: 0, end: text.length }, edits)).toBe(
      `{"jsonrpc": "2.0","id":41,"method":"tools/call","params":{"name":"add","arguments":${argumentsText},"_meta":{}}}`,
    );
    expect(splice(text, params!, edits.slice(0, 1))).toBe(
      `{"name":"add","arguments":${argumentsText}}`,
    );
    expect(splice(text, body.get("arguments")!, [])).toBe(argumentsText);
  });

  it("does what cutting from right to left does, whatever the order of the edits", () => {
    const cuts = fc.uniqueArray(fc.nat(60), { minLength: 2, maxLength: 12 });
    fc.assert(
      fc.property(
        fc.string({ minLength: 61, maxLength: 80 }),
        cuts,
        fc.array(fc.string(), { minLength: 6, maxLength: 6 }),
        fc.infiniteStream(fc.nat()),
        (text, points, texts, random) => {
          const ordered = points.toSorted((a, b) => a - b);
          const edits: Edit[] = [];
          for (let i = 0; i + 1 < ordered.length; i += 2) {
            const span = { start: ordered[i]!, end: ordered[i + 1]! };
            edits.push({ span, text: texts[i / 2]! });
          }
          let expected = text;
          for (const { span, text: replacement } of edits.toReversed()) {
            expected = expected.slice(0, span.start) + replacement + expected.slice(span.end);
          }
          const keyed = edits.map((edit) => ({ edit, rank: random.next().value }));
          const shuffled = keyed.toSorted((a, b) => a.rank - b.rank).map(({ edit }) => edit);
          expect(splice(text, { start: 0, end: text.length }, shuffled)).toBe(expected);
        },
      ),
      RUNS,
    );
  });

  it("refuses edits that overlap or lie outside", () => {
    const edit = (start: number, end: number) => ({ span: { start, end }, text: "" });
    const within = { start: 2, end: 8 };
    expect(() => splice("0123456789", within, [edit(3, 5), edit(4, 6)])).toThrow(HangarError);
    expect(() => splice("0123456789", within, [edit(1, 3)])).toThrow(HangarError);
    expect(() => splice("0123456789", within, [edit(7, 9)])).toThrow(HangarError);
  });
});
