/**
 * Accepting, whatever peers and the kernel do.
 *
 * @module
 */

import { Backoff } from "./backoff.ts";
import type { Clock } from "./clocks.ts";
import { closeQuietly, type Listener, type Transport } from "./transport.ts";

/** Takes connections from a listener, which it owns, until it is closed. */
export class Acceptor {
  readonly #listener: Listener;
  readonly #clock: Clock;
  readonly #onError: (error: unknown, retryMs: number) => void;
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

  /**
   * The connections that come. The listener's own iterator would end at the first client that resets its connection
   * before it is accepted, and leave the server deaf.
   *
   * @throws If the listener was closed from outside, so that nobody can accept any more.
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<Transport> {
    const backoff = new Backoff();
    while (!this.#closed) {
      let transport: Transport;
      try {
        transport = await this.#listener.accept();
      } catch (error) {
        if (this.#closed) return;
        if (error instanceof Deno.errors.BadResource) throw error;
        const retryMs = backoff.next(error);
        this.#onError(error, retryMs);
        if (retryMs > 0) await this.#wait(retryMs);
        continue;
      }
      backoff.reset();
      if (this.#closed) return closeQuietly(transport);
      yield transport;
    }
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
