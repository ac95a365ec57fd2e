import { IncomingMessage, ServerResponse } from "node:http";
import { Socket } from "node:net";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { HangarError } from "../../src/errors.ts";
import { Sessions } from "../../src/front/sessions.ts";
import type { CallHandler, Outcome, Target } from "../../src/target.ts";
import { scanMessage } from "../../src/wire/envelope.ts";

const MINUTE_MS = 60_000;
const TTL_MS = 30 * MINUTE_MS;
const MAX_SESSIONS = 10_000;

beforeEach(() => {
  vi.useFakeTimers({ now: 1_000_000 });
});

afterEach(() => {
  vi.useRealTimers();
});

type Session = ReturnType<Sessions["open"]>;

let lastTaken: CallHandler | undefined;

/** Takes every call and ends none by itself. */
const patient: Target = {
  name: "patient",
  available: true,
  dispatch(_, handler) {
    lastTaken = handler;
    return { cancel: (reason) => handler.end(reason) };
  },
  watch: () => ({ note: () => {}, close: () => {} }),
};

/** A call that is under way in `session` until `finish` is called. */
function callIn(session: Session, id = "1"): { finish: () => void; ends: Outcome[] } {
  const ends: Outcome[] = [];
  const message = scanMessage(`{"jsonrpc":"2.0","id":${id},"method":"tools/call","params":{}}`);
  const { client } = session;
  client.dispatch(
    { message, caller: client.caller },
    {
      note: () => {},
      ask: () => ({ withdraw: () => {} }),
      pause: () => {},
      end: (outcome) => ends.push(outcome),
    },
    () => true,
  );
  const taken = lastTaken;
  return { finish: () => taken?.end({ kind: "reply", isError: false, text: "{}" }), ends };
}

/** The client's `initialize`, answered. */
function greet(session: Session): void {
  const message = scanMessage('{"jsonrpc":"2.0","id":0,"method":"initialize","params":{}}');
  const { client } = session;
  const handler = { note: () => {}, ask: () => ({ withdraw: () => {} }), pause: () => {} };
  client.dispatch({ message, caller: client.caller }, { ...handler, end: () => {} }, () => true);
  lastTaken?.end({ kind: "reply", isError: false, text: "{}" });
}

/** The client's GET, on the response that is returned. */
function listenIn(session: Session): ServerResponse {
  const response = new ServerResponse(new IncomingMessage(new Socket()));
  session.standalone.attach(response, {});
  return response;
}

function refusal(use: () => unknown): string | undefined {
  try {
    use();
    return undefined;
  } catch (error) {
    return (error as HangarError).code;
  }
}

