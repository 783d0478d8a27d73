/**
 * The clocks of a connection, on one timer for the whole server.
 *
 * @module
 */

import { socketsTurn } from "./turn.ts";

/** Where time comes from; a test puts a clock there that it moves by hand. */
export interface Clock {
  /** Milliseconds since some moment; never goes back. */
  now(): number;
  /**
   * Calls back once.
   *
   * @param callback What to call.
   * @param delay In how many milliseconds.
   * @param keepAlive Whether the process stays alive for it.
   * @returns A function that calls it off.
   */
  setTimer(callback: () => void, delay: number, keepAlive: boolean): () => void;
}

/**
 * Monotonic time that is asked for once per millisecond of the wall's: Deno's answer takes 200 ns, the wall's 80, and
 * every line wants two.
 *
 * @param wallTime What the wall shows, which may go back.
 * @returns The time now, or at most a millisecond ago.
 */
export function monotonicTime(wallTime: () => number): () => number {
  let wall = NaN;
  let now = 0;
  return () => {
    const time = wallTime();
    if (time !== wall) {
      wall = time;
      now = performance.now();
    }
    return now;
  };
}

/** The machine's time, whatever a test makes of `Date` later. */
export const SYSTEM_CLOCK: Clock = {
  now: monotonicTime(Date.now),
  setTimer(callback, delay, keepAlive) {
    const id = setTimeout(callback, Math.min(delay, 2 ** 31 - 1));
    if (!keepAlive) Deno.unrefTimer(id);
    return () => clearTimeout(id);
  },
};

/** A timer that rings so much too late says that nothing else had its turn in time either. */
const LATE_MS = 20;

/** Something that is to be woken. */
interface Sleeper {
  /** When it is due, as things stand; `Infinity` for not at all. */
  deadline(): number;
  /** It is due. */
  wake(now: number): void;
  /** Kept by {@linkcode Alarms}: when it is looked at next, and where it is in the heap. */
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
  readonly #clock: Clock;
  readonly #heap: Sleeper[] = [];
  #timerAt = Infinity;
  #cancel: (() => void) | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** The present moment. */
  now(): number {
    return this.#clock.now();
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
    const late = this.#clock.now() - (this.#heap[0]?.wakeAt ?? Infinity);
    if (late > LATE_MS) this.#catchUp();
    else this.#wakeDue();
  }

