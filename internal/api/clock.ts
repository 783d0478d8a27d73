/**
 * The interface through which the server reads the time and sets timers.
 *
 * @module
 */

/** A source of time; a test can pass a clock that it moves by hand. */
export interface Clock {
  /** Returns the milliseconds since a fixed moment; the value never decreases. */
  now(): number;
  /**
   * Sets a timer that calls back once.
   *
   * @param callback Called when the timer expires.
   * @param delay The time until then, in milliseconds.
   * @param keepAlive Whether the timer keeps the process alive.
   * @returns A function that cancels the timer.
   */
  setTimer(callback: () => void, delay: number, keepAlive: boolean): () => void;
}
