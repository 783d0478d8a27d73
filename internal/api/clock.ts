/**
 * The seam between the server and time.
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
