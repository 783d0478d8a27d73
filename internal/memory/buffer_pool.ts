/**
 * Buffers that wait for their next use.
 *
 * @module
 */

/**
 * Empty buffers of one size. A short connection would spend 3 % of its time on a new one, and large ones that are left
 * to the collector outlast their connections by far.
 */
export class BufferPool {
  /** The size of each. */
  readonly bytes: number;
  readonly #maxBuffers: number;
  readonly #buffers: Uint8Array<ArrayBuffer>[] = [];

  /**
   * @param bytes The size of each.
   * @param maxBuffers How many are kept.
   */
  constructor(bytes: number, maxBuffers: number) {
    this.bytes = bytes;
    this.#maxBuffers = maxBuffers;
  }

  /** One that is empty; what it holds means nothing. */
  take(): Uint8Array<ArrayBuffer> {
    return this.#buffers.pop() ?? new Uint8Array(this.bytes);
  }

  /** Takes one back that nobody uses any more; one of another size is let go. */
  give(buffer: Uint8Array<ArrayBuffer>): void {
    if (buffer.length === this.bytes && this.#buffers.length < this.#maxBuffers) this.#buffers.push(buffer);
  }
}

/** The spares of all connections of this process, by size: some 5 MiB at most. */
const POOLS: Readonly<Record<number, BufferPool | undefined>> = Object.fromEntries(
  [[256, 1024], [1024, 512], [4096, 512], [16_384, 64], [65_536, 16]].map((
    [bytes, maxBuffers],
  ) => [bytes, new BufferPool(bytes, maxBuffers)]),
);

/** The sizes of buffers that hold text for a while, smallest first. */
export const OUTPUT_BYTES = [4096, 16_384, 65_536] as const;

/** Takes a buffer of a size, which may have been used before: what it holds means nothing. */
export function takeBuffer(bytes: number): Uint8Array<ArrayBuffer> {
  return POOLS[bytes]?.take() ?? new Uint8Array(bytes);
}

/** Gives a buffer back that nothing uses any more: neither a read or write that is outstanding, nor a view of it. */
export function giveBuffer(buffer: Uint8Array<ArrayBuffer>): void {
  POOLS[buffer.length]?.give(buffer);
}
