/**
 * Memory for unfinished lines, which all connections of a server share.
 *
 * @module
 */

import { type Member, Roster } from "./roster.ts";

/** Somebody who takes of it. */
export interface Holder {
  /** Whether a line has begun in its memory and not ended. */
  readonly midLine: boolean;
  /** Gives its memory back at once. */
  giveWay(): void;
}

/** What somebody takes of it. */
export class Share implements Member {
  place = 0;
  readonly holder: Holder;
  readonly bytes: number;

  constructor(holder: Holder, bytes: number) {
    this.holder = holder;
    this.bytes = bytes;
  }
}

/** Keeps count of the memory; when there is too little, the largest unfinished line gives way. */
export class Budget {
  readonly #maxBytes: number;
  /** By their bytes, as buffers come in few sizes: with thousands of connections, to look at each of them takes 1 ms. */
  readonly #shares = new Map<number, Roster<Share>>();
  #bytes = 0;

  /** @param maxBytes How much there is. */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** Whether more than half is taken: from here on, buffers are no larger than what has begun in them needs. */
  get tight(): boolean {
    return this.#bytes > this.#maxBytes / 2;
  }

  /** Takes a share, without asking whether there is so much. */
  take(holder: Holder, bytes: number): Share {
    const share = new Share(holder, bytes);
    this.#bytes += bytes;
    let shares = this.#shares.get(bytes);
    if (shares === undefined) this.#shares.set(bytes, shares = new Roster());
    shares.add(share);
    return share;
  }

  /** Gives a share back. */
  giveBack(share: Share): void {
    this.#bytes -= share.bytes;
    this.#shares.get(share.bytes)!.delete(share);
  }

  /** Has the largest unfinished lines give way, until what is taken is there, or nobody can. */
  settle(): void {
    while (this.#bytes > this.#maxBytes) {
      const largest = this.#largest();
      if (largest === undefined) return;
      largest.giveWay();
    }
  }

  #largest(): Holder | undefined {
    for (const bytes of [...this.#shares.keys()].sort((a, b) => b - a)) {
      for (const { holder } of this.#shares.get(bytes)!) if (holder.midLine) return holder;
    }
  }
}
