/**
 * The limiter: takes bytes, and hands out blocks of whole lines or a breach of a limit; it does no input or output
 * itself. Line handlers and conversation handlers both get their lines from it, so the rules about line ends and sizes
 * are in one place.
 *
 * @module
 */

import type { Breach } from "../api/reasons.ts";
import { giveBuffer, takeBuffer } from "../memory/buffer_pool.ts";

/** The two sizes that the limiter enforces. */
export interface SizeLimits {
  /** Maximum length of a line, in bytes, without its line end. */
  readonly maxLineBytes: number;
  /** Maximum number of bytes in all. */
  readonly maxConnectionBytes: number;
}

const LF = 10;
const CR = 13;

/** Size of the buffer of a connection that sends little, in bytes. */
const SMALL_BYTES = 256;

/** Maximum bytes of one read, and so of one block, unless one line is longer. */
export const BLOCK_BYTES: number = 64 * 1024;

/**
 * A large buffer is given back after this many reads in a row that each filled less than 1/16 of it. One such read
 * alone may be a short pause of the peer.
 */
const QUIET_READS = 16;

const NONE = new Uint8Array(0);

/**
 * Cuts a stream of bytes into blocks of whole lines.
 *
 * The caller reads into {@linkcode space}, reports the number of bytes with {@linkcode added}, and gets the whole lines
 * from {@linkcode cut}; {@linkcode take} does both. Each byte is searched once and moved at most once, however the peer
 * cuts its segments, so a long line that is sent byte by byte costs linear work.
 */
export class Limiter {
  readonly #limits: SizeLimits;
  #buffer = takeBuffer(SMALL_BYTES);
  /**
   * The bytes at [#start, #end) have not been handed out; the bytes at [#kept, #start) have, and can still be taken
   * back. There is no LF in [#start, #searched).
   */
  #kept = 0;
  #start = 0;
  #searched = 0;
  #end = 0;
  readonly #keeps: boolean;
  /** Whether the last LF was added by {@linkcode end}, and not sent by the peer. */
  #terminated = false;
  #overLimit = false;
  /** Whether the last read filled its buffer, so that the kernel probably has more. */
  full = false;
  #smallReads = 0;
  /** The size of its buffer beyond that of the smallest buffer, in bytes. */
  extraBytes = 0;
  /** The number of bytes taken so far. */
  bytes = 0;
  /** The limit that was passed; nothing more is handed out after that. */
  breach: Breach | undefined;

  /**
   * @param limits The limits of size.
   * @param keeps Whether {@linkcode takeBack} can take lines back until {@linkcode release}.
   */
  constructor(limits: SizeLimits, keeps = false) {
    this.#limits = limits;
    this.#keeps = keeps;
  }

  /**
   * Whether there are bytes that have not been handed out. After {@linkcode cut}, they belong to a line that has begun.
   */
  get midLine(): boolean {
    return this.#end > this.#start;
  }

  /** The bytes of the unfinished line. */
  get held(): Uint8Array {
    return this.#buffer.subarray(this.#start, this.#end);
  }

  /** Whether more bytes can be read before the lines that have come are handed out. */
  get hasRoom(): boolean {
    return this.#end - this.#kept < BLOCK_BYTES;
  }

