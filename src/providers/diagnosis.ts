import type { Exit } from "../drivers/driver.ts";
import type { HangarError } from "../errors.ts";

const LAST_LINES = 20;

/** What the last lines of output give away, and what helps. First match wins. */
const HINTS: readonly (readonly [RegExp, string])[] = [
  [
    /command not found|: not found$|exec: .* not found/im,
    "A command it starts is not installed or not in PATH.",
  ],
  [
    /ERR_MODULE_NOT_FOUND|Cannot find (module|package)/i,
    "A Node module or file it needs is missing; check the path, or install its dependencies.",
  ],
  [
    /No module named|ModuleNotFoundError/i,
    "A Python module it needs is missing; check cwd and the environment it runs in.",
  ],
  [
    /E404|404 Not Found.*npm|npm (ERR!|error) code E404/i,
    "The npm package does not exist under that name.",
  ],
  [
    /ENOTFOUND|EAI_AGAIN|getaddrinfo/i,
    "It needs the network; proxy variables reach it only when named in inherit_env.",
  ],
  [
    /EADDRINUSE|address already in use/i,
    "It opens a network port that is taken; is it a server for stdio?",
  ],
  [/EACCES|permission denied/i, "It may not read or run something it needs."],
  [
    /(api.?key|token|credential|secret)s?\b.*(missing|required|not (set|found|provided))|missing.*(api.?key|token)/i,
    "It wants a secret; declare it in env or inherit_env.",
  ],
  [
    /usage:|unknown option|unrecognized argument|invalid option/i,
    "It did not understand its command line.",
  ],
];

/** Why a start failed, for people: what happened, the last words, and a hint where one is known. */
export function diagnose(what: string, exit: Exit | undefined, tail: readonly string[]): string {
  const lines = tail.slice(-LAST_LINES);
  const text = lines.join("\n");
  const hint =
    HINTS.find(([pattern]) => pattern.test(text))?.[1] ??
    (exit?.code === 0 && lines.length === 0
      ? "It ended at once without a word; is the command an MCP server on stdio?"
      : undefined);
  return [
    what,
    lines.length === 0 ? undefined : `last output:\n${lines.map((line) => `  ${line}`).join("\n")}`,
    hint,
  ]
    .filter((part) => part !== undefined)
    .join("\n");
}

/** Of its deadline, the share that a call must have spent with the provider to say something about it. */
const FAIR_SHARE = 0.8;

/** Whether a call, after `tookMs` at the provider, ended because that did not answer in the time it should have had. */
export function isOverdue({ code, sent, details }: HangarError, tookMs: number): boolean {
  const allowedMs = Number(details["timeout_s"]) * 1000;
  const isProviders = code === "timeout" && sent && details["deadline"] === "provider";
  return isProviders && tookMs >= FAIR_SHARE * allowedMs;
}
