/**
 * Memory for unfinished lines, which all connections of a server share.
 *
 * @module
 */

/** Somebody who takes of it. */
interface Holder {
  /** How many bytes its unfinished line takes. */
  readonly unfinishedBytes: number;
  /** Gives them back at once. */
  giveWay(): void;
}

/** Keeps count of the memory; when there is too little, the largest unfinished line gives way. */
export class Budget {
  readonly #maxBytes: number;
  readonly #holders: Iterable<Holder>;
  #bytes = 0;

  /**
   * @param maxBytes How much there is.
   * @param holders Who takes of it.
   */
  constructor(maxBytes: number, holders: Iterable<Holder>) {
    this.#maxBytes = maxBytes;
    this.#holders = holders;
  }

  /** Whether more than half is taken: from here on, buffers are given back as soon as they are empty. */
  get tight(): boolean {
    return this.#bytes > this.#maxBytes / 2;
  }

  /** Notes that somebody takes so many bytes more, or fewer. */
  take(bytes: number): void {
    this.#bytes += bytes;
    while (bytes > 0 && this.#bytes > this.#maxBytes) {
      const largest = this.#largest();
      if (largest === undefined) return;
      largest.giveWay();
    }
  }

  #largest(): Holder | undefined {
    let largest: Holder | undefined;
    for (const holder of this.#holders) {
      if (holder.unfinishedBytes > (largest?.unfinishedBytes ?? 0)) largest = holder;
    }
    return largest;
  }
}