  /** Something held the whole process up. Peers who spoke meanwhile are heard before anybody is found silent. */
  async #catchUp(): Promise<void> {
    // No timer is set meanwhile: it would be due at once.
    this.#timerAt = -Infinity;
    // The kernel tells of some 1000 sockets at a time.
    for (let turns = 2 + (this.#heap.length >> 9); turns > 0; turns--) await socketsTurn();
    this.#wakeDue();
  }

  #wakeDue(): void {
    this.#timerAt = Infinity;
    const now = this.#clock.now();
    for (let first = this.#heap[0]; first !== undefined && first.wakeAt <= now; first = this.#heap[0]) {
      const deadline = first.deadline();
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
    // Rounded up: timers count whole milliseconds, and one that fires early would be set again and again.
    const delay = Math.max(0, Math.ceil(at - this.#clock.now()));
    // What waits for a peer keeps the process alive by itself.
    this.#cancel = this.#clock.setTimer(() => this.#ring(), delay, false);
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

/** How long each clock of a connection runs, in milliseconds; `Infinity` switches one off. */
export interface Timeouts {
  readonly firstLineTimeout: number;
  readonly idleTimeout: number;
  readonly lineTimeout: number;
  readonly writeTimeout: number;
  readonly maxAge: number;
}

/** What the clocks find out. */
export type Expiry = "first-line-timeout" | "idle" | "line-timeout" | "write-timeout" | "max-age" | "linger";

/** Limits of a whole life differ by up to this part, so that clients that came together do not come back together. */
const JITTER = 0.1;

/** A limit, give or take 10 % by chance. */
export function jitter(limit: number): number {
  return limit * (1 + JITTER * (2 * Math.random() - 1));
}

/**
 * The clocks of one connection. They run only while the server waits for the peer: a handler's working time is
 * nobody's idleness.
 */
export class ConnectionClocks implements Sleeper {
  readonly #alarms: Alarms;
  readonly #timeouts: Timeouts;
  readonly #owner: { expire(expiry: Expiry): void };
  wakeAt = Infinity;
  place = 0;
  #waiting = false;
  #waitFrom = 0;
  #idleAt = Infinity;
  #lineAt = Infinity;
  #lineLeft: number;
  #firstAt = Infinity;
  /** Whether the peer has sent nothing yet. */
  #silent = true;
  #writeAt = Infinity;
  #ageAt = Infinity;
  #lingerAt = Infinity;

  constructor(alarms: Alarms, timeouts: Timeouts, owner: { expire(expiry: Expiry): void }) {
    this.#alarms = alarms;
    this.#timeouts = timeouts;
    this.#owner = owner;
    this.#lineLeft = timeouts.lineTimeout;
    if (timeouts.maxAge === Infinity) return;
    this.#ageAt = alarms.now() + jitter(timeouts.maxAge);
    alarms.watch(this, this.#ageAt);
  }

  /** The server begins to wait for the peer's bytes; in mid-line the line's clock goes on from where it stood. */
  wait(midLine: boolean): void {
    this.#waiting = true;
    const now = this.#alarms.now();
    this.#idleAt = now + this.#timeouts.idleTimeout;
    this.#alarms.watch(this, this.#idleAt);
    if (this.#silent) {
      this.#firstAt = now + this.#timeouts.firstLineTimeout;
      this.#alarms.watch(this, this.#firstAt);
    }
    if (!midLine) return;
    this.#waitFrom = now;
    this.#lineAt = now + this.#lineLeft;
    this.#alarms.watch(this, this.#lineAt);
  }

  /** Bytes came, or the server no longer waits. */
  rest(): void {
    this.#waiting = false;
    this.#idleAt = Infinity;
    this.#silent = false;
    this.#firstAt = Infinity;
    if (this.#lineAt === Infinity) return;
    this.#lineLeft = Math.max(0, this.#lineLeft - (this.#alarms.now() - this.#waitFrom));
    this.#lineAt = Infinity;
  }

  /** A line ended: the next one has its time whole. */
  lineEnded(): void {
    this.#lineLeft = this.#timeouts.lineTimeout;
  }

  /** A block begins to be written. */
  writing(): void {
    this.#writeAt = this.#alarms.now() + this.#timeouts.writeTimeout;
    this.#alarms.watch(this, this.#writeAt);
  }

  /** The block has left, which is progress for the idle clock too. */
  wrote(): void {
    this.#writeAt = Infinity;
    if (!this.#waiting) return;
    this.#idleAt = this.#alarms.now() + this.#timeouts.idleTimeout;
    this.#alarms.watch(this, this.#idleAt);
  }

  /** Nothing counts any more but these last milliseconds. */
  linger(milliseconds: number): void {
    this.rest();
    this.#writeAt = Infinity;
    this.#ageAt = Infinity;
    this.#lingerAt = this.#alarms.now() + milliseconds;
    this.#alarms.watch(this, this.#lingerAt);
  }

  /** Stops for good. */
  stop(): void {
    this.#alarms.drop(this);
  }

  /** While a block is on its way the peer is slow, not idle: the block has a deadline of its own. */
  deadline(): number {
    const peerAt = this.#writeAt === Infinity ? this.#idleAt : this.#writeAt;
    return Math.min(peerAt, this.#lineAt, this.#firstAt, this.#ageAt, this.#lingerAt);
  }

  wake(now: number): void {
    if (this.#ageAt <= now) {
      this.#ageAt = Infinity;
      this.#alarms.watch(this, this.deadline());
      this.#owner.expire("max-age");
    } else if (this.#writeAt <= now) this.#owner.expire("write-timeout");
    else if (this.#lineAt <= now) this.#owner.expire("line-timeout");
    else if (this.#idleAt <= now && this.#writeAt === Infinity) this.#owner.expire("idle");
    else this.#owner.expire(this.#firstAt <= now ? "first-line-timeout" : "linger");
  }
}
