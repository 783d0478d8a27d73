/**
 * Accepting, whatever peers and the kernel do.
 *
 * @module
 */

import { Backoff } from "./backoff.ts";
import type { Clock } from "./clocks.ts";
import { closeQuietly, type Listener, type Transport } from "./transport.ts";

/**
 * The connections that come to a listener, which it owns, until it is closed. The listener's own iterator would end at
 * the first client that resets its connection before it is accepted, and leave the server deaf.
 */
export class Acceptor implements AsyncIterableIterator<Transport, undefined> {
  readonly #listener: Listener;
  readonly #clock: Clock;
  readonly #onError: (error: unknown, retryMs: number) => void;
  readonly #backoff = new Backoff();
  #closed = false;
  #cutWait = () => {};

  /**
   * @param listener Where connections come from.
   * @param clock Where time comes from.
   * @param onError Called with what `accept` threw, and in how many milliseconds it is tried again.
   */
  constructor(listener: Listener, clock: Clock, onError: (error: unknown, retryMs: number) => void) {
    this.#listener = listener;
    this.#clock = clock;
    this.#onError = onError;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** The next connection; throws only if the listener was closed from outside, so that nobody can accept any more. */
  async next(): Promise<IteratorResult<Transport, undefined>> {
    while (!this.#closed) {
      try {
        const value = await this.#listener.accept();
        this.#backoff.reset();
        if (!this.#closed) return { value, done: false };
        // It came too late for anybody to own it.
        closeQuietly(value);
      } catch (error) {
        if (this.#closed) break;
        if (error instanceof Deno.errors.BadResource) throw error;
        const retryMs = this.#backoff.next(error);
        this.#onError(error, retryMs);
        if (retryMs > 0) await this.#wait(retryMs);
      }
    }
    return { value: undefined, done: true };
  }

  /** Stops; the port is free when the iteration has ended, which the outstanding `accept` holds up. */
  close(): void {
    this.#closed = true;
    closeQuietly(this.#listener);
    this.#cutWait();
  }

  async #wait(milliseconds: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const cancel = this.#clock.setTimer(resolve, milliseconds, true);
    this.#cutWait = resolve;
    await promise;
    cancel();
  }
}
