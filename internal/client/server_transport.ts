/**
 * A connection to a server that may close it while this side still writes.
 *
 * @module
 */

import type { Clock } from "../api/serve_options.ts";
import { Forwarding, resetQuietly, type Transport } from "../api/transport.ts";

/** Maximum time for which a failed write waits while the input is not read, in milliseconds. */
const UNREAD_MS = 1000;

/**
 * Reports that a write has failed only when the input has been read to its end: the error ends the connection, and drops
 * what has come. A server that closes a connection at which this side still writes has mostly said why before, and its
 * system then sends a reset. The write fails at once, while the server's last words wait in this side's system.
 */
export class ServerTransport extends Forwarding {
  readonly #clock: Clock;
  #reading = false;
  /** The error of the write that has failed. */
  #failure: { readonly error: unknown } | undefined;
  /** Resolves when a failed write may reject: the input has ended, or the connection is closed. */
  readonly #done = Promise.withResolvers<void>();
  #ended = false;
  #stopTimer = () => {};

  /**
   * @param inner The connection.
   * @param clock Measures how long the input is not read.
   */
  constructor(inner: Transport, clock: Clock) {
    super(inner);
    this.#clock = clock;
  }

  override async read(into: Uint8Array): Promise<number | null> {
    this.#stopTimer();
    this.#reading = true;
    try {
      const count = await this.inner.read(into);
      if (count !== null) return count;
      // In place of the end of input: not all that was written has been sent. What was read before may still wait for the
      // caller, so a failed write waits on.
      if (this.#failure !== undefined) throw this.#failure.error;
      this.#release();
      return null;
    } finally {
      this.#reading = false;
      this.#startTimer();
    }
  }

  override async write(bytes: Uint8Array): Promise<number> {
    try {
      return await this.inner.write(bytes);
    } catch (error) {
      this.#failure = { error };
      this.#startTimer();
      await this.#done.promise;
      throw error;
    }
  }

  override close(): void {
    this.#release();
    super.close();
  }

  override get reset(): (() => void) | undefined {
    return this.inner.reset && (() => (this.#release(), resetQuietly(this.inner)));
  }

  /** Lets a failed write reject at the end of the time, unless the input is read meanwhile. */
  #startTimer(): void {
    if (this.#failure === undefined || this.#reading || this.#ended) return;
    this.#stopTimer = this.#clock.setTimer(() => this.#done.resolve(), UNREAD_MS, true);
  }

  #release(): void {
    this.#ended = true;
    this.#stopTimer();
    this.#done.resolve();
  }
}
