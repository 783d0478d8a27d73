/**
 * The input of one connection that has come and has not been handed out.
 *
 * @module
 */

import { BLOCK_BYTES, giveBuffer, takeBuffer } from "../memory/buffer_pool.ts";

/** Size of the buffer of a connection that sends little, in bytes. */
const SMALL_BYTES = 256;

/**
 * A large buffer is given back after this many reads in a row that each filled less than 1/16 of it. One such read
 * alone may be a short pause of the peer.
 */
const QUIET_READS = 16;

/** Stand for a buffer that was given back for good: without input in it, and with some. */
const NONE = new Uint8Array(0);
const CUT = new Uint8Array(0);

/**
 * A buffer that grows while it is used. The caller reads into {@linkcode space}, reports the number of bytes with
 * {@linkcode added}, and takes what it has used with {@linkcode skip}. Each byte is moved at most once per growth,
 * however the peer cuts its segments.
 */
export class InputBuffer {
  /** The input is at [start, end) of these bytes. Only this class writes these fields, but for `searched`. */
  bytes: Uint8Array<ArrayBuffer> = takeBuffer(SMALL_BYTES);
  start = 0;
  end = 0;
  /** The index up to which the current reader has searched the input. Skipped bytes count as searched. */
  searched = 0;
  /** The number of bytes that were skipped so far: the position of `start` in the whole input. */
  position = 0;
  /** The index up to which bytes have come: those in [end, filledTo) are beyond the maximum, unless that is raised. */
  #filledTo = 0;
  /** Whether the last read filled its buffer, so that the kernel probably has more. */
  full = false;
  #smallReads = 0;
  /** Maximum number of bytes in all; `undefined`, which takes less memory than `Infinity`, for none. */
  #maxTotal: number | undefined;

  /** @param maxTotal Maximum number of bytes in all. */
  constructor(maxTotal: number) {
    this.maxTotal = maxTotal;
  }

  /** Changes the maximum number of bytes in all, also for those that have come. */
  set maxTotal(bytes: number) {
    this.#maxTotal = bytes === Infinity ? undefined : bytes;
    this.#limit();
  }

  /** Whether more than the maximum has come. */
  get overLimit(): boolean {
    return this.#filledTo > this.end;
  }

  #limit(): void {
    const most = this.#maxTotal === undefined ? Infinity : Math.max(0, this.#maxTotal - this.position);
    this.end = Math.min(this.#filledTo, this.start + most);
    this.searched = Math.min(this.searched, this.end);
  }

  /** The number of bytes of input. */
  get size(): number {
    return this.end - this.start;
  }

  /** Whether more bytes can be read before those that have come are handed out. */
  get hasRoom(): boolean {
    return this.#filledTo - this.start < BLOCK_BYTES;
  }

  /** The size of its buffer beyond that of the smallest buffer, in bytes. */
  get extraBytes(): number {
    return Math.max(0, this.bytes.length - SMALL_BYTES);
  }

  /** The size of the last {@linkcode space} that was asked for, in bytes, until something is added. */
  get spaceBytes(): number {
    return this.bytes.length - this.#filledTo;
  }

