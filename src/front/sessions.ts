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
  usedAt = Date.now();
  /** Made when first needed: most sessions have none. */
  #streams: EventStreams | undefined;
  #standalone: EventStream | undefined;

  constructor(face: Target, principal: string) {
    this.face = face;
    this.principal = principal;
    const { id } = this;
    this.client = new Client(face, { principal, client: id, era: "legacy", capabilities: "{}" });
  }

  get streams(): EventStreams {
    return (this.#streams ??= new EventStreams());
  }

  /** The stream for what belongs to no call (the client's GET). */
  get standalone(): EventStream {
    return (this.#standalone ??= this.streams.open());
  }

  get isExpired(): boolean {
    if (this.client.size > 0 || this.#standalone?.attached === true) return false;
    return Date.now() - Math.max(this.usedAt, this.client.endedAt) > TTL_MS;
  }

  keepAlive(): void {
    this.#standalone?.keepAlive();
  }

  close(reason: HangarError): void {
    this.client.close(reason);
    this.#streams?.close();
  }
}

/** The sessions of legacy HTTP clients. An id is only good for the principal that opened it, and where it was opened. */
export class Sessions {
  /** Least recently used first. */
  readonly #sessions = new Map<string, Session>();

  open(face: Target, principal: string): Session {
    this.#makeRoom();
    const session = new Session(face, principal);
    this.#sessions.set(session.id, session);
    return session;
  }

  /** Throws `session_required` without an id, `session_not_found` for one that is not (or no longer) this principal's here. */
  use(id: string | undefined, face: Target, principal: string): Session {
    if (id === undefined) {
      throw new HangarError("session_required", "Mcp-Session-Id is missing; send initialize first");
    }
    const session = this.#sessions.get(id);
    if (
      session === undefined ||
      session.principal !== principal ||
      session.face !== face ||
      session.isExpired
    ) {
      throw new HangarError("session_not_found", "The session is unknown; send initialize again");
    }
    session.usedAt = Date.now();
    this.#sessions.delete(id);
    this.#sessions.set(id, session);
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

  #makeRoom(): void {
    for (const session of this.#sessions.values()) {
      if (session.client.size > 0) continue;
      if (!session.isExpired && this.#sessions.size < MAX_SESSIONS) return;
      this.end(session);
    }
    if (this.#sessions.size >= MAX_SESSIONS) {
      throw new HangarError(
        "overloaded",
        `more than ${MAX_SESSIONS} sessions have calls under way`,
        { retryAfterMs: 1_000 },
      );
    }
  }
}
