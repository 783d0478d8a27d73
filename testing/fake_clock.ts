/**
 * A clock that a test moves by hand.
 *
 * @module
 */

import { setImmediate, setTimeout } from "node:timers";
import { show } from "../internal/api/check.ts";
import type { Clock } from "../internal/api/serve_options.ts";
import { LOOP_WAITS, ROUNDS } from "../internal/time/event_loop.ts";
import { PIPE_CHANGES } from "./pipe.ts";

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
   * @param _keepAlive Taken so that code that has this clock calls it like any other; it makes no difference.
   * @returns A function that cancels the timer.
   */
  setTimer(callback: () => void, delay: number, _keepAlive?: boolean): () => void {
    const timer = { at: this.#now + delay, callback };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  /**
   * Moves the time forward, and calls the timers on the way in the order of their times. Before, between and after the
   * calls, everything that is ready runs: the server reads what a client has written before it finds the client idle. A
   * call during another one begins when that is done, so the times add up.
   *
   * Ready is what needs neither a later time nor the world outside: bytes on connections in memory, however many there
   * are, and work that connections have put off to their next turn of the event loop. This takes a few real milliseconds
   * for each turn. The clock does not wait for sockets, files, processes and cryptography; and it moves after 256 turns,
   * even if a client, for example, writes for ever.
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
    let maxRounds = MAX_ROUNDS;
    const settled = async () => {
      // What is not quiet by then may never be: each of the timers that follow waits for one turn only.
      if (!await settle(maxRounds)) maxRounds = ROUNDS;
    };
    await settled();
    for (let timer = this.#next(until); timer !== undefined; timer = this.#next(until)) {
      this.#timers.delete(timer);
      this.#now = Math.max(this.#now, timer.at);
      timer.callback();
      await settled();
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

/**
 * Rounds of the event loop in which nothing may happen before the time moves. The second one is for writes that the
 * server delays to the end of a round.
 */
const QUIET_ROUNDS = 2;

/** Maximum rounds of the event loop for which a timer waits: those of 256 turns that connections share. */
const MAX_ROUNDS = 256 * ROUNDS;

/**
 * Lets everything run that is ready, until connections in memory are quiet and no connection waits for its turn.
 *
 * @param maxRounds Maximum rounds of the event loop: two sides that write and read for ever are never quiet.
 * @returns Whether they are quiet.
 */
async function settle(maxRounds: number): Promise<boolean> {
  let before = work();
  let quiet = 0;
  for (let left = maxRounds; left > 0 && quiet < QUIET_ROUNDS;) {
    left -= await goRound();
    const now = work();
    quiet = now === before && !waits() ? quiet + 1 : 0;
    before = now;
  }
  return quiet === QUIET_ROUNDS;
}

/** A number that grows with everything that connections do: with changes in memory, and with waits for the event loop. */
function work(): number {
  return PIPE_CHANGES.count + LOOP_WAITS.begun + LOOP_WAITS.over;
}

/** Whether a connection waits for the event loop. */
function waits(): boolean {
  return LOOP_WAITS.over < LOOP_WAITS.begun;
}

/**
 * Waits for a round of the event loop. If connections wait for the loop, waits until all these waits are over, each of
 * which takes at most some rounds or a timer. It does not count among them: of two clocks, each would wait for the other.
 *
 * @returns The number of rounds.
 */
async function goRound(): Promise<number> {
  const rounds = waits() ? ROUNDS : 1;
  for (let i = 0; i < rounds; i++) await new Promise<void>((resolve) => setImmediate(() => resolve()));
  if (rounds > 1) await new Promise<void>((resolve) => setTimeout(() => resolve(), 0));
  return rounds;
}
