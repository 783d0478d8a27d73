/**
 * A worker's socket, which leaves connections to other workers.
 *
 * @module
 */

import type { Listener, Transport } from "../../internal/api/transport.ts";

/** Says when a worker may accept. */
export interface Turn {
  /** Settles when the worker may accept the next connection; undefined if it may now. */
  readonly turn: Promise<void> | undefined;
}

/**
 * Accepts from another listener, which it owns, when it is this worker's turn. It lies beneath the listeners that prepare
 * connections: those accept further ones while they prepare some, and no other worker can take what one has accepted.
 */
export class TurnListener implements Listener {
  readonly addr: Deno.Addr;
  readonly #inner: Listener;
  readonly #turn: Turn;
  readonly #closing = Promise.withResolvers<never>();

  /**
   * @param inner The listener.
   * @param turn Says when it may accept.
   */
  constructor(inner: Listener, turn: Turn) {
    this.addr = inner.addr;
    this.#inner = inner;
    this.#turn = turn;
    this.#closing.promise.catch(() => {});
  }

  get queued(): number {
    return this.#inner.queued ?? 0;
  }

  accept(): Promise<Transport> {
    return this.#turn.turn === undefined ? this.#inner.accept() : this.#acceptLater();
  }

  async #acceptLater(): Promise<Transport> {
    for (let turn; (turn = this.#turn.turn) !== undefined;) await Promise.race([turn, this.#closing.promise]);
    return await this.#inner.accept();
  }

  close(): void | Promise<void> {
    this.#closing.reject(new Deno.errors.BadResource("The listener is closed"));
    return this.#inner.close();
  }

  ref(): void {
    this.#inner.ref?.();
  }

  unref(): void {
    this.#inner.unref?.();
  }
}
