/**
 * Watches any number of deadlines with one timer.
 *
 * @module
 */

import { LONGEST_MS } from "../api/check.ts";
import type { Clock } from "../api/serve_options.ts";
import { afterSocketsTurns, hasAskers } from "./event_loop.ts";

/** A timer that expires later than this, in milliseconds, shows that the whole process was held up. */
const LATE_MS = 20;

/** Maximum sleepers that are checked in one turn of the event loop: to close a thousand connections takes some 6 ms. */
const MOST_CHECKED = 1000;

/** The number of sleepers of all alarms. */
let watched = 0;

/** About how many sockets the event loop reads from: those whose connection has a deadline, in all of the process. */
export function countWatched(): number {
  return watched;
}

/**
 * Sets a timer that keeps the process alive, for a deadline that is no connection's. If the process was held up past it,
 * every socket is read from first: what is waited for may have come meanwhile. That takes no longer than the process was
 * held up: one that is only busy has read from them, and would need seconds for it.
 *
 * @param clock The source of time.
 * @param expire Called when the deadline has passed.
 * @param delay The time until then, in milliseconds.
 * @returns A function that takes the deadline back.
 */
export function setDeadline(clock: Clock, expire: () => void, delay: number): () => void {
  if (delay === Infinity) return () => {};
  const at = clock.now() + delay;
  const end = () => {
    cancel();
    expire();
  };
  const ring = () => {
    const late = clock.now() - at;
    if (late <= LATE_MS) return expire();
    const callOff = afterSocketsTurns(watched, end);
    const cancelTimer = clock.setTimer(end, late, true);
    cancel = () => (callOff(), cancelTimer());
  };
  let cancel = clock.setTimer(ring, delay, true);
  return () => cancel();
}

/** An object with a deadline. */
export interface Sleeper {
  /** The current deadline, as a time of the clock; `Infinity` for none. */
  deadline(): number;
  /** Called when the deadline has passed. */
  wake(now: number): void;
  /** Set by {@linkcode Alarms}: the time at which it checks the deadline next, and the place in its heap. */
  wakeAt: number;
  place: number;
}

/**
 * Wakes any number of sleepers with one timer. A heap holds the times at which to check their deadlines.
 *
 * A deadline that moves into the future, as it does with every line, costs nothing: it is checked at the time of the
 * old one, and the sleeper goes back into the heap. A timer for each connection would cost 1.4 KB per connection.
 */
export class Alarms {
  /** The source of time. */
  readonly clock: Clock;
  readonly #heap: Sleeper[] = [];
  #timerAt = Infinity;
  #cancel: (() => void) | undefined;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** Checks a sleeper's deadline at the time `at`, or before. */
  watch(sleeper: Sleeper, at: number): void {
    if (at >= sleeper.wakeAt) return;
    if (sleeper.wakeAt === Infinity) {
      watched++;
      sleeper.place = this.#heap.push(sleeper) - 1;
    }
    sleeper.wakeAt = at;
    this.#rise(sleeper);
    this.#setTimer();
  }

  /** Stops watching a sleeper. */
  drop(sleeper: Sleeper): void {
    if (sleeper.wakeAt === Infinity) return;
    sleeper.wakeAt = Infinity;
    watched--;
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
   * Reads from every socket before it wakes the sleepers that are due, so that a peer that has sent something is not
   * taken for silent. Deno's event loop has read its own sockets before it runs a timer, unless the whole process was
   * held up; the sockets of other engines may be far behind. This is called off when there is no sleeper left: no timer
   * is to outlive the connections.
   */
  #catchUp(): void {
    this.#cancel?.();
    // Keeps `watch` from setting a timer meanwhile, which would expire at once.
    this.#timerAt = -Infinity;
    this.#cancel = afterSocketsTurns(watched, () => {
      this.#cancel = undefined;
      this.#wakeDue(true);
    });
  }

  /**
   * Wakes the sleepers that are due; if they are many, some now and the rest when other callbacks have run.
   *
   * @param asked Whether the kernel has been asked about all sockets since the timer expired.
   * @param now Sleepers that are due later than this wait for the next timer.
   */
  #wakeDue(asked: boolean, now: number = this.clock.now()): void {
    this.#timerAt = Infinity;
    let left = MOST_CHECKED;
    for (let first = this.#heap[0]; first !== undefined && first.wakeAt <= now; first = this.#heap[0]) {
      if (--left < 0) return this.#goOn(asked, now);
      const deadline = first.deadline();
      if (deadline <= now && !asked) return this.#catchUp();
      this.drop(first);
      if (deadline <= now) first.wake(now);
      else this.watch(first, deadline);
    }
    // No timer ran while this loop did, so check here whether the next sleeper is already late.
    if (this.#heap.length > 0 && this.clock.now() - this.#heap[0].wakeAt > LATE_MS) this.#catchUp();
    else this.#setTimer();
  }

  #goOn(asked: boolean, now: number): void {
    this.#cancel?.();
    // Keeps `watch` from setting a timer meanwhile.
    this.#timerAt = -Infinity;
    this.#cancel = this.clock.setTimer(() => this.#wakeDue(asked, now), 0, false);
  }

  /**
   * Sets the timer for the first check. One that is too early does no harm, so it is only cancelled if none is needed.
   */
  #setTimer(): void {
    const at = this.#heap[0]?.wakeAt ?? Infinity;
    if (at >= this.#timerAt && at !== Infinity) return;
    this.#cancel?.();
    this.#cancel = undefined;
    this.#timerAt = at;
    if (at === Infinity) return;
    const now = this.clock.now();
    // Rounded up: timers count whole milliseconds, and one that expires early would be set again and again.
    const delay = Math.min(Math.ceil(Math.max(0, at - now)), LONGEST_MS);
    this.#timerAt = Math.min(Math.max(at, now), now + delay);
    // It does not keep the process alive: the reads and writes that wait for peers do.
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