  /**
   * Returns the part of the buffer for the next bytes, which is never empty. It may move the input to another buffer.
   *
   * @param most Maximum size of the input that its reader waits for, such as that of a line with its end.
   * @param tight Whether memory is short: the buffer is only as large as the input in it needs.
   */
  space(most: number, tight = false): Uint8Array {
    const held = this.#filledTo - this.start;
    if (this.start > 0) this.bytes.copyWithin(0, this.start, this.#filledTo);
    this.searched -= this.start;
    this.end -= this.start;
    this.start = 0;
    this.#filledTo = held;
    const size = tight ? leastSize(held, most) : this.#nextSize(held, most);
    if (size !== this.bytes.length) this.#resize(size);
    return held === 0 ? this.bytes : this.bytes.subarray(held);
  }

  #resize(size: number): void {
    const bytes = takeBuffer(size);
    bytes.set(this.bytes.subarray(0, this.#filledTo));
    giveBuffer(this.bytes);
    this.bytes = bytes;
  }

  /** Makes a full buffer four times as large, and a buffer small again that has been too large for many reads. */
  #nextSize(held: number, most: number): number {
    const size = this.bytes.length;
    if (this.full) {
      const enough = Math.max(BLOCK_BYTES, held === size ? Math.max(most, held + 1) : 0);
      return Math.max(size, Math.min(size * 4, enough));
    }
    if (held === size) return leastSize(held, most);
    if (held > 0) return size;
    return this.#smallReads >= QUIET_READS ? SMALL_BYTES : Math.min(size, BLOCK_BYTES);
  }

  /** Notes that `count` bytes were read into {@linkcode space}. */
  added(count: number): void {
    this.#filledTo += count;
    this.full = this.#filledTo === this.bytes.length;
    this.#smallReads = count * QUIET_READS < this.bytes.length ? this.#smallReads + 1 : 0;
    this.#limit();
  }

  /** Notes that `count` bytes were read into {@linkcode space}, and drops them. */
  dropped(count: number): void {
    this.full = this.#filledTo + count === this.bytes.length;
  }

  /** Adds one byte of the caller's to the input. */
  append(byte: number, most: number): void {
    this.space(most)[0] = byte;
    this.end = ++this.#filledTo;
  }

  /** Has the next read search all that has come: it may look for something else. */
  searchAnew(): void {
    this.searched = this.start;
  }

  /** Removes the first `count` bytes of the input. They stay where they are until {@linkcode space}. */
  skip(count: number): void {
    this.start += count;
    this.position += count;
    if (this.searched < this.start) this.searched = this.start;
  }

  /** Returns a copy of the first `count` bytes of the input, and removes them. */
  take(count: number): Uint8Array<ArrayBuffer> {
    const bytes = this.bytes.slice(this.start, this.start + count);
    this.skip(count);
    return bytes;
  }

  /** Gives a large buffer back if no input is in it, and returns whether it did. Nothing may use its bytes from then on. */
  letGo(): boolean {
    if (this.#filledTo > this.start || this.extraBytes === 0) return false;
    giveBuffer(this.bytes);
    this.#begin(takeBuffer(SMALL_BYTES));
    return true;
  }

  /**
   * Gives the buffer away to a read that is outstanding, while no input is in it, and takes another one.
   *
   * @returns The part of the buffer that the read fills.
   */
  giveAway(): Uint8Array<ArrayBuffer> {
    const space = this.bytes.subarray(this.#filledTo);
    this.#begin(takeBuffer(SMALL_BYTES));
    return space;
  }

  /** Whether the buffer was given back for good. */
  get freed(): boolean {
    return this.bytes === NONE || this.bytes === CUT;
  }

  /** Whether input was in it then, which is lost. */
  get cutOff(): boolean {
    return this.bytes === CUT;
  }

  /** Gives the buffer back for good, and drops the input. No read into it may be outstanding. */
  free(): void {
    const rest = this.size > 0 || this.cutOff ? CUT : NONE;
    giveBuffer(this.bytes);
    this.#begin(rest);
  }

  /** Goes on with another buffer, in which there is no input. */
  #begin(bytes: Uint8Array<ArrayBuffer>): void {
    this.bytes = bytes;
    this.start =
      this.searched =
      this.end =
      this.#filledTo =
        0;
  }
}

/** The smallest size of a buffer that has room behind `held` bytes. */
function leastSize(held: number, most: number): number {
  let size = SMALL_BYTES;
  while (size <= held) size *= 4;
  return Math.max(held + 1, Math.min(size, Math.max(most, BLOCK_BYTES)));
}

/**
 * Finds bytes in a part of others.
 *
 * @param bytes The bytes to search.
 * @param wanted The bytes to find.
 * @param from The index at which to begin.
 * @param end The index at which to stop.
 * @returns The index of the first occurrence that ends before `end`; -1 if there is none.
 */
export function indexOfBytes(bytes: Uint8Array, wanted: Uint8Array, from: number, end: number): number {
  const last = end - wanted.length;
  // A search would go on in what lies behind the input; to make a view takes as long as to search some 500 bytes.
  const part = bytes.length - end > 512 ? bytes.subarray(0, end) : bytes;
  for (let at = part.indexOf(wanted[0], from); at >= 0 && at <= last; at = part.indexOf(wanted[0], at + 1)) {
    let same = 1;
    while (same < wanted.length && bytes[at + same] === wanted[same]) same++;
    if (same === wanted.length) return at;
  }
  return -1;
}

/**
 * Size in bytes of the part in which several byte sequences are looked for first. One that is rare would otherwise be
 * looked for in all that has come, again and again, while another one ends each of many short messages.
 */
const FIRST_PART_BYTES = 1024;

/**
 * Finds the first of several byte sequences to end in [from, end); of two that end together, the longer one. So what is
 * found does not depend on how many bytes have come behind it.
 *
 * @returns Where it begins, and its length; undefined if there is none.
 */
export function firstToEnd(
  bytes: Uint8Array,
  wanted: readonly Uint8Array[],
  from: number,
  end: number,
): { at: number; length: number } | undefined {
  if (wanted.length === 1) return firstIn(bytes, wanted, from, end);
  for (let size = FIRST_PART_BYTES;; size *= 4) {
    const until = Math.min(from + size, end);
    const found = firstIn(bytes.subarray(0, until), wanted, from, until);
    if (found !== undefined || until === end) return found;
  }
}

function firstIn(
  bytes: Uint8Array,
  wanted: readonly Uint8Array[],
  from: number,
  end: number,
): { at: number; length: number } | undefined {
  let found: { at: number; length: number } | undefined;
  for (const one of wanted) {
    const at = indexOfBytes(bytes, one, from, end);
    if (at < 0 || found !== undefined && at + one.length === end && at >= found.at) continue;
    found = { at, length: one.length };
    end = at + one.length;
  }
  return found;
}

/** Returns how many of the last bytes in [from, end) are a beginning of `wanted`, but not the whole of it. */
export function begunBytes(bytes: Uint8Array, wanted: Uint8Array, from: number, end: number): number {
  for (let count = Math.min(wanted.length - 1, end - from); count > 0; count--) {
    let same = 0;
    while (same < count && bytes[end - count + same] === wanted[same]) same++;
    if (same === count) return count;
  }
  return 0;
}
