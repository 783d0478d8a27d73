/**
 * A connection whose first bytes have been read already.
 *
 * @module
 */

import { Forwarding, type Transport } from "../../internal/api/transport.ts";

const NOTHING = new Uint8Array(0);

/** Gives bytes that were read before it was made, and then those of another transport. */
export class PrefixedTransport extends Forwarding {
  #rest: Uint8Array;

  /**
   * @param inner The transport that the bytes were read from.
   * @param bytes The bytes, which must not change.
   */
  constructor(inner: Transport, bytes: Uint8Array) {
    super(inner);
    this.#rest = bytes;
  }

  override get heldBytes(): number {
    return super.heldBytes + this.#rest.buffer.byteLength;
  }

  override read(into: Uint8Array): Promise<number | null> {
    if (this.#rest.length === 0) return super.read(into);
    const part = this.#rest.subarray(0, into.length);
    into.set(part);
    // An empty part would keep the whole buffer in memory.
    this.#rest = part.length < this.#rest.length ? this.#rest.subarray(part.length) : NOTHING;
    return Promise.resolve(part.length);
  }
}
