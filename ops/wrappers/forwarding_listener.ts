/**
 * A listener that passes every call on to another listener.
 *
 * This folder holds what wrappers of listeners are built on: listeners (here, `wrapping_listener.ts`, and, where a
 * connection has something to do before it is accepted, `preparing_listener.ts`) and a connection whose first bytes have
 * been read already (`prefixed_transport.ts`); and two small wrappers, `trace.ts` and `telnet.ts` (with
 * `telnet_filter.ts`).
 *
 * @module
 */

import { type Listener, queuedIn, type Transport } from "../../internal/api/transport.ts";

/** Passes every call on to another listener, which it owns; a wrapper extends it and overrides what it changes. */
export class ForwardingListener implements Listener {
  /** The listener that gets the calls. */
  protected readonly inner: Listener;

  /** @param inner The listener that gets the calls. */
  constructor(inner: Listener) {
    this.inner = inner;
  }

  get addr(): Deno.Addr {
    return this.inner.addr;
  }

  get queued(): number {
    return queuedIn(this.inner);
  }

  accept(): Promise<Transport> {
    return this.inner.accept();
  }

  close(): void | Promise<void> {
    return this.inner.close();
  }

  ref(): void {
    this.inner.ref?.();
  }

  unref(): void {
    this.inner.unref?.();
  }
}
