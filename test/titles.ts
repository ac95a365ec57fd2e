/** The titles of all tests in `source`. */
export function titlesIn(source: string): Set<string> {
  const calls = source.matchAll(
    /\b(?:test|it)(?:\.\w+(?:\([^)]*\))?)?\(\s*(["'`])((?:\\.|(?!\1).)*)\1/g,
  );
  return new Set([...calls].map(([, , title = ""]) => title.replaceAll(/\\(.)/g, "$1")));
}