describe("a session", () => {
  it("is found by its id until it is ended", () => {
    const sessions = new Sessions();
    const one = sessions.open(patient, "local");
    const other = sessions.open(patient, "local");
    expect(one.id).not.toBe(other.id);
    expect(sessions.use(one.id, patient, "local")).toBe(one);
    sessions.end(one);
    expect(refusal(() => sessions.use(one.id, patient, "local"))).toBe("session_not_found");
    expect(sessions.use(other.id, patient, "local")).toBe(other);
  });

  it("has an id that cannot be guessed and fits into a header", () => {
    expect(new Sessions().open(patient, "local").id).toMatch(/^[\x21-\x7e]{32,}$/);
  });

  it("is required where the id is missing", () => {
    expect(refusal(() => new Sessions().use(undefined, patient, "local"))).toBe("session_required");
    expect(refusal(() => new Sessions().use("made up", patient, "local"))).toBe(
      "session_not_found",
    );
  });

  it("is not found by another principal, and stays with its own", () => {
    const sessions = new Sessions();
    const { id } = sessions.open(patient, "token");
    expect(refusal(() => sessions.use(id, patient, "local"))).toBe("session_not_found");
    expect(sessions.use(id, patient, "token").id).toBe(id);
  });

  it("is not kept alive by another principal's knocking", () => {
    const sessions = new Sessions();
    const { id } = sessions.open(patient, "token");
    vi.advanceTimersByTime(TTL_MS - 1);
    expect(refusal(() => sessions.use(id, patient, "local"))).toBe("session_not_found");
    vi.advanceTimersByTime(2);
    expect(refusal(() => sessions.use(id, patient, "token"))).toBe("session_not_found");
  });

  it("R14: lives half an hour after its last use, and then ends by itself, to the millisecond", () => {
    const sessions = new Sessions();
    const { id } = sessions.open(patient, "local");
    for (const usedAfterMs of [1, TTL_MS - 1, 20 * MINUTE_MS, 1]) {
      vi.advanceTimersByTime(usedAfterMs);
      expect(sessions.use(id, patient, "local").id).toBe(id);
    }
    vi.advanceTimersByTime(TTL_MS - 1);
    expect([...sessions]).toHaveLength(1);
    vi.advanceTimersByTime(1);
    expect([...sessions]).toEqual([]);
    expect(refusal(() => sessions.use(id, patient, "local"))).toBe("session_not_found");
    expect(vi.getTimerCount()).toBe(0);
  });

  it("lets go of what it watches when it expires", () => {
    let watches = 0;
    const watched: Target = {
      ...patient,
      watch() {
        watches++;
        return { note: () => {}, close: () => void watches-- };
      },
    };
    const session = new Sessions().open(watched, "local");
    greet(session);
    expect(watches).toBe(1);
    vi.advanceTimersByTime(TTL_MS);
    expect(watches).toBe(0);
  });

  it("is ended by no clock that is set", () => {
    const sessions = new Sessions();
    const { id } = sessions.open(patient, "local");
    vi.advanceTimersByTime(TTL_MS - 1);
    vi.setSystemTime(Date.now() + 60 * MINUTE_MS);
    expect(sessions.use(id, patient, "local").id).toBe(id);
    vi.setSystemTime(Date.now() - 120 * MINUTE_MS);
    vi.advanceTimersByTime(TTL_MS);
    expect([...sessions]).toEqual([]);
  });

  it("does not expire while its client listens, and lives half an hour after that", () => {
    const sessions = new Sessions();
    const session = sessions.open(patient, "local");
    const response = listenIn(session);
    vi.advanceTimersByTime(2 * TTL_MS);
    expect([...sessions]).toEqual([session]);
    response.emit("close");
    session.touch();
    vi.advanceTimersByTime(TTL_MS - 1);
    expect([...sessions]).toEqual([session]);
    vi.advanceTimersByTime(1);
    expect([...sessions]).toEqual([]);
  });

  it("does not expire while a call is under way in it", () => {
    const sessions = new Sessions();
    const session = sessions.open(patient, "local");
    callIn(session);
    vi.advanceTimersByTime(2 * TTL_MS);
    expect([...sessions]).toEqual([session]);
  });

  it("lives half an hour after a call that took longer than that", () => {
    const sessions = new Sessions();
    const session = sessions.open(patient, "local");
    const { finish } = callIn(session);
    vi.advanceTimersByTime(TTL_MS + MINUTE_MS);
    finish();
    vi.advanceTimersByTime(TTL_MS - 1);
    expect([...sessions]).toEqual([session]);
    vi.advanceTimersByTime(1);
    expect([...sessions]).toEqual([]);
  });

  it("ends its calls when it is ended, each once", () => {
    const sessions = new Sessions();
    const session = sessions.open(patient, "local");
    const calls = [callIn(session, "1"), callIn(session, '"1"')];
    sessions.end(session);
    sessions.end(session);
    expect(calls.map(({ ends }) => ends)).toEqual([
      [expect.objectContaining({ code: "cancelled" })],
      [expect.objectContaining({ code: "cancelled" })],
    ]);
    expect(session.client.size).toBe(0);
  });

  it("takes no second call of an id that is under way, and the id again afterwards", () => {
    const session = new Sessions().open(patient, "local");
    const { finish } = callIn(session);
    expect(refusal(() => callIn(session))).toBe("invalid_message");
    finish();
    expect(refusal(() => callIn(session))).toBeUndefined();
  });
});

describe("ten thousand sessions", () => {
  function filled(): { sessions: Sessions; opened: Session[] } {
    const sessions = new Sessions();
    const opened = Array.from({ length: MAX_SESSIONS }, () => sessions.open(patient, "local"));
    return { sessions, opened };
  }

  it("are the most there are: the one that was silent longest makes room", () => {
    const { sessions, opened } = filled();
    const [first, second, third] = opened as [Session, Session, Session];
    sessions.use(first.id, patient, "local");
    const added = sessions.open(patient, "local");
    expect(refusal(() => sessions.use(second.id, patient, "local"))).toBe("session_not_found");
    for (const { id } of [first, third, added])
      expect(sessions.use(id, patient, "local").id).toBe(id);
  });

  it("lose none in which a call is under way", () => {
    const { sessions, opened } = filled();
    const [busy, idle] = opened as [Session, Session];
    const { finish, ends } = callIn(busy);
    for (let n = 0; n < 5; n++) sessions.open(patient, "local");
    expect(sessions.use(busy.id, patient, "local")).toBe(busy);
    expect(ends).toEqual([]);
    finish();
    expect(refusal(() => sessions.use(idle.id, patient, "local"))).toBe("session_not_found");
  });

  it("lose none whose client listens", () => {
    const { sessions, opened } = filled();
    const listening = opened.slice(0, 3);
    for (const session of listening) listenIn(session);
    for (let n = 0; n < MAX_SESSIONS; n++) sessions.open(patient, "local");
    expect(listening.filter(({ id }) => sessions.use(id, patient, "local"))).toHaveLength(3);
    expect([...sessions]).toHaveLength(MAX_SESSIONS);
  });

  it("let nobody in when all of them have calls under way", () => {
    const { sessions, opened } = filled();
    const calls = opened.map((session) => callIn(session));
    expect(refusal(() => sessions.open(patient, "local"))).toBe("overloaded");
    calls[4711]?.finish();
    const added = sessions.open(patient, "local");
    expect(sessions.use(added.id, patient, "local")).toBe(added);
    const freed = opened[4711] as Session;
    expect(refusal(() => sessions.use(freed.id, patient, "local"))).toBe("session_not_found");
  });

  it("are all gone when they have expired, and their timers with them", () => {
    const { sessions } = filled();
    vi.advanceTimersByTime(TTL_MS);
    expect([...sessions]).toEqual([]);
    expect(vi.getTimerCount()).toBe(0);
  });
});
