import { randomUUID } from "node:crypto";
import { HangarError } from "../errors.ts";
import { CallsUnderWay } from "./endpoint.ts";

/** Legacy clients at once; the one that was silent longest makes room. */
const MAX_SESSIONS = 10_000;
/** Life of a session nobody uses. */
const TTL_MS = 30 * 60_000;

/** The lifetime of a legacy client's `Mcp-Session-Id`. */
interface Session {
  readonly id: string;
  readonly principal: string;
  readonly calls: CallsUnderWay;
  usedAt: number;
}

/** The sessions of legacy HTTP clients. An id is only good for the principal that opened it. */
export class Sessions {
  /** Least recently used first. */
  readonly #sessions = new Map<string, Session>();

  open(principal: string): Session {
    this.#makeRoom();
    const session = { id: randomUUID(), principal, calls: new CallsUnderWay(), usedAt: Date.now() };
    this.#sessions.set(session.id, session);
    return session;
  }

  /** Throws `session_required` without an id, `session_not_found` for one that is not (or no longer) this principal's. */
  use(id: string | undefined, principal: string): Session {
    if (id === undefined) {
      throw new HangarError("session_required", "Mcp-Session-Id is missing; send initialize first");
    }
    const session = this.#sessions.get(id);
    if (session === undefined || session.principal !== principal || isExpired(session)) {
      throw new HangarError("session_not_found", "The session is unknown; send initialize again");
    }
    session.usedAt = Date.now();
    this.#sessions.delete(id);
    this.#sessions.set(id, session);
    return session;
  }

  /** Ends a session and the calls under way in it. */
  end({ id, calls }: Session): void {
    this.#sessions.delete(id);
    calls.cancelAll(new HangarError("cancelled", "the client ended its session"));
  }

  #makeRoom(): void {
    for (const session of this.#sessions.values()) {
      if (session.calls.size > 0) continue;
      if (!isExpired(session) && this.#sessions.size < MAX_SESSIONS) return;
      this.#sessions.delete(session.id);
    }
    if (this.#sessions.size >= MAX_SESSIONS) {
      throw new HangarError(
        "overloaded",
        `more than ${MAX_SESSIONS} sessions have calls under way`,
        {
          retryAfterMs: 1_000,
        },
      );
    }
  }
}

function isExpired({ usedAt, calls }: Session): boolean {
  return calls.size === 0 && Date.now() - Math.max(usedAt, calls.endedAt) > TTL_MS;
}
