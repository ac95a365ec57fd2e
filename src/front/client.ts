import { HangarError } from "../errors.ts";
import {
  atEnd,
  type Asked,
  type Call,
  type Caller,
  type CallHandler,
  type Question,
  type Running,
  type Target,
  type Watch,
} from "../target.ts";
import { type Message, scanMessage, splice, stringAt, textOf, wholeOf } from "../wire/envelope.ts";
import { isEndless } from "../routing/deadline.ts";

/** Questions that one client has not answered yet; the oldest makes room. */
const MAX_QUESTIONS = 100;
/** Calls of one client at once; more are refused. */
const MAX_CALLS = 10_000;

interface UnderWay {
  readonly running: Running;
  readonly endless: boolean;
}

/** One client of the front: its calls under way, the questions it was asked, its hold on what it looks at. */
export class Client {
  readonly #face: Target;
  #caller: Caller;
  /** By the client's own ids (raw JSON text). */
  readonly #calls = new Map<string, UnderWay>();
  /** By the ids they have on this client's side. */
  readonly #questions = new Map<string, Question>();
  #lastQuestion = 0;
  #watch: Watch | undefined;
  #gone = false;
  /** When the last call ended, by `performance.now()`. */
  endedAt = 0;

  constructor(face: Target, caller: Caller) {
    this.#face = face;
    this.#caller = caller;
  }

  get caller(): Caller {
    return this.#caller;
  }

  /** Calls under way. */
  get size(): number {
    return this.#calls.size;
  }

  /** Throws `invalid_message` when the id is in use, `overloaded`. `alone` is where to put what belongs to no call. */
  dispatch(call: Call, handler: CallHandler, alone: Outlet): Running {
    const { id, method } = call.message;
    if (this.#calls.has(id as string)) {
      throw new HangarError("invalid_message", `The id ${id} is in use by a request under way`);
    }
    if (this.#calls.size >= MAX_CALLS) {
      const why = `more than ${MAX_CALLS} calls of this client are under way`;
      throw new HangarError("overloaded", why, { retryAfterMs: 1_000 });
    }
    const running = this.#face.dispatch(
      call,
      atEnd(handler, (outcome) => {
        this.#calls.delete(id as string);
        this.endedAt = performance.now();
        const greeted = method === "initialize" && outcome.kind === "reply" && !outcome.isError;
        if (greeted) this.#greet(call.message, alone);
        handler.end(outcome);
      }),
    );
    this.#calls.set(id as string, { running, endless: isEndless(call.message) });
    return running;
  }

  /** From now on the client is known by what it declared, and hears what belongs to no call. */
  #greet({ text, body }: Message, alone: Outlet): void {
    if (this.#gone) return;
    const declared = body.get("capabilities");
    // A copy: a piece of a text keeps all of it in memory.
    const capabilities =
      declared === undefined ? "{}" : Buffer.from(textOf(text, declared)).toString();
    this.#caller = { ...this.#caller, capabilities };
    this.#watch?.close();
    this.#watch = this.#face.watch({
      caller: this.#caller,
      note: (note) => void alone(note),
      ask: (question) => this.ask(question, alone),
    });
  }

  /** Puts a question to the client through `outlet`. One that cannot be put is answered with the reason. */
  ask(question: Question, outlet: Outlet): Asked {
    const id = String(++this.#lastQuestion);
    const { text, method, params, meta } = question.message;
    // Providers choose their tokens without knowing of each other; here a question's id is one.
    const token = meta.get("progressToken");
    const edits = token === undefined ? [] : [{ span: token, text: id }];
    const tail = params === undefined ? "}" : `,"params":${splice(text, params, edits)}}`;
    const asked = `{"jsonrpc":"2.0","id":${id},"method":${JSON.stringify(method)}${tail}`;
    if (this.#gone) refuse(question, "The client has gone");
    else {
      this.#makeRoom();
      this.#questions.set(id, question);
      if (!outlet(asked) && this.#questions.delete(id)) {
        refuse(question, "The client listens on no stream that the question could go to");
      }
    }
    return {
      withdraw: ({ text: note, body, params: all }) => {
        if (!this.#questions.delete(id) || all === undefined) return;
        const reason = body.get("reason");
        const why = reason === undefined ? "" : `,"reason":${textOf(note, reason)}`;
        outlet(
          `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":${id}${why}}}`,
        );
      },
    };
  }

  /** Some questions are never answered, nor taken back when their call ends. */
  #makeRoom(): void {
    const [oldest] = this.#questions;
    if (oldest === undefined || this.#questions.size < MAX_QUESTIONS) return;
    this.#questions.delete(oldest[0]);
    refuse(oldest[1], "The client has too many questions to answer");
  }

  /** Takes a response of the client; one that answers nothing comes too late, or twice. */
  answered({ id, text, result, error }: Message): void {
    const question = this.#questions.get(id as string);
    const span = result ?? error;
    if (question === undefined || span === undefined) return;
    this.#questions.delete(id as string);
    question.answer({ kind: "reply", isError: error !== undefined, text: textOf(text, span) });
  }

  /** Takes a notification of the client. */
  noted(message: Message): void {
    const { method, text, body } = message;
    switch (method) {
      case "notifications/initialized":
        return;
      case "notifications/cancelled": {
        const id = body.get("requestId");
        if (id === undefined) return;
        const reason = stringAt(text, body.get("reason")) ?? "no reason given";
        // An id that is not under way is no error: the end may have crossed it.
        this.#calls
          .get(textOf(text, id))
          ?.running.cancel(new HangarError("cancelled", `cancelled by the client: ${reason}`));
        return;
      }
      case "notifications/progress": {
        const span = body.get("progressToken");
        if (span === undefined) return;
        const question = this.#questions.get(textOf(text, span));
        const token = question === undefined ? undefined : tokenOf(question.message);
        if (token === undefined) return;
        question?.note(scanMessage(splice(text, wholeOf(text), [{ span, text: token }])));
        return;
      }
      default:
        this.#watch?.note(message);
    }
  }

  cancelEndless(reason: HangarError): void {
    for (const { running, endless } of this.#calls.values()) if (endless) running.cancel(reason);
  }

  /** The client has gone: its calls end with `reason`, its questions stay unanswered. */
  close(reason: HangarError): void {
    this.#gone = true;
    for (const { running } of this.#calls.values()) running.cancel(reason);
    // What it was given a run of its own for ends with its watch, also when it never got as far as one.
    const { caller } = this;
    this.#watch ??= this.#face.watch({
      caller,
      note: () => {},
      ask: (question) => this.ask(question, () => false),
    });
    this.#watch.close();
    this.#watch = undefined;
    this.silence();
  }

  /** The client answers nothing any more: its questions are refused, and those to come. */
  silence(): void {
    this.#gone = true;
    const open = [...this.#questions.values()];
    this.#questions.clear();
    for (const question of open) refuse(question, "The client has gone");
  }
}

/** Takes a whole message for the client; false when there is no way to it. */
export type Outlet = (text: string) => boolean;

const INTERNAL_ERROR = -32_603;

function refuse(question: Question, why: string): void {
  const text = `{"code":${INTERNAL_ERROR},"message":${JSON.stringify(why)}}`;
  question.answer({ kind: "reply", isError: true, text });
}

function tokenOf({ text, meta }: Message): string | undefined {
  const token = meta.get("progressToken");
  return token === undefined ? undefined : textOf(text, token);
}
