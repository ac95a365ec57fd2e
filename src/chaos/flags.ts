/** What the chaos server can be told to do: one table, from which come its options, their help and the reference page. */

/** One flag, and what its value is when it is given. */
export interface Flag<T = unknown> {
  /** The heading it stands under. */
  readonly group: Group;
  /** One sentence, without its full stop, whose subject is the server. */
  readonly says: string;
  /** What to write behind the flag; a flag without one is on or off. */
  readonly value?: {
    readonly name: string;
    /** What it must be, for whoever wrote something else. */
    readonly must: string;
    /** The value that `text` stands for; undefined when it stands for none. `earlier` is that of the same flag before it. */
    parse(text: string, earlier: T | undefined): T | undefined;
  };
}

export const GROUPS = {
  server: "The server",
  life: "Starting and ending",
  calls: "Answering",
  answers: "What is in the answers that --on names",
  lists: "Changing lists",
  output: "How bytes are written",
  stdio: "On stdio only",
  http: "With --http only",
} as const;
type Group = keyof typeof GROUPS;

const MAX_PORT = 65_535;
const MAX_EXIT_CODE = 255;
/** What a timer can hold, in milliseconds. */
const MAX_MS = 2 ** 31 - 1;
const MAX_BYTES = 2 ** 32;
/** The longest text a string can hold is not much longer. */
const MAX_TEXT_BYTES = 256 * 1024 * 1024;
const MAX_COUNT = 1_000_000;
const MAX_SEED = 2 ** 32 - 1;

const ERAS = ["legacy", "modern", "both"] as const;
export type Eras = (typeof ERAS)[number];

function toggle(group: Group, says: string): Flag<boolean> {
  return { group, says };
}

function whole(
  group: Group,
  name: string,
  [least, most]: readonly [number, number],
  says: string,
): Flag<number> {
  const parse = (text: string): number | undefined => {
    const value = Number(text);
    return /^\d+$/.test(text) && value >= least && value <= most ? value : undefined;
  };
  return { group, says, value: { name, must: `a whole number from ${least} to ${most}`, parse } };
}

function methods(group: Group, says: string): Flag<readonly string[]> {
  const must = "a method, such as tools/call";
  const parse = (text: string, earlier: readonly string[] = []) =>
    text === "" ? undefined : [...earlier, text];
  return { group, says, value: { name: "method", must, parse } };
}

