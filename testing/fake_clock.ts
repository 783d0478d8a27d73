/**
 * Time that a test moves.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import { show } from "../internal/api/check.ts";
import type { Clock } from "../internal/api/clock.ts";

interface Timer {
  readonly at: number;
  readonly callback: () => void;
}

/**
 * A clock that stands still until {@linkcode FakeClock.advance} moves it; `serve({ clock })` takes one.
 *
 * It has no part in the server's turns of the event loop, which are about fairness and not about time.
 *
 * @example An hour in no time
 * ```ts
 * import { FakeClock } from "@x/shouty/testing";
 * import { assertEquals } from "@std/assert";
 *
 * const clock = new FakeClock();
 * const rung: number[] = [];
 * clock.setTimer(() => rung.push(clock.now()), 3_600_000);
 *
 * await clock.advance(3_599_999);
 * assertEquals(rung, []);
 * await clock.advance(1);
 * assertEquals(rung, [3_600_000]);
 * ```
 */
export class FakeClock implements Clock {
  readonly #timers = new Set<Timer>();
  #now = 0;
  /** Settles when the last call of `advance` so far is over; it never rejects. */
  #moved: Promise<void> = Promise.resolve();

  /** How many timers are set. */
  get pending(): number {
    return this.#timers.size;
  }

  /**
   * The time, which begins at 0.
   *
   * @returns Milliseconds.
   */
  now(): number {
    return this.#now;
  }

  /**
   * Calls back once the clock has been moved so far. It never keeps the process alive, as it waits for the test alone.
   *
   * @param callback What to call.
   * @param delay In how many milliseconds.
   * @returns A function that calls it off.
   */
  setTimer(callback: () => void, delay: number): () => void {
    const timer = { at: this.#now + delay, callback };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  /**
   * Moves the time, and calls each timer on the way when its moment has come. Before, between and after, everything that
   * is ready runs: the server takes what a client has written before it finds it idle. A call that comes while another
   * one is under way begins when that one is over, so the times add up.
   *
   * @param milliseconds By how much, from 0 on.
   * @returns When everything that could run has run.
   * @throws {RangeError} (As a rejection.) If that is less than 0, not finite, or no number.
   * @throws What a timer's callback throws.
   */
  async advance(milliseconds: number): Promise<void> {
    if (!(Number.isFinite(milliseconds) && milliseconds >= 0)) {
      throw new RangeError(`Cannot advance by ${show(milliseconds)} ms: expected a finite number of at least 0`);
    }
    const moved = this.#moved.then(() => this.#move(milliseconds));
    // The caller gets the error; the next call begins all the same.
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

  /** Of those that are due by then, the earliest; of two at a time, the one that was set first. */
  #next(until: number): Timer | undefined {
    let next: Timer | undefined;
    for (const timer of this.#timers) {
      if (timer.at <= until && (next === undefined || timer.at < next.at)) next = timer;
    }
    return next;
  }
}

/** What is ready goes first, and so does what the outbox puts off to the end of the turn: hence the second round. */
async function settle(): Promise<void> {
  for (let round = 0; round < 2; round++) await new Promise((resolve) => setImmediate(() => resolve(undefined)));
}
