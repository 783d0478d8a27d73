/**
 * Any number of deadlines on one timer.
 *
 * @module
 */

import type { Clock } from "../api/clock.ts";
import { hasAskers, socketsTurns } from "./turns.ts";

/** A timer that rings so much too late says that nothing else had its turn in time either. */
const LATE_MS = 20;

/** Something with a deadline. */
export interface Sleeper {
  /** The time at which it is due, as things stand; `Infinity` for never. */
  deadline(): number;
  /** Called when it is due. */
  wake(now: number): void;
  /** Kept by {@linkcode Alarms}: the time at which its deadline is looked at next, and its place in the heap. */
  wakeAt: number;
  place: number;
}

/**
 * Wakes any number of sleepers with one timer: a heap of the times at which to look at each.
 *
 * A deadline that moves into the future, as it does with every line, costs nothing: it is looked at when the old one
 * is due, and put back. A timer per connection would cost 1.4 KB each.
 */
export class Alarms {
  /** Where time comes from. */
  readonly clock: Clock;
  readonly #heap: Sleeper[] = [];
  #timerAt = Infinity;
  #cancel: (() => void) | undefined;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** Sees to it that a sleeper is looked at by then. */
  watch(sleeper: Sleeper, at: number): void {
    if (at >= sleeper.wakeAt) return;
    if (sleeper.wakeAt === Infinity) sleeper.place = this.#heap.push(sleeper) - 1;
    sleeper.wakeAt = at;
    this.#rise(sleeper);
    this.#setTimer();
  }

  /** Forgets a sleeper. */
  drop(sleeper: Sleeper): void {
    if (sleeper.wakeAt === Infinity) return;
    sleeper.wakeAt = Infinity;
    const last = this.#heap.pop()!;
    if (last !== sleeper) {
      this.#put(last, sleeper.place);
      this.#rise(last);
      this.#sink(last);
    }
    if (this.#heap.length === 0) this.#setTimer();
  }

  #ring(): void {
    this.#cancel = undefined;
    if (this.clock.now() - this.#timerAt > LATE_MS) this.#catchUp();
    else this.#wakeDue(!hasAskers());
  }

  /**
   * Has every socket asked, so that peers that have spoken are heard before they are found silent. Deno's loop has asked
   * its own before it rings a timer, unless something held the whole process up; other sockets may be far behind.
   */
  async #catchUp(): Promise<void> {
    // No timer is set meanwhile: it would be due at once.
    this.#timerAt = -Infinity;
    await socketsTurns(this.#heap.length);
    this.#wakeDue(true);
  }

  /** @param asked Whether all sockets have been asked since the timer rang. */
  #wakeDue(asked: boolean): void {
    this.#timerAt = Infinity;
    const now = this.clock.now();
    for (let first = this.#heap[0]; first !== undefined && first.wakeAt <= now; first = this.#heap[0]) {
      const deadline = first.deadline();
      if (deadline <= now && !asked) return void this.#catchUp();
      this.drop(first);
      if (deadline <= now) first.wake(now);
      else this.watch(first, deadline);
    }
    this.#setTimer();
  }

  /** A timer that is too early does no harm, so it is moved only forward, or taken away when nobody is left. */
  #setTimer(): void {
    const at = this.#heap[0]?.wakeAt ?? Infinity;
    if (at >= this.#timerAt && at !== Infinity) return;
    this.#cancel?.();
    this.#cancel = undefined;
    this.#timerAt = at;
    if (at === Infinity) return;
    const now = this.clock.now();
    this.#timerAt = Math.max(at, now);
    // Rounded up: timers count whole milliseconds, and one that fires early would be set again and again.
    const delay = Math.ceil(this.#timerAt - now);
    // What waits for a peer keeps the process alive by itself.
    this.#cancel = this.clock.setTimer(() => this.#ring(), delay, false);
  }

  #put(sleeper: Sleeper, place: number): void {
    this.#heap[place] = sleeper;
    sleeper.place = place;
  }

  #rise(sleeper: Sleeper): void {
    while (sleeper.place > 0) {
      const parent = this.#heap[(sleeper.place - 1) >> 1];
      if (parent.wakeAt <= sleeper.wakeAt) return;
      this.#swap(sleeper, parent);
    }
  }

  #sink(sleeper: Sleeper): void {
    for (;;) {
      const left = this.#heap[2 * sleeper.place + 1];
      const right = this.#heap[2 * sleeper.place + 2];
      const child = right !== undefined && right.wakeAt < left.wakeAt ? right : left;
      if (child === undefined || child.wakeAt >= sleeper.wakeAt) return;
      this.#swap(sleeper, child);
    }
  }

  #swap(a: Sleeper, b: Sleeper): void {
    const { place } = a;
    this.#put(a, b.place);
    this.#put(b, place);
  }
}
