import { createHash, timingSafeEqual } from "node:crypto";
import { HangarError } from "../errors.ts";

/** What of an HTTP request decides whether it may come in. Header values as Node gives them. */
export interface Visitor {
  /** Address of the peer, as the socket says. */
  readonly address: string | undefined;
  readonly host: string | undefined;
  readonly origin: string | undefined;
  readonly authorization: string | undefined;
  /** True when a header says that a proxy passed the request on, so that the peer's address proves nothing. */
  readonly proxied: boolean;
}

export interface GuardOptions {
  readonly token: string;
  /** Origins allowed beside those of localhost, as `scheme://host[:port]` in lower case. */
  readonly allowed_origins: readonly string[];
}

/** The identities HTTP clients have: on this machine without a token, or holders of the token. */
export type Principal = "local" | "token";

const LOCAL_NAMES: readonly string[] = ["localhost", "127.0.0.1", "[::1]"];
const PROXY_HEADERS = ["forwarded", "x-real-ip", "via"] as const;

/** True when a request's headers show that it came through a proxy. */
export function isProxied(headers: Readonly<Record<string, unknown>>): boolean {
  return (
    PROXY_HEADERS.some((name) => headers[name] !== undefined) ||
    Object.keys(headers).some((name) => name.startsWith("x-forwarded"))
  );
}

/** True for a browser page whose origin may use Hangar, and gets the CORS headers to do so. */
export function isAllowedOrigin(origin: string, { allowed_origins }: GuardOptions): boolean {
  const lower = origin.toLowerCase();
  if (allowed_origins.includes(lower)) return true;
  const local = /^https?:\/\/(.+)$/.exec(lower)?.[1];
  return local !== undefined && isLocalName(local);
}

/**
 * Who the visitor is. A token counts wherever it comes from; without one the peer must be this
 * machine itself, and Host and Origin must be local: a web page that points its own name at
 * 127.0.0.1 shows the wrong ones (DNS rebinding). Throws `unauthorized` or `forbidden`.
 */
export function admit(visitor: Visitor, options: GuardOptions): Principal {
  const { address, authorization, proxied } = visitor;
  if (authorization !== undefined) {
    const token = /^bearer +(\S+) *$/i.exec(authorization)?.[1];
    if (token !== undefined && isSameSecret(token, options.token)) return "token";
    throw new HangarError("unauthorized", "The bearer token is not this Hangar's.");
  }
  if (proxied || !isLoopback(address)) {
    throw new HangarError(
      "unauthorized",
      "Clients that are not on this machine, or come through a proxy, need the bearer token: " +
        "the value of MCP_HANGAR_TOKEN, or of the file `token` in Hangar's state directory.",
    );
  }
  refuseStrangePages(visitor, options);
  return "local";
}

/** Whoever asks for the status needs no token, but a web page on this machine must be one of ours. Throws `forbidden`. */
export function admitToStatus(visitor: Visitor, options: GuardOptions): void {
  if (!visitor.proxied && isLoopback(visitor.address)) refuseStrangePages(visitor, options);
}

function refuseStrangePages({ host, origin }: Visitor, options: GuardOptions): void {
  if (!isLocalName(host?.toLowerCase() ?? "")) {
    throw new HangarError(
      "forbidden",
      `Host ${host ?? "(none)"} is not localhost; use http://localhost, or present the token.`,
    );
  }
  if (origin !== undefined && !isAllowedOrigin(origin, options)) {
    throw new HangarError("forbidden", `Origin ${origin} is not in allowed_origins.`);
  }
}

/** `localhost`, `127.0.0.1` or `[::1]`, with or without a port. */
function isLocalName(host: string): boolean {
  const name = /^(.*?)(?::\d{1,5})?$/.exec(host)?.[1];
  return name !== undefined && LOCAL_NAMES.includes(name);
}

function isLoopback(address: string | undefined): boolean {
  const ipv4 = address?.replace(/^::ffff:/i, "");
  return ipv4 === "::1" || ipv4?.startsWith("127.") === true;
}

/** Compares in constant time, whatever the lengths. */
function isSameSecret(given: string, wanted: string): boolean {
  const digest = (text: string): Buffer => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(given), digest(wanted));
}