  /**
   * Returns the part of the buffer for the next bytes, which is never empty. The last block that was handed out is
   * invalid from then on, unless it can be taken back.
   *
   * @param tight Whether memory is short: the buffer is only as large as the line that has begun in it needs.
   */
  space(tight = false): Uint8Array {
    const kept = this.#kept;
    const held = this.#end - kept;
    if (kept > 0) this.#buffer.copyWithin(0, kept, this.#end);
    this.#searched -= kept;
    this.#start -= kept;
    this.#kept = 0;
    this.#end = held;
    const size = tight ? this.#leastSize(held) : this.#nextSize(held);
    if (size !== this.#buffer.length) {
      const buffer = takeBuffer(size);
      buffer.set(this.#buffer.subarray(0, held));
      giveBuffer(this.#buffer);
      this.#buffer = buffer;
      this.extraBytes = size - SMALL_BYTES;
    }
    return held === 0 ? this.#buffer : this.#buffer.subarray(held);
  }

  /** Makes a full buffer four times as large, and a buffer small again that has been too large for many reads. */
  #nextSize(held: number): number {
    const size = this.#buffer.length;
    if (this.full) {
      const most = held === size ? this.#limits.maxLineBytes + 2 : BLOCK_BYTES;
      return Math.max(size, Math.min(size * 4, Math.max(most, BLOCK_BYTES)));
    }
    return held === 0 && this.#smallReads >= QUIET_READS ? SMALL_BYTES : size;
  }

  /** The smallest size of a buffer that has room behind `held` bytes. */
  #leastSize(held: number): number {
    let size = SMALL_BYTES;
    while (size <= held) size *= 4;
    return Math.min(size, Math.max(this.#limits.maxLineBytes + 2, BLOCK_BYTES));
  }

  /**
   * Gives a large buffer back if no line has begun in it. The last block that was handed out is invalid from then on.
   */
  letGo(): void {
    if (this.#end > this.#kept || this.extraBytes === 0) return;
    giveBuffer(this.#buffer);
    this.#buffer = takeBuffer(SMALL_BYTES);
    this.extraBytes = 0;
    this.#kept =
      this.#start =
      this.#searched =
      this.#end =
        0;
  }

  /** Gives the buffer back for good. No read into it may be outstanding. */
  free(): void {
    giveBuffer(this.#buffer);
    this.#buffer = NONE;
    this.#kept =
      this.#start =
      this.#searched =
      this.#end =
        0;
  }

  /**
   * Takes `count` bytes that were read into {@linkcode space}.
   *
   * @returns One or more whole lines with their line ends, valid until the next call of {@linkcode space};
   * `undefined` if no line ended.
   */
  take(count: number): Uint8Array<ArrayBuffer> | undefined {
    this.added(count);
    return this.cut();
  }

  /** Notes that `count` bytes were read into {@linkcode space}. */
  added(count: number): void {
    this.full = this.#end + count === this.#buffer.length;
    this.#smallReads = count * QUIET_READS < this.#buffer.length ? this.#smallReads + 1 : 0;
    const over = this.bytes + count - this.#limits.maxConnectionBytes;
    this.bytes += count;
    this.#end += over > 0 ? Math.max(0, count - over) : count;
    if (over > 0) this.#overLimit = true;
  }

  /**
   * Hands out the whole lines that have come.
   *
   * @returns One or more whole lines with their line ends, valid until the next call of {@linkcode space};
   * `undefined` if there is none.
   */
  cut(): Uint8Array<ArrayBuffer> | undefined {
    if (this.breach !== undefined) return undefined;
    const block = this.#cut();
    if (this.#overLimit) this.breach ??= "byte-limit";
    return block;
  }

  /**
   * Ends the input. An unfinished last line counts as a line.
   *
   * @returns That line with an LF, or `undefined` if there is none.
   */
  end(): Uint8Array<ArrayBuffer> | undefined {
    if (this.breach !== undefined || !this.midLine) return undefined;
    this.space()[0] = LF;
    this.#end++;
    this.#terminated = true;
    return this.#cut();
  }

  /**
   * Hands out all bytes that have come, or only their whole lines if a limit was passed; `undefined` if there are none.
   */
  all(): Uint8Array<ArrayBuffer> | undefined {
    if (this.#overLimit) this.#end = Math.max(this.#start, lastLineEnd(this.#buffer, this.#start, this.#end));
    const bytes = this.#buffer.subarray(this.#start, this.#end);
    this.#kept = this.#start = this.#searched = this.#end;
    if (this.#overLimit) this.breach ??= "byte-limit";
    return bytes.length > 0 ? bytes : undefined;
  }

  /** Notes that the lines handed out so far will not be taken back. */
  release(): void {
    this.#kept = this.#start;
  }

  /** Takes back the last `lines` lines that were handed out; they will be handed out again. */
  takeBack(lines: number): void {
    let start = this.#start;
    for (let left = lines; left > 0; left--) {
      start = this.#buffer.subarray(this.#kept, start - 1).lastIndexOf(LF) + this.#kept + 1;
    }
    if (this.#terminated) this.#end--;
    this.#terminated = false;
    this.#start = this.#searched = start;
    this.release();
  }

  #cut(): Uint8Array<ArrayBuffer> | undefined {
    const buffer = this.#buffer;
    const start = this.#start;
    let end = lastLineEnd(buffer, this.#searched, this.#end) || start;
    if (end - start > this.#limits.maxLineBytes) end = this.#cutAtBreach(end);
    this.#kept = this.#keeps ? start : end;
    this.#start = end;
    this.#searched = this.#end;
    if (this.breach === undefined && this.#tooLong(end, this.#end)) this.breach = "line-too-long";
    return end > start ? buffer.subarray(start, end) : undefined;
  }

  /** Finds the first line that is too long. Only a block that is longer than `maxLineBytes` can hold one. */
  #cutAtBreach(end: number): number {
    for (let start = this.#start, search = this.#searched; start < end;) {
      const lineEnd = this.#buffer.indexOf(LF, search);
      if (this.#tooLong(start, lineEnd)) {
        this.breach = "line-too-long";
        return start;
      }
      start = search = lineEnd + 1;
    }
    return end;
  }

  /** Whether a line is too long. A CR at its end may belong to the line end, so it is not counted. */
  #tooLong(start: number, end: number): boolean {
    const length = end - start - this.#limits.maxLineBytes;
    return length > 1 || length === 1 && this.#buffer[end - 1] !== CR;
  }
}

/**
 * Returns where the last whole line in [from, end) ends, or 0. Most reads end with a line end, so it looks there first.
 */
function lastLineEnd(buffer: Uint8Array, from: number, end: number): number {
  if (buffer[end - 1] === LF && end > from) return end;
  const last = buffer.subarray(from, end).lastIndexOf(LF);
  return last < 0 ? 0 : from + last + 1;
}
