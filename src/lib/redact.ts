const SECRET_NAME = /pass|secret|token|key|credential|auth|cookie|jwt|dsn|connection|private/i;
const MIN_SECRET_CHARS = 4;
/** Output is looked at line by line, so each line of a long secret counts, unless it is too short to be told from text. */
const MIN_SECRET_LINE_CHARS = 8;

/**
 * A function that takes secrets out of text: the values of those variables whose name says that
 * they are secret. Values under 4 characters stay, as they would take half of every text with them.
 * Of text that was `cut`, an end that a secret may begin with goes as well.
 */
export function redactor(
  variables: Readonly<Record<string, string>>,
): (text: string, cut?: boolean) => string {
  const secrets = Object.entries(variables)
    .filter(([name, value]) => SECRET_NAME.test(name) && value.length >= MIN_SECRET_CHARS)
    .flatMap(([, value]) => [value, ...linesOf(value)])
    .toSorted((a, b) => b.length - a.length);
  return (text, cut = false) => {
    const rest = secrets.reduce((left, secret) => left.replaceAll(secret, "[redacted]"), text);
    return cut ? rest.slice(0, rest.length - begunAtEnd(rest, secrets)) : rest;
  };
}

/** How many characters at the end of `text` are the beginning of a secret. */
function begunAtEnd(text: string, secrets: readonly string[]): number {
  const lengths = secrets.map((secret) => {
    let length = Math.min(secret.length - 1, text.length);
    while (length >= MIN_SECRET_CHARS && !text.endsWith(secret.slice(0, length))) length--;
    return length < MIN_SECRET_CHARS ? 0 : length;
  });
  return Math.max(0, ...lengths);
}

/** The headers' values by name, and what follows `Bearer` and the like in them once more, alone. */
export function headerSecrets(headers: Readonly<Record<string, string>>): Record<string, string> {
  const all = Object.entries(headers);
  const alone = all.map(([name, value]) => [`${name} alone`, value.replace(/^\S+\s+/, "")]);
  return Object.fromEntries([...all, ...alone]);
}

function linesOf(secret: string): string[] {
  const lines = secret.split(/\r?\n/).map((line) => line.trim());
  return lines.filter((line) => line.length >= MIN_SECRET_LINE_CHARS);
}
