import type { Call, CallHandler, Outcome, Running, Target } from "../target.ts";
import type { HangarError } from "../errors.ts";
import { membersOf, textOf } from "../wire/envelope.ts";
import { META } from "../wire/eras.ts";

/** A client's `subscriptions/listen`, which outlives the runs that serve it. */
interface Subscription {
  readonly call: Call;
  readonly handler: CallHandler;
  /** It wants to hear when the list of tools changes. */
  readonly wantsTools: boolean;
  running: Running | undefined;
  /** The client has its acknowledgement; those of later runs are not for it. */
  acknowledged: boolean;
}

/** The modern clients' subscriptions to one provider. */
export class Subscriptions {
  readonly #survives: () => boolean;
  readonly #open = new Set<Subscription>();

  /** `survives` says, when a run ends, whether another one may follow. */
  constructor(survives: () => boolean) {
    this.#survives = survives;
  }

  listen(connection: Pick<Target, "dispatch">, call: Call, handler: CallHandler): Running {
    const { text, body } = call.message;
    const wanted = membersOf(text, body.get("notifications"))?.get("toolsListChanged");
    const wantsTools = wanted !== undefined && textOf(text, wanted) === "true";
    const subscription: Subscription = {
      call,
      handler,
      wantsTools,
      running: undefined,
      acknowledged: false,
    };
    // One that cannot be dispatched now must not come up again in each later run.
    this.#serve(connection, subscription);
    this.#open.add(subscription);
    return {
      cancel: (reason) => {
        if (subscription.running !== undefined) subscription.running.cancel(reason);
        else if (this.#open.has(subscription)) this.#end(subscription, reason);
      },
    };
  }

  /** Opens them all at a new run. */
  resume(connection: Pick<Target, "dispatch">): void {
    for (const subscription of this.#open) this.#serve(connection, subscription);
  }

  /** Tells those who want to know that the list of tools has changed, which no run has told them. */
  announceTools(method: string): void {
    for (const { call, handler, wantsTools } of this.#open) {
      if (!wantsTools) continue;
      const meta = `{"${META.subscriptionId}":${call.message.id}}`;
      handler.note(`{"jsonrpc":"2.0","method":"${method}","params":{"_meta":${meta}}}`);
    }
  }

  /** Ends those that no run serves. */
  endAll(reason: HangarError): void {
    for (const subscription of [...this.#open]) {
      if (subscription.running === undefined) this.#end(subscription, reason);
    }
  }

  #serve(connection: Pick<Target, "dispatch">, subscription: Subscription): void {
    const { call, handler } = subscription;
    subscription.running = connection.dispatch(call, {
      note: (text) => {
        const isAcknowledgement = text.includes('"notifications/subscriptions/acknowledged"');
        if (isAcknowledgement && subscription.acknowledged) return;
        subscription.acknowledged ||= isAcknowledgement;
        handler.note(text);
      },
      ask: (question) => handler.ask(question),
      pause: () => handler.pause(),
      end: (outcome) => {
        subscription.running = undefined;
        const runEnded =
          outcome.kind === "failure" &&
          (outcome.code === "provider_exited" || outcome.code === "provider_stopped");
        if (!runEnded || !this.#survives()) this.#end(subscription, outcome);
      },
    });
  }

  /** A server that goes ends its subscriptions with an empty result (2026-07-28, "Subscriptions"). */
  #end(subscription: Subscription, outcome: Outcome): void {
    const { handler, call } = subscription;
    this.#open.delete(subscription);
    const goes = outcome.kind === "failure" && outcome.code === "shutting_down";
    const text = `{"resultType":"complete","_meta":{"${META.subscriptionId}":${call.message.id}}}`;
    handler.end(goes ? { kind: "reply", isError: false, text } : outcome);
  }
}
