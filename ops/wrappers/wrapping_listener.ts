/**
 * A listener that puts each connection of another listener in a wrapper. Telnet and the trace are built on it.
 *
 * @module
 */

import { checkAccepted } from "../../internal/api/check.ts";
import type { Listener, Transport } from "../../internal/api/transport.ts";
import { ForwardingListener } from "./forwarding_listener.ts";

/** Wraps the connections of another listener. */
export class WrappingListener extends ForwardingListener {
  readonly #wrap: (transport: Transport) => Transport;

  /**
   * @param inner The other listener.
   * @param wrap Wraps one connection; it does not throw.
   */
  constructor(inner: Listener, wrap: (transport: Transport) => Transport) {
    super(inner);
    this.#wrap = wrap;
  }

  override async accept(): Promise<Transport> {
    const transport = await super.accept();
    // Wrapped, it would look like a transport, whatever it is.
    checkAccepted(transport);
    return this.#wrap(transport);
  }
}
