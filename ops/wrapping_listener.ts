/**
 * A listener that puts each connection of another listener in a wrapper. Telnet and the trace are built on it.
 *
 * @module
 */

import { checkAccepted } from "../internal/api/check.ts";
import { type Listener, queuedIn, type Transport } from "../internal/api/transport.ts";

/** Wraps the connections of another listener, which it owns. */
export class WrappingListener implements Listener {
  readonly #listener: Listener;
  readonly #wrap: (transport: Transport) => Transport;

  /**
   * @param listener The other listener.
   * @param wrap Wraps one connection; it does not throw.
   */
  constructor(listener: Listener, wrap: (transport: Transport) => Transport) {
    this.#listener = listener;
    this.#wrap = wrap;
  }

  get addr(): Deno.Addr {
    return this.#listener.addr;
  }

  get queued(): number {
    return queuedIn(this.#listener);
  }

  async accept(): Promise<Transport> {
    const transport = await this.#listener.accept();
    // Wrapped, it would look like a transport, whatever it is.
    checkAccepted(transport);
    return this.#wrap(transport);
  }

  close(): void | Promise<void> {
    return this.#listener.close();
  }

  ref(): void {
    this.#listener.ref?.();
  }

  unref(): void {
    this.#listener.unref?.();
  }
}
