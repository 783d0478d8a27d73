/**
 * So many per second, and a burst of one second's worth after a quiet time.
 *
 * @module
 */

/** A rate. It keeps one moment only, that at which the next would be due if all came evenly, and so never drifts. */
export class Rate {
  readonly #interval: number;
  /** A burst is ahead of its time, by so much at most. */
  readonly #ahead: number;
  #evenAt = -Infinity;

  /** @param perSecond How many; `Infinity` for any number. */
  constructor(perSecond: number) {
    this.#interval = 1000 / perSecond;
    this.#ahead = Math.max(0, 1000 - this.#interval);
  }

  /** In how many milliseconds so many more may pass, which are no more than a burst. */
  wait(now: number, count = 1): number {
    return this.#interval === 0 ? 0 : Math.max(0, this.#evenAt + (count - 1) * this.#interval - this.#ahead - now);
  }

  /** How many may pass now. */
  available(now: number): number {
    if (this.#interval === 0) return Infinity;
    const ahead = Math.max(this.#evenAt, now) - now;
    return Math.max(0, Math.floor((this.#ahead - ahead) / this.#interval) + 1);
  }

  /** Whether it has been quiet for so long that it is as good as new. */
  isFull(now: number): boolean {
    return this.#evenAt <= now;
  }

  /** So many have passed. */
  take(now: number, count: number): void {
    this.#evenAt = Math.max(this.#evenAt, now) + count * this.#interval;
  }
}
