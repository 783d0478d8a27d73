/**
 * Buffers that are used again.
 *
 * @module
 */

/** Maximum bytes of one read or write, and so of one block, unless one line or one body is longer. */
export const BLOCK_BYTES: number = 64 * 1024;

/** Unused buffers of one size, and how many are kept at most. */
interface Pool {
  readonly buffers: Uint8Array<ArrayBuffer>[];
  readonly maxBuffers: number;
}

/**
 * The pools that all connections of this process share, by size of buffer: some 5 MiB at most. A new buffer would cost a
 * short connection 3 % of its time, and large buffers that are left to the garbage collector stay in memory long after
 * their connections.
 */
const POOLS: Readonly<Record<number, Pool | undefined>> = Object.fromEntries(
  [[256, 1024], [1024, 512], [4096, 512], [16_384, 64], [65_536, 16]].map((
    [bytes, maxBuffers],
  ) => [bytes, { buffers: [], maxBuffers }]),
);

/** The sizes of the buffers that hold output, smallest first, in bytes. */
export const OUTPUT_BYTES = [4096, 16_384, 65_536] as const;

/** Returns a buffer of the given size; it may have been used before, so its content is undefined. */
export function takeBuffer(bytes: number): Uint8Array<ArrayBuffer> {
  return POOLS[bytes]?.buffers.pop() ?? new Uint8Array(bytes);
}

/**
 * Returns a buffer to its pool; one beyond the pool's maximum, or of another size, is dropped. No outstanding read or write,
 * and no view, may use it any more.
 */
export function giveBuffer(buffer: Uint8Array<ArrayBuffer>): void {
  const pool = POOLS[buffer.length];
  if (pool !== undefined && pool.buffers.length < pool.maxBuffers) pool.buffers.push(buffer);
}
