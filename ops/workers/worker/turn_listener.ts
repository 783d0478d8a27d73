/**
 * A worker's socket, which leaves connections to other workers.
 *
 * @module
 */

import type { Listener, Transport } from "../../../internal/api/transport.ts";
import { ForwardingListener } from "../../wrappers/forwarding_listener.ts";

/** Says when a worker may accept. */
export interface Turn {
  /** Settles when the worker may accept the next connection; undefined if it may now. */
  readonly turn: Promise<void> | undefined;
}

/**
 * Accepts from another listener when it is this worker's turn. It lies beneath the listeners that prepare connections:
 * those accept further ones while they prepare some, and no other worker can take what one has accepted.
 */
export class TurnListener extends ForwardingListener {
  readonly #turn: Turn;
  #closed = false;
  /** Ends the wait of an `accept`, if one waits for its turn. */
  #wake = () => {};

  /**
   * @param inner The listener.
   * @param turn Says when it may accept.
   */
  constructor(inner: Listener, turn: Turn) {
    super(inner);
    this.#turn = turn;
  }

  override accept(): Promise<Transport> {
    return this.#turn.turn === undefined ? super.accept() : this.#acceptLater();
  }

  override close(): void | Promise<void> {
    this.#closed = true;
    this.#wake();
    return super.close();
  }

  async #acceptLater(): Promise<Transport> {
    for (let turn; (turn = this.#turn.turn) !== undefined && !this.#closed;) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      turn.then(resolve);
      await promise;
    }
    return await super.accept();
  }
}
