/**
 * A connection whose outstanding read another reader takes over.
 *
 * @module
 */

import { harmless } from "../api/errors.ts";
import { Forwarding, type Transport } from "../api/transport.ts";

const NOTHING = new Uint8Array(0);

/** Gives the bytes of a read that is outstanding when it is made, and then those of further reads. */
export class TakenRead extends Forwarding {
  /** The read; undefined once its bytes have come. */
  #read: Promise<Uint8Array | null> | undefined;
  /** Its bytes, as far as they have not been given. */
  #rest: Uint8Array = NOTHING;

  /**
   * @param inner The transport of which a read is outstanding.
   * @param read Resolves with the bytes of that read, or null at the end of input.
   */
  constructor(inner: Transport, read: Promise<Uint8Array | null>) {
    super(inner);
    // It may fail before the next read, which reports that.
    this.#read = harmless(read);
  }

  override read(into: Uint8Array): Promise<number | null> {
    return this.#read === undefined && this.#rest.length === 0 ? super.read(into) : this.#take(into);
  }

  async #take(into: Uint8Array): Promise<number | null> {
    if (this.#read !== undefined) {
      const bytes = await this.#read;
      this.#read = undefined;
      if (bytes === null) return null;
      this.#rest = bytes;
    }
    const part = this.#rest.subarray(0, into.length);
    into.set(part);
    // An empty part would keep the whole buffer in memory.
    this.#rest = part.length < this.#rest.length ? this.#rest.subarray(part.length) : NOTHING;
    return part.length;
  }
}
