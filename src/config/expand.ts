/** What became of a text with `${NAME}` references. */
export interface Expansion {
  /** The text with every reference replaced; one that could not be replaced stands as it was. */
  readonly text: string;
  /** Names without a value and without a default, in order of appearance. */
  readonly unset: readonly string[];
  /** The references that are none, such as `${1x}`; the last one may be unclosed. */
  readonly malformed: readonly string[];
}

const NAME = /^[A-Za-z_][A-Za-z0-9_]*$/;

/**
 * Replaces `${NAME}` and `${NAME:-default}` in one pass: what a variable or a default contains is never expanded again.
 * `$${` stands for `${`, a `$` before anything else for itself. As in a shell, `:-` also replaces an empty variable.
 */
export function expand(text: string, env: Readonly<Record<string, string | undefined>>): Expansion {
  const unset: string[] = [];
  const malformed: string[] = [];
  let out = "";
  let from = 0;
  for (;;) {
    const open = text.indexOf("${", from);
    if (open === -1) return { text: out + text.slice(from), unset, malformed };
    if (open > from && text[open - 1] === "$") {
      out += `${text.slice(from, open - 1)}\${`;
      from = open + 2;
      continue;
    }
    out += text.slice(from, open);
    const close = text.indexOf("}", open);
    from = close === -1 ? text.length : close + 1;
    const reference = text.slice(open, from);
    const inside = reference.slice(2, -1);
    const separator = inside.indexOf(":-");
    const name = separator === -1 ? inside : inside.slice(0, separator);
    const fallback = separator === -1 ? undefined : inside.slice(separator + 2);
    if (close === -1 || !NAME.test(name) || fallback?.includes("${") === true) {
      malformed.push(reference);
      out += reference;
      continue;
    }
    const value = Object.hasOwn(env, name) ? env[name] : undefined;
    if (fallback !== undefined) out += value === undefined || value === "" ? fallback : value;
    else if (value !== undefined) out += value;
    else {
      unset.push(name);
      out += reference;
    }
  }
}
