import { randomUUID } from "node:crypto";
import { HangarError } from "../errors.ts";
import type { Target } from "../target.ts";
import { Client } from "./client.ts";
import { type EventStream, EventStreams } from "./streams.ts";

/** Legacy clients at once; the one that was silent longest makes room. */
const MAX_SESSIONS = 10_000;
/** Life of a session nobody uses. */
const TTL_MS = 30 * 60_000;

/** The lifetime of a legacy client's `Mcp-Session-Id`. */
export class Session {
  readonly id = randomUUID();
  readonly principal: string;
  readonly face: Target;
  readonly client: Client;
  readonly #expired: () => void;
  /** By `performance.now()`: a clock that is set ends no session. */
  #usedAt = performance.now();
  #expiry: NodeJS.Timeout;
  /** Made when first needed: most sessions have none. */
  #streams: EventStreams | undefined;
  #standalone: EventStream | undefined;

  /** `expired` is called once nobody has used it for its whole life. */
  constructor(face: Target, principal: string, expired: () => void) {
    this.face = face;
    this.principal = principal;
    this.#expired = expired;
    const { id } = this;
    this.client = new Client(face, { principal, client: id, era: "legacy", capabilities: "{}" });
    this.#expiry = this.#lookIn(TTL_MS);
  }

  get streams(): EventStreams {
    return (this.#streams ??= new EventStreams());
  }

  /** The stream for what belongs to no call (the client's GET). */
  get standalone(): EventStream {
    return (this.#standalone ??= this.streams.open());
  }

  /** Takes what belongs to no call. Kept for as long as the session, so nothing of a request may hang on it. */
  readonly alone = (text: string): boolean => {
    this.standalone.send(text);
    return true;
  };

  /** A call is under way in it, or its client listens. */
  get isActive(): boolean {
    return this.client.size > 0 || this.#standalone?.attached === true;
  }

  /** The client has just been heard of, or stopped listening. */
  touch(): void {
    this.#usedAt = performance.now();
  }

  keepAlive(): void {
    this.#standalone?.keepAlive();
  }

  close(reason: HangarError): void {
    clearTimeout(this.#expiry);
    this.client.close(reason);
    this.#streams?.close();
  }

  /** Using a session is frequent and starts no timer anew: it is looked at again when it may have expired. */
  #lookIn(ms: number): NodeJS.Timeout {
    return setTimeout(() => {
      const usedAt = this.isActive
        ? performance.now()
        : Math.max(this.#usedAt, this.client.endedAt);
      const leftMs = usedAt + TTL_MS - performance.now();
      if (leftMs <= 0) this.#expired();
      else this.#expiry = this.#lookIn(Math.ceil(leftMs));
    }, ms).unref();
  }
}

/** The sessions of legacy HTTP clients. An id is only good for the principal that opened it, and where it was opened. */
export class Sessions {
  /** Least recently used first. */
  readonly #sessions = new Map<string, Session>();

  /** Throws `overloaded`. */
  open(face: Target, principal: string): Session {
    if (this.#sessions.size >= MAX_SESSIONS) this.#makeRoom();
    const session = new Session(face, principal, () => this.end(session));
    this.#sessions.set(session.id, session);
    return session;
  }

  /** Throws `session_required` without an id, `session_not_found` for one that is not (or no longer) this principal's here. */
  use(id: string | undefined, face: Target, principal: string): Session {
    if (id === undefined) {
      throw new HangarError("session_required", "Mcp-Session-Id is missing; send initialize first");
    }
    const session = this.#sessions.get(id);
    if (session === undefined || session.principal !== principal || session.face !== face) {
      throw new HangarError("session_not_found", "The session is unknown; send initialize again");
    }
    session.touch();
    this.#moveToEnd(session);
    return session;
  }

  /** Ends a session and the calls under way in it. */
  end(session: Session): void {
    this.#sessions.delete(session.id);
    session.close(new HangarError("cancelled", "the client ended its session"));
  }

  [Symbol.iterator](): Iterator<Session> {
    return this.#sessions.values();
  }

  closeAll(reason: HangarError): void {
    for (const session of this.#sessions.values()) session.close(reason);
    this.#sessions.clear();
  }

  #moveToEnd(session: Session): void {
    this.#sessions.delete(session.id);
    this.#sessions.set(session.id, session);
  }

  /** Ends the one that was silent longest. Those in use move out of the way, so that the next search is short. */
  #makeRoom(): void {
    let toLookAt = this.#sessions.size;
    for (const session of this.#sessions.values()) {
      if (!session.isActive) return this.end(session);
      this.#moveToEnd(session);
      if (--toLookAt === 0) break;
    }
    throw new HangarError("overloaded", `more than ${MAX_SESSIONS} sessions are in use`, {
      retryAfterMs: 1_000,
    });
  }
}
