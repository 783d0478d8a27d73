/**
 * The flushes of the scripts' connections.
 *
 * @module
 */

import { type Conn, ConnectionClosedError } from "@x/shouty";

/** Checks that each flush settles, and that what it tells is true. */
export class Flushes {
  /** The number of flushes that have not settled. */
  pending = 0;
  /** What was not true. */
  readonly complaints: string[] = [];
  readonly #isAlone: boolean;

  /** @param isAlone Whether nothing is written but what the handler writes. */
  constructor(isAlone: boolean) {
    this.#isAlone = isAlone;
  }

  /**
   * Flushes.
   *
   * @param conn The connection.
   * @param due The number of bytes that the handler has written until now.
   * @returns Whether everything was sent. Rejects with an error that `flushed` may not reject with.
   */
  async flush(conn: Conn, due: number): Promise<boolean> {
    const mayReject = !this.#isAlone || conn.stats().phase !== "open";
    this.pending++;
    try {
      await conn.flushed();
      this.#check(conn.stats().bytesOut >= due, `A flush has resolved with ${conn.stats().bytesOut} of ${due} bytes`);
      return true;
    } catch (error) {
      if (!(error instanceof ConnectionClosedError)) throw error;
      this.#check(mayReject || conn.stats().bytesOut < due, `A flush has rejected with all ${due} bytes sent`);
      return false;
    } finally {
      this.pending--;
    }
  }

  #check(isTrue: boolean, complaint: string): void {
    if (!isTrue) this.complaints.push(complaint);
  }
}
