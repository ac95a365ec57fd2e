import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { StartGate, type Turn } from "../../src/providers/start-gate.ts";

const patient = new AbortController().signal;

/** Takes a turn, and notes its name once it has come. */
function enter(gate: StartGate, name: string, order: string[], hurried = false): Turn {
  const turn = gate.turn(hurried, patient);
  turn.come.then(
    () => order.push(name),
    () => order.push(`${name} gave up`),
  );
  return turn;
}

describe("the start gate", () => {
  it("lets two starts per processor in, and the next one when one is over", async () => {
    const gate = new StartGate(1);
    const order: string[] = [];
    const [first, , third] = ["a", "b", "c", "d"].map((name) => enter(gate, name, order));
    await sleep(0);
    expect(order).toEqual(["a", "b"]);
    first?.leave();
    first?.leave(); // counts once
    await sleep(0);
    expect(order).toEqual(["a", "b", "c"]);
    third?.leave();
    await sleep(0);
    expect(order).toEqual(["a", "b", "c", "d"]);
  });

  it("lets those go first that somebody waits for, also if that is so only by now", async () => {
    const gate = new StartGate(1);
    const order: string[] = [];
    const first = [enter(gate, "a", order), enter(gate, "b", order)];
    enter(gate, "background", order);
    const joined = enter(gate, "joined", order);
    enter(gate, "call", order, true);
    joined.hurry();
    for (const turn of first) turn.leave();
    await sleep(0);
    expect(order).toEqual(["a", "b", "joined", "call"]);
  });

  it("forgets one that gives up while it waits", async () => {
    const gate = new StartGate(1);
    const order: string[] = [];
    const first = enter(gate, "a", order);
    enter(gate, "b", order);
    const stop = new AbortController();
    const turn = gate.turn(false, stop.signal);
    stop.abort(new Error("no longer"));
    await expect(turn.come).rejects.toThrow("no longer");
    turn.leave();
    enter(gate, "c", order);
    first.leave();
    await sleep(0);
    expect(order).toEqual(["a", "b", "c"]);
  });

  it("lets the next one in after two seconds of a start that hangs", async () => {
    const gate = new StartGate(1);
    const order: string[] = [];
    for (const name of ["a", "b", "c"]) enter(gate, name, order);
    await sleep(1_700);
    expect(order).toEqual(["a", "b"]);
    await sleep(700);
    expect(order).toEqual(["a", "b", "c"]);
  });
});