/** By the name they have in code; on the command line `crashAfter` is `--crash-after`. */
export const FLAGS = {
  http: whole(
    "server",
    "port",
    [0, MAX_PORT],
    "serves Streamable HTTP on this port of 127.0.0.1 instead of stdio (0: any free one) and says its URL on stderr",
  ),
  era: {
    group: "server",
    says: "speaks the revisions with `initialize` (legacy), 2026-07-28 (modern), or each client's (both, the default)",
    value: {
      name: "era",
      must: "legacy, modern or both",
      parse: (text) => ERAS.find((era) => era === text),
    },
  } as Flag<Eras>,
  tools: whole(
    "server",
    "n",
    [0, MAX_COUNT],
    "lists n more tools, dummy_1 to dummy_n, which return their name",
  ),
  ledger: {
    group: "server",
    says: "appends one line of JSON to the file for every `count`, `read` and `put` that ran, so that they can be counted across restarts",
    value: { name: "file", must: "the path of a file", parse: (text) => text || undefined },
  } as Flag<string>,

  startMs: whole(
    "life",
    "ms",
    [0, MAX_MS],
    "reads and answers nothing for the first ms milliseconds",
  ),
  crashOnStart: whole(
    "life",
    "code",
    [0, MAX_EXIT_CODE],
    "exits with this code instead of starting",
  ),
  exitOnProbe: toggle("life", "exits with code 1 on any request that comes before `initialize`"),
  crashAfter: whole(
    "life",
    "n",
    [1, MAX_COUNT],
    "exits with code 3 in place of its answer to the n-th tools/call, which has run",
  ),
  crashRate: {
    group: "life",
    says: "exits with code 3 in place of an answer to tools/call with this probability; the call has run",
    value: {
      name: "0..1",
      must: "a number from 0 to 1",
      parse: (text) => {
        const rate = Number(text);
        return text !== "" && rate >= 0 && rate <= 1 ? rate : undefined;
      },
    },
  } as Flag<number>,
  seed: whole("life", "n", [0, MAX_SEED], "makes --crash-rate hit the same calls in every run"),
  ignoreTerm: toggle("life", "lives on after SIGTERM"),
  ignoreEof: toggle("life", "lives on after its stdin has ended"),
  grandchild: toggle(
    "life",
    "starts a child in its own process group that ignores SIGTERM and holds stdout and stderr open, for ten minutes",
  ),
  setsidGrandchild: toggle(
    "life",
    "starts a child in a session of its own that ignores SIGTERM, for ten minutes",
  ),

  hang: methods(
    "calls",
    "never answers this method, though a call runs; `spawn` stands for everything; may be given again",
  ),
  delayMs: whole("calls", "ms", [0, MAX_MS], "waits this long before every answer"),
  replyAfterCancel: toggle(
    "calls",
    "lets no cancellation stop a call, and answers it all the same",
  ),
  stderrBytes: whole(
    "calls",
    "bytes",
    [0, MAX_BYTES],
    "writes this much to stderr before it reads anything",
  ),
  stderrBytesPerCall: whole(
    "calls",
    "bytes",
    [0, MAX_BYTES],
    "writes this much to stderr before each answer to tools/call",
  ),

  on: methods(
    "answers",
    "names the method whose answers have the faults of this group, --endless-line, --http-status and --http-eof; may be given again; `all` stands for every method (default tools/call)",
  ),
  wrongId: toggle(
    "answers",
    "answers with an id that no request had, and never with the right one",
  ),
  stringId: toggle("answers", 'answers with the id as a string: "7" to request 7'),
  strayReplies: toggle(
    "answers",
    "sends four answers that belong to no request ahead of the right one",
  ),
  doubleReply: toggle("answers", "answers twice, the second time with the text `second answer`"),
  duplicateKeys: toggle(
    "answers",
    "says `result` twice in one message, the first time with `shadowed`",
  ),
  badUtf8: toggle("answers", "puts a byte that is not UTF-8 into the message"),
  hugeBytes: whole(
    "answers",
    "bytes",
    [0, MAX_TEXT_BYTES],
    "adds a member `padding` of this many bytes to the result",
  ),
  depth: whole(
    "answers",
    "n",
    [1, MAX_COUNT],
    "adds a member `nested` of n arrays within each other to the result",
  ),

  listChangedPerS: whole(
    "lists",
    "n",
    [1, MAX_COUNT],
    "sends notifications/tools/list_changed n times a second",
  ),
  listChangedTimes: whole("lists", "n", [1, MAX_COUNT], "stops after n of them"),
  listChangedReal: toggle(
    "lists",
    "renames a tool, changing_1, changing_2 and so on, each time it says that its list has changed",
  ),

  split: toggle("output", "writes every byte by itself"),
  dripMs: whole(
    "output",
    "ms",
    [1, MAX_MS],
    "writes one byte every ms milliseconds, so that characters of several bytes are torn",
  ),

  noiseBefore: toggle(
    "stdio",
    "prints lines that are no JSON-RPC, some of them JSON, before its first message",
  ),
  noiseBetween: toggle("stdio", "prints such lines after every message"),
  noiseAfter: toggle("stdio", "prints such lines when its stdin has ended"),
  crlf: toggle("stdio", "ends lines with CR LF"),
  bom: toggle("stdio", "begins with a byte order mark"),
  blankLines: toggle("stdio", "prints an empty line and one of spaces before every message"),
  endlessLine: whole(
    "stdio",
    "bytes",
    [1, MAX_BYTES],
    "writes this many bytes without a line feed in place of the answer",
  ),
  stopReadingAfter: whole(
    "stdio",
    "n",
    [0, MAX_COUNT],
    "reads nothing more from stdin after n messages",
  ),

  httpStatus: whole("http", "status", [400, 599], "answers with this HTTP status and no JSON-RPC"),
  httpRetryAfter: whole("http", "s", [0, MAX_COUNT], "adds Retry-After to --http-status"),
  httpClose: toggle("http", "accepts connections and closes them at once"),
  httpEof: toggle("http", "answers with 200 and an event stream that ends without an event"),
  httpForgetSessionsAfter: whole(
    "http",
    "n",
    [1, MAX_COUNT],
    "answers 404 in a session after n messages in it, until `initialize` begins another",
  ),
};

type FlagName = keyof typeof FLAGS;

/** The flags that were given, with their values. */
export type Faults = {
  readonly [Name in FlagName]?: (typeof FLAGS)[Name] extends Flag<infer T> ? T : never;
};

/** `crashAfter` as `--crash-after`. */
function flagOf(name: string): string {
  return `--${name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

/** Every flag as it is written on the command line, in the order of the help. */
export const FLAG_ROWS: readonly { readonly usage: string; readonly flag: Flag }[] = Object.entries(
  FLAGS as Record<string, Flag>,
).map(([name, flag]) => ({
  usage: `${flagOf(name)}${flag.value === undefined ? "" : ` <${flag.value.name}>`}`,
  flag,
}));

/** What is wrong with flags that are right each by itself; undefined when nothing is. */
export function conflictIn(faults: Faults): string | undefined {
  const given = Object.keys(faults) as FlagName[];
  const [no, wrong] =
    faults.http === undefined
      ? (["http", "needs --http"] as const)
      : (["stdio", "is for stdio, so not with --http"] as const);
  const misplaced = given.find((name) => FLAGS[name].group === no);
  if (misplaced !== undefined) return `${flagOf(misplaced)} ${wrong}`;
  const needs: [FlagName, FlagName][] = [
    ["httpRetryAfter", "httpStatus"],
    ["listChangedReal", "listChangedPerS"],
    ["listChangedTimes", "listChangedPerS"],
    ["seed", "crashRate"],
  ];
  const alone = needs.find(([name, needed]) => given.includes(name) && !given.includes(needed));
  return alone && `${flagOf(alone[0])} needs ${flagOf(alone[1])}`;
}

/** Whether answers to `method` have the faults that `--on` is about. */
export function strikes({ on = ["tools/call"] }: Faults, method: string | undefined): boolean {
  return method !== undefined && (on.includes("all") || on.includes(method));
}
