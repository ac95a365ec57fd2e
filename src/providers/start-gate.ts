/** Starts under way at once, per processor: starting is work for the machine. */
const STARTS_PER_CPU = 2;
/** A start that takes longer than this waits rather than works, and lets the next one in, in milliseconds. */
const LONGEST_WORK_MS = 2_000;

/** A start that waits for its turn, or has it. */
export interface Turn {
  /** Settles when it may go on; rejects with the signal's reason. */
  readonly come: Promise<void>;
  /** Rejects with the signal's reason, also before its turn could come. */
  readonly givenUp: Promise<never>;
  /** Somebody waits for it now: it goes before those that nobody waits for. */
  hurry(): void;
  /** It is over; the next one may come. */
  leave(): void;
}

interface Waiter {
  hurried: boolean;
  enter(): void;
}

/** Lets only so many providers start at once, those first that somebody waits for. */
export class StartGate {
  readonly #waiting = new Set<Waiter>();
  #free: number;

  constructor(cpus: number) {
    this.#free = STARTS_PER_CPU * cpus;
  }

  turn(hurried: boolean, signal: AbortSignal): Turn {
    const { promise, resolve } = Promise.withResolvers<void>();
    const { promise: givenUp, reject } = Promise.withResolvers<never>();
    let release = (): void => void this.#waiting.delete(waiter);
    const waiter: Waiter = {
      hurried,
      enter: () => {
        this.#waiting.delete(waiter);
        this.#free--;
        const timer = setTimeout(() => leave(), LONGEST_WORK_MS).unref();
        release = () => {
          clearTimeout(timer);
          this.#free++;
          this.#next();
        };
        resolve();
      },
    };
    const leave = (): void => {
      release();
      release = () => {};
    };
    givenUp.catch(() => {}); // it may come before anybody awaits it
    signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
    if (signal.aborted) reject(signal.reason as Error);
    this.#waiting.add(waiter);
    this.#next();
    const come = Promise.race([promise, givenUp]);
    come.catch(() => {});
    return { come, givenUp, hurry: () => void (waiter.hurried = true), leave };
  }

  #next(): void {
    if (this.#free <= 0) return;
    const waiting = [...this.#waiting];
    (waiting.find(({ hurried }) => hurried) ?? waiting[0])?.enter();
  }
}
