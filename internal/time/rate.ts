/**
 * A limit on events per second, which allows one second's worth of them at once after a quiet second.
 *
 * @module
 */

/**
 * Limits events per second. Its only state is the time at which the next event would be due if all events were evenly
 * spaced, so that no error adds up.
 */
export class Rate {
  readonly #interval: number;
  /** Maximum time by which a burst may be ahead of evenly spaced events, in milliseconds. */
  readonly #ahead: number;
  #evenAt = -Infinity;

  /** @param perSecond Maximum events per second; `Infinity` for no limit. */
  constructor(perSecond: number) {
    // Of the smallest numbers, the quotient is infinite, which cannot be subtracted from itself.
    this.#interval = Math.min(1000 / perSecond, Number.MAX_VALUE);
    this.#ahead = Math.max(0, 1000 - this.#interval);
  }

  /** Returns after how many milliseconds `count` more events may pass; `count` is at most a burst. */
  wait(now: number, count = 1): number {
    return this.#interval === 0 ? 0 : Math.max(0, this.#evenAt + (count - 1) * this.#interval - this.#ahead - now);
  }

  /** Returns how many events may pass now. */
  available(now: number): number {
    if (this.#interval === 0) return Infinity;
    const ahead = Math.max(this.#evenAt, now) - now;
    return Math.max(0, Math.floor((this.#ahead - ahead) / this.#interval) + 1);
  }

  /** Whether a whole burst may pass now. */
  isFull(now: number): boolean {
    return this.#evenAt <= now;
  }

  /** Counts events that have passed. */
  take(now: number, count: number): void {
    this.#evenAt = Math.max(this.#evenAt, now) + count * this.#interval;
  }
}
