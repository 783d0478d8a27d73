/**
 * Buffers that are used again.
 *
 * @module
 */

/**
 * Unused buffers of one size, kept for reuse. A new buffer would cost a short connection 3 % of its time, and large
 * buffers that are left to the garbage collector stay in memory long after their connections.
 */
export class BufferPool {
  /** The size of each buffer, in bytes. */
  readonly bytes: number;
  readonly #maxBuffers: number;
  readonly #buffers: Uint8Array<ArrayBuffer>[] = [];

  /**
   * @param bytes The size of each buffer, in bytes.
   * @param maxBuffers Maximum number of unused buffers that are kept.
   */
  constructor(bytes: number, maxBuffers: number) {
    this.bytes = bytes;
    this.#maxBuffers = maxBuffers;
  }

  /** Returns an unused buffer, or a new one; its content is undefined. */
  take(): Uint8Array<ArrayBuffer> {
    return this.#buffers.pop() ?? new Uint8Array(this.bytes);
  }

  /** Keeps a buffer that is no longer used; one of another size, or beyond the maximum, is dropped. */
  give(buffer: Uint8Array<ArrayBuffer>): void {
    if (buffer.length === this.bytes && this.#buffers.length < this.#maxBuffers) this.#buffers.push(buffer);
  }
}

/** Maximum bytes of one read or write, and so of one block, unless one line or one body is longer. */
export const BLOCK_BYTES: number = 64 * 1024;

/** The pools that all connections of this process share, by size of buffer: some 5 MiB at most. */
const POOLS: Readonly<Record<number, BufferPool | undefined>> = Object.fromEntries(
  [[256, 1024], [1024, 512], [4096, 512], [16_384, 64], [65_536, 16]].map((
    [bytes, maxBuffers],
  ) => [bytes, new BufferPool(bytes, maxBuffers)]),
);

/** The sizes of the buffers that hold output, smallest first, in bytes. */
export const OUTPUT_BYTES = [4096, 16_384, 65_536] as const;

/** Returns a buffer of the given size; it may have been used before, so its content is undefined. */
export function takeBuffer(bytes: number): Uint8Array<ArrayBuffer> {
  return POOLS[bytes]?.take() ?? new Uint8Array(bytes);
}

/** Returns a buffer to its pool. No outstanding read or write, and no view, may use it any more. */
export function giveBuffer(buffer: Uint8Array<ArrayBuffer>): void {
  POOLS[buffer.length]?.give(buffer);
}
