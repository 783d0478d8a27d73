/**
 * Two clocks: that of the machine, and one whose timers can be told not to keep the process alive.
 *
 * @module
 */

import { LONGEST_MS } from "../api/check.ts";
import type { Clock } from "../api/serve_options.ts";

const monotonicNow = performance.now.bind(performance);

/**
 * The time that was read last; NaN again after the current microtasks. A cache, because each line needs the time twice.
 */
let recent = NaN;

function forget(): void {
  recent = NaN;
}

/** Runs `forget` as a microtask; `queueMicrotask` of Deno allocates three times as much. */
const SETTLED = Promise.resolve();

/** Maximum delay in milliseconds that a timer of Deno's gets exactly; for a longer one, see {@linkcode partOf}. */
const EXACT_MS = 1024;

/**
 * Returns the part of a time that a timer of Deno's waits: of a long time the largest part that is a power of two. So there
 * are few different delays: for each that a cancelled timer has had, in milliseconds, Deno keeps some 180 bytes until that
 * delay has passed. With a deadline a day away, and a read that times out a hundred times a second, that would come to a
 * gigabyte.
 */
function partOf(milliseconds: number): number {
  return milliseconds <= EXACT_MS ? milliseconds : 2 ** Math.floor(Math.log2(milliseconds));
}

/** The machine's monotonic clock. `Date` would not do: the wall clock can step, and a test can replace it. */
export const SYSTEM_CLOCK: Clock = {
  now() {
    if (Number.isNaN(recent)) {
      recent = monotonicNow();
      SETTLED.then(forget);
    }
    return recent;
  },
  setTimer(callback, delay, keepAlive) {
    const most = Math.min(delay, LONGEST_MS);
    const at = monotonicNow() + most;
    let id: ReturnType<typeof setTimeout>;
    const wait = (left: number) => {
      const part = partOf(left);
      id = setTimeout(part < left ? () => wait(Math.max(0, Math.ceil(at - monotonicNow()))) : callback, part);
      if (!keepAlive) Deno.unrefTimer(id);
    };
    wait(most);
    return () => clearTimeout(id);
  },
};

interface Wait {
  readonly at: number;
  readonly ring: () => void;
  cancel: () => void;
}

/**
 * A clock with `ref` and `unref`, as sockets have them: `unref` makes its timers, present and future, no longer keep
 * the process alive.
 */
export class RefClock implements Clock {
  readonly #clock: Clock;
  readonly #waits = new Set<Wait>();
  #ref = true;

  /** @param clock The source of time. */
  constructor(clock: Clock) {
    this.#clock = clock;
  }

  now(): number {
    return this.#clock.now();
  }

  setTimer(callback: () => void, delay: number, keepAlive: boolean): () => void {
    if (!keepAlive) return this.#clock.setTimer(callback, delay, false);
    const drop = () => this.#waits.delete(wait);
    const wait: Wait = { at: this.now() + delay, ring: () => (drop(), callback()), cancel() {} };
    this.#waits.add(wait);
    this.#start(wait, delay);
    return () => (drop(), wait.cancel());
  }

  ref(): void {
    this.#keepAlive(true);
  }

  unref(): void {
    this.#keepAlive(false);
  }

  #keepAlive(ref: boolean): void {
    this.#ref = ref;
    for (const wait of this.#waits) {
      wait.cancel();
      this.#start(wait, Math.max(0, wait.at - this.now()));
    }
  }

  #start(wait: Wait, delay: number): void {
    wait.cancel = this.#clock.setTimer(wait.ring, delay, this.#ref);
  }
}
