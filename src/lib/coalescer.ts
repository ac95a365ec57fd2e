/** Of what comes in quick succession under one name, lets through the first at once, then the newest once in a while, and always the last. */
export class Coalescer {
  readonly #intervalMs: number;
  /** The names that something was let through for within the interval, with the newest of what came since. */
  readonly #resting = new Map<string, (() => void) | undefined>();

  constructor(intervalMs: number) {
    this.#intervalMs = intervalMs;
  }

  /** Runs `deliver` now or later, or not at all when a newer one of that name comes first. It must not throw. */
  pass(name: string, deliver: () => void): void {
    if (this.#resting.has(name)) {
      this.#resting.set(name, deliver);
      return;
    }
    this.#resting.set(name, undefined);
    // It must not keep Hangar alive.
    setTimeout(() => this.#rested(name), this.#intervalMs).unref();
    deliver();
  }

  /** Runs now what would have been run later. */
  flush(): void {
    for (const [name, deliver] of this.#resting) {
      this.#resting.set(name, undefined);
      deliver?.();
    }
  }

  #rested(name: string): void {
    const newest = this.#resting.get(name);
    this.#resting.delete(name);
    if (newest !== undefined) this.pass(name, newest);
  }
}
