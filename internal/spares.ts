/**
 * Buffers that wait for their next use.
 *
 * @module
 */

/** Empty buffers of one size: a short connection would spend 3 % of its time on a new one. */
export class Spares {
  /** The size of each. */
  readonly bytes: number;
  readonly #most: number;
  readonly #spares: Uint8Array<ArrayBuffer>[] = [];

  /**
   * @param bytes The size of each.
   * @param most How many are kept.
   */
  constructor(bytes: number, most: number) {
    this.bytes = bytes;
    this.#most = most;
  }

  /** One that is empty; what it holds means nothing. */
  take(): Uint8Array<ArrayBuffer> {
    return this.#spares.pop() ?? new Uint8Array(this.bytes);
  }

  /** Takes one back that nobody uses any more; one of another size is let go. */
  give(buffer: Uint8Array<ArrayBuffer>): void {
    if (buffer.length === this.bytes && this.#spares.length < this.#most) this.#spares.push(buffer);
  }
}
