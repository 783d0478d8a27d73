/**
 * The clocks of a connection, on one timer for the whole server.
 *
 * @module
 */

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

/** The machine's monotonic time. */
export const SYSTEM_CLOCK: Clock = {
  now: () => performance.now(),
  setTimer(callback, delay, keepAlive) {
    const id = setTimeout(callback, Math.min(delay, 2 ** 31 - 1));
    if (!keepAlive) Deno.unrefTimer(id);
    return () => clearTimeout(id);
  },
};

/** Something that wants to be woken at its deadline. */
interface Sleeper {
  /** When it is due; `Infinity` for not at all. */
  deadline: number;
  /** Kept by {@linkcode Alarms}: when it is looked at next, and where it is in the heap. */
  wakeAt: number;
  place: number;
  /** The deadline has passed. */
  wake(now: number): void;
}

/**
 * Wakes any number of sleepers with one timer: a heap of the times at which to look at each.
 *
 * A deadline that moves into the future, as with every line, costs nothing: it is looked at when the old one is due,
 * and put back. A timer per connection would cost 1.4 KB each.
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

  /** To be called when a sleeper's deadline has become earlier than the last one known; later is no matter. */
  watch(sleeper: Sleeper): void {
    if (sleeper.deadline >= sleeper.wakeAt) return;
    if (sleeper.wakeAt === Infinity) sleeper.place = this.#heap.push(sleeper) - 1;
    sleeper.wakeAt = sleeper.deadline;
    this.#rise(sleeper);
    this.#setTimer();
  }

  /** Forgets a sleeper. */
  drop(sleeper: Sleeper): void {
    sleeper.deadline = Infinity;
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
    this.#timerAt = Infinity;
    this.#cancel = undefined;
    const now = this.#clock.now();
    for (let first = this.#heap[0]; first !== undefined && first.wakeAt <= now; first = this.#heap[0]) {
      const { deadline } = first;
      if (deadline === Infinity || deadline <= now) {
        this.drop(first);
        if (deadline <= now) first.wake(now);
      } else {
        first.wakeAt = deadline;
        this.#sink(first);
      }
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
  readonly idleTimeout: number;
  readonly lineTimeout: number;
  readonly writeTimeout: number;
  readonly maxAge: number;
}

/** What the clocks find out. */
export type Expiry = "idle" | "line-timeout" | "write-timeout" | "max-age" | "linger";

/** Ages differ by up to this part, so that clients that came together do not come back together. */
const AGE_JITTER = 0.1;

/**
 * The clocks of one connection. They run only while the server waits for the peer: a handler's working time is
 * nobody's idleness.
 */
export class ConnectionClocks implements Sleeper {
  readonly #alarms: Alarms;
  readonly #timeouts: Timeouts;
  readonly #owner: { expire(expiry: Expiry): void };
  deadline = Infinity;
  wakeAt = Infinity;
  place = 0;
  #waiting = false;
  #waitFrom = 0;
  #idleAt = Infinity;
  #lineAt = Infinity;
  #lineLeft: number;
  #writeAt = Infinity;
  #ageAt = Infinity;
  #lingerAt = Infinity;

  constructor(alarms: Alarms, timeouts: Timeouts, owner: { expire(expiry: Expiry): void }) {
    this.#alarms = alarms;
    this.#timeouts = timeouts;
    this.#owner = owner;
    this.#lineLeft = timeouts.lineTimeout;
    if (timeouts.maxAge === Infinity) return;
    this.#ageAt = alarms.now() + timeouts.maxAge * (1 + AGE_JITTER * (2 * Math.random() - 1));
    this.#update();
  }

  /** The server begins to wait for the peer's bytes; in mid-line the line's clock goes on from where it stood. */
  wait(midLine: boolean): void {
    this.#waiting = true;
    const now = this.#alarms.now();
    this.#idleAt = now + this.#timeouts.idleTimeout;
    if (midLine) {
      this.#waitFrom = now;
      this.#lineAt = now + this.#lineLeft;
    }
    this.#update();
  }

  /** Bytes came, or the server no longer waits. */
  rest(): void {
    this.#waiting = false;
    if (this.#lineAt !== Infinity) {
      this.#lineLeft = Math.max(0, this.#lineLeft - (this.#alarms.now() - this.#waitFrom));
      this.#lineAt = Infinity;
    }
    this.#idleAt = Infinity;
    this.#update();
  }

  /** A line ended: the next one has its time whole. */
  lineEnded(): void {
    this.#lineLeft = this.#timeouts.lineTimeout;
  }

  /** A block begins to be written. */
  writing(): void {
    this.#writeAt = this.#alarms.now() + this.#timeouts.writeTimeout;
    this.#update();
  }

  /** The block has left, which is progress for the idle clock too. */
  wrote(): void {
    this.#writeAt = Infinity;
    if (this.#waiting) this.#idleAt = this.#alarms.now() + this.#timeouts.idleTimeout;
    this.#update();
  }

  /** Nothing counts any more but these last milliseconds. */
  linger(milliseconds: number): void {
    this.#idleAt =
      this.#lineAt =
      this.#writeAt =
      this.#ageAt =
        Infinity;
    this.#lingerAt = this.#alarms.now() + milliseconds;
    this.#update();
  }

  /** Stops for good. */
  stop(): void {
    this.#alarms.drop(this);
  }

  /** Called by the alarms. */
  wake(now: number): void {
    if (this.#ageAt <= now) {
      this.#ageAt = Infinity;
      this.#update();
      return this.#owner.expire("max-age");
    }
    if (this.#writeAt <= now) return this.#owner.expire("write-timeout");
    if (this.#lineAt <= now) return this.#owner.expire("line-timeout");
    this.#owner.expire(this.#lingerAt <= now ? "linger" : "idle");
  }

  #update(): void {
    // While a block is on its way the peer is slow, not idle; the block has a deadline of its own.
    const peerAt = this.#writeAt === Infinity ? this.#idleAt : this.#writeAt;
    this.deadline = Math.min(peerAt, this.#lineAt, this.#ageAt, this.#lingerAt);
    this.#alarms.watch(this);
  }
}
