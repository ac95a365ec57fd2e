/** The messages in which the chaos server answers a request, with the faults that are in them. */
import type { Faults } from "./flags.ts";

/** How one request is answered. */
export interface Answer {
  /** Usually one; none of them ends with a line feed. */
  readonly messages: readonly Buffer[];
  /** The HTTP status, where there is one. */
  readonly status: number;
  /** Whether it has the faults that `--on` is about. */
  readonly struck: boolean;
}

const SECOND = '{"content":[{"type":"text","text":"second answer"}]}';
const STRAY = '{"content":[{"type":"text","text":"stray answer"}]}';
const NOT_UTF8 = 0xff;

/** A JSON-RPC answer; `outcome` is its last member, `"result":...` or `"error":...`. */
export function answerText(id: string, outcome: string): string {
  return `{"jsonrpc":"2.0","id":${id},${outcome}}`;
}

/** The messages that answer the request `id` (raw JSON) with `result` (the text of an object), faults included. */
export function faultyAnswers(id: string, result: string, faults: Faults): Buffer[] {
  const sentId = faults.wrongId === true ? '"no-such-request"' : wireId(id, faults);
  const shadowed = faults.duplicateKeys === true ? '"result":{"shadowed":true},' : "";
  const answer = answerText(sentId, `${shadowed}"result":${grown(result, faults)}`);
  const texts = faults.strayReplies === true ? [...strays(id), answer] : [answer];
  if (faults.doubleReply === true) texts.push(answerText(sentId, `"result":${SECOND}`));
  return texts.map((text) => (faults.badUtf8 === true ? spoilt(text) : Buffer.from(text)));
}

function wireId(id: string, { stringId }: Faults): string {
  return stringId === true && !id.startsWith('"') ? `"${id}"` : id;
}

/** `result` with what makes it large. */
function grown(result: string, { hugeBytes, depth }: Faults): string {
  const members = [];
  if (hugeBytes !== undefined) members.push(`"padding":"${"x".repeat(hugeBytes)}"`);
  if (depth !== undefined) members.push(`"nested":${"[".repeat(depth)}${"]".repeat(depth)}`);
  if (members.length === 0) return result;
  const comma = result === "{}" ? "" : ",";
  return `${result.slice(0, -1)}${comma}${members.join(",")}}`;
}

/** Ids nobody gave, one that is null, and the right one as another type. */
function strays(id: string): string[] {
  const other = id.startsWith('"') ? "987654" : `"${id}"`;
  return [
    answerText("987654321", `"result":${STRAY}`),
    answerText('"nobody"', `"result":${STRAY}`),
    answerText("null", '"error":{"code":-32700,"message":"Parse error"}'),
    answerText(other, `"result":${STRAY}`),
  ];
}

/** One more member, whose string is a byte that no UTF-8 has. */
function spoilt(text: string): Buffer {
  const head = Buffer.from(`${text.slice(0, -1)},"spoilt":"`);
  return Buffer.concat([head, Buffer.from([NOT_UTF8]), Buffer.from('"}')]);
}
