/**
 * Whether all of `name` matches `pattern`: `*` is any run of characters, `?` exactly one, everything else itself, case-sensitive.
 * At most pattern × name steps: only the last `*` is ever tried again, since an earlier one can gain nothing.
 */
export function matchesGlob(pattern: string, name: string): boolean {
  const wanted = Array.from(pattern);
  const given = Array.from(name);
  let p = 0;
  let n = 0;
  let star = -1;
  let starTo = 0;
  while (n < given.length) {
    if (wanted[p] === "*") {
      star = p++;
      starTo = n;
    } else if (p < wanted.length && (wanted[p] === "?" || wanted[p] === given[n])) {
      p++;
      n++;
    } else if (star !== -1) {
      p = star + 1;
      n = ++starTo;
    } else return false;
  }
  while (wanted[p] === "*") p++;
  return p === wanted.length;
}
