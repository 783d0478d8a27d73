/**
 * A queue whose members wait until they may go on.
 *
 * @module
 */

import { LONGEST_MS } from "../api/check.ts";
import type { Clock } from "../api/serve_options.ts";

const NO_TIMER = () => {};

/** Lets its members go on, in the order in which they came, each as soon as it may. */
export class DelayedQueue<T> {
  readonly #clock: Clock;
  readonly #delay: () => number;
  readonly #goOn: (member: T) => void;
  #members: T[] = [];
  #cancelTimer = NO_TIMER;

  /**
   * @param clock The source of time.
   * @param delay Returns for how many milliseconds the first member has to wait; `Infinity` until {@linkcode hurry}.
   * @param goOn Called with each member that may go on.
   */
  constructor(clock: Clock, delay: () => number, goOn: (member: T) => void) {
    this.#clock = clock;
    this.#delay = delay;
    this.#goOn = goOn;
  }

  /** The number of members. */
  get size(): number {
    return this.#members.length;
  }

  /** Adds a member, which goes on at once if it may. */
  add(member: T): void {
    this.#members.push(member);
    if (this.size === 1) this.hurry();
  }

  /** Lets members go on as far as they may now. */
  hurry(): void {
    this.#cancelTimer();
    this.#cancelTimer = NO_TIMER;
    while (this.size > 0) {
      const delay = this.#delay();
      if (delay > 0) return this.#hurryAfter(delay);
      this.#goOn(this.#members.shift()!);
    }
  }

  /** Removes the members that a function chooses. */
  remove(isGone: (member: T) => boolean): void {
    this.#members = this.#members.filter((member) => !isGone(member));
    this.hurry();
  }

  /** Removes all members, and returns them. */
  clear(): T[] {
    this.#cancelTimer();
    return this.#members.splice(0);
  }

  #hurryAfter(delay: number): void {
    // A member that has gone on may have led to another call of `hurry`, which has set a timer.
    this.#cancelTimer();
    if (delay === Infinity) return;
    this.#cancelTimer = this.#clock.setTimer(() => this.hurry(), Math.min(delay, LONGEST_MS), true);
  }
}
