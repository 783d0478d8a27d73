/**
 * A clock that a test moves by hand.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import { show } from "../internal/api/check.ts";
import type { Clock } from "../internal/api/serve_options.ts";

interface Timer {
  readonly at: number;
  readonly callback: () => void;
}

/**
 * A clock that stands still until {@linkcode FakeClock.advance} moves it; `serve({ clock })` takes one.
 *
 * It does not control when the server yields to the event loop, which is a matter of fairness, not of time.
 *
 * @example An hour in no time
 * ```ts
 * import { FakeClock } from "@x/shouty/testing";
 * import { assertEquals } from "@std/assert";
 *
 * const clock = new FakeClock();
 * const calls: number[] = [];
 * clock.setTimer(() => calls.push(clock.now()), 3_600_000);
 *
 * await clock.advance(3_599_999);
 * assertEquals(calls, []);
 * await clock.advance(1);
 * assertEquals(calls, [3_600_000]);
 * ```
 */
export class FakeClock implements Clock {
  readonly #timers = new Set<Timer>();
  #now = 0;
  /** Settles when the last call of `advance` is done; never rejects. */
  #moved: Promise<void> = Promise.resolve();

  /** Number of timers that are set. */
  get pending(): number {
    return this.#timers.size;
  }

  /**
   * Tells the time.
   *
   * @returns Milliseconds, 0 at the start.
   */
  now(): number {
    return this.#now;
  }

  /**
   * Sets a timer. It never keeps the process alive, because only the test can make it expire.
   *
   * @param callback Called once the clock has been moved far enough.
   * @param delay Time in milliseconds until then.
   * @returns A function that cancels the timer.
   */
  setTimer(callback: () => void, delay: number): () => void {
    const timer = { at: this.#now + delay, callback };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  /**
   * Moves the time forward, and calls the timers on the way in the order of their times. Before, between and after the
   * calls, everything that is ready runs: the server reads what a client has written before it finds the client idle. A
   * call during another one begins when that is done, so the times add up.
   *
   * @param milliseconds How far to move the time, at least 0.
   * @returns When everything that was ready has run.
   * @throws {RangeError} (As a rejection.) If the argument is negative, not finite, or not a number.
   * @throws What a timer's callback throws.
   */
  async advance(milliseconds: number): Promise<void> {
    if (!(Number.isFinite(milliseconds) && milliseconds >= 0)) {
      throw new RangeError(`Cannot advance by ${show(milliseconds)} ms: expected a finite number of at least 0`);
    }
    const moved = this.#moved.then(() => this.#move(milliseconds));
    // The caller gets the error; the next call begins nevertheless.
    this.#moved = moved.catch(() => {});
    await moved;
  }

  async #move(milliseconds: number): Promise<void> {
    const until = this.#now + milliseconds;
    await settle();
    for (let timer = this.#next(until); timer !== undefined; timer = this.#next(until)) {
      this.#timers.delete(timer);
      this.#now = Math.max(this.#now, timer.at);
      timer.callback();
      await settle();
    }
    this.#now = until;
  }

  /** The earliest of the timers due by a time; of several at the same time, the one that was set first. */
  #next(until: number): Timer | undefined {
    let next: Timer | undefined;
    for (const timer of this.#timers) {
      if (timer.at <= until && (next === undefined || timer.at < next.at)) next = timer;
    }
    return next;
  }
}

/** Lets everything run that is ready. The second round is for writes that the server delays to the end of its turn. */
async function settle(): Promise<void> {
  for (let round = 0; round < 2; round++) await new Promise((resolve) => setImmediate(() => resolve(undefined)));
}
