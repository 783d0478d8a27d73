/**
 * The pure limiter: bytes in; blocks of whole lines, or a breach, out. Both doors of a connection stand behind it, so
 * that the rules about line ends and sizes are in one place.
 *
 * @module
 */

import type { Breach } from "../api/reasons.ts";
import { giveBuffer, takeBuffer } from "../memory/buffer_pool.ts";

/** The two sizes that the limiter enforces. */
export interface SizeLimits {
  /** The longest line that passes, in bytes, without its line end. */
  readonly maxLineBytes: number;
  /** How many bytes pass in all. */
  readonly maxConnectionBytes: number;
}

const LF = 10;
const CR = 13;

/** What a connection holds while it is quiet. */
const SMALL_BYTES = 256;

/** The largest read, and so the largest block, unless one line is longer. */
export const BLOCK_BYTES: number = 64 * 1024;

/** So many reads in a row that each use less than this part of a large buffer give it back; one alone is a pause. */
const QUIET_READS = 16;

const NONE = new Uint8Array(0);

/**
 * Cuts a stream of bytes into blocks of whole lines.
 *
 * The caller reads into {@linkcode space}, reports with {@linkcode added} how much came, and asks for what can be handed
 * out with {@linkcode cut}; {@linkcode take} does both. Each byte is searched once
 * and moved at most once, however the peer cuts its segments, so that a long line sent byte by byte costs linear work.
 */
export class Limiter {
  readonly #limits: SizeLimits;
  #buffer = takeBuffer(SMALL_BYTES);
  /**
   * What has not been handed out lies at [#start, #end), and what can still be taken back at [#kept, #start); no LF lies
   * in [#start, #searched).
   */
  #kept = 0;
  #start = 0;
  #searched = 0;
  #end = 0;
  readonly #keeps: boolean;
  /** Whether the last LF is not the peer's. */
  #terminated = false;
  #overLimit = false;
  /** Whether the last read filled its buffer, so that more is likely to be there already. */
  full = false;
  #smallReads = 0;
  /** How many bytes of memory it holds beyond the least. */
  extraBytes = 0;
  /** Bytes taken so far. */
  bytes = 0;
  /** Set once, when a limit is passed; nothing more comes out then. */
  breach: Breach | undefined;

  /**
   * @param limits The sizes.
   * @param keeps Whether a block that was handed out can be taken back until {@linkcode release}.
   */
  constructor(limits: SizeLimits, keeps = false) {
    this.#limits = limits;
    this.#keeps = keeps;
  }

  /** Whether there are bytes that have not been handed out: once {@linkcode cut} has been asked, of a line that has begun. */
  get midLine(): boolean {
    return this.#end > this.#start;
  }

  /** What has come of the unfinished line. */
  get held(): Uint8Array {
    return this.#buffer.subarray(this.#start, this.#end);
  }

  /** Whether there is room for more without a block having been asked for. */
  get hasRoom(): boolean {
    return this.#end - this.#kept < BLOCK_BYTES;
  }

  /**
   * Where the next bytes go: never empty, and the end of the last block's life, unless that is kept.
   *
   * @param tight Whether memory is short, so that a buffer is only as large as the line that has begun in it needs.
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

  /** A full buffer grows fourfold; one that has been too large for a while becomes small again. */
  #nextSize(held: number): number {
    const size = this.#buffer.length;
    if (this.full) {
      const most = held === size ? this.#limits.maxLineBytes + 2 : BLOCK_BYTES;
      return Math.max(size, Math.min(size * 4, Math.max(most, BLOCK_BYTES)));
    }
    return held === 0 && this.#smallReads >= QUIET_READS ? SMALL_BYTES : size;
  }

  /** The smallest of these sizes in which there is room behind so many bytes. */
  #leastSize(held: number): number {
    let size = SMALL_BYTES;
    while (size <= held) size *= 4;
    return Math.min(size, Math.max(this.#limits.maxLineBytes + 2, BLOCK_BYTES));
  }

  /** Lets a large buffer go in which no line has begun; a block that was handed out is done with. */
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

  /** Takes no more bytes, and lets its buffer go, into which no read must be outstanding. */
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
   * Takes the `count` bytes that were put into {@linkcode space}.
   *
   * @returns One or more whole lines with their line ends, valid until the next call of {@linkcode space};
   * `undefined` if no line ended.
   */
  take(count: number): Uint8Array<ArrayBuffer> | undefined {
    this.added(count);
    return this.cut();
  }

  /** Notes that `count` bytes were put into {@linkcode space}. */
  added(count: number): void {
    this.full = this.#end + count === this.#buffer.length;
    this.#smallReads = count * QUIET_READS < this.#buffer.length ? this.#smallReads + 1 : 0;
    const over = this.bytes + count - this.#limits.maxConnectionBytes;
    this.bytes += count;
    this.#end += over > 0 ? Math.max(0, count - over) : count;
    if (over > 0) this.#overLimit = true;
  }

  /**
   * Cuts off the whole lines that have come.
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
   * Ends the input: an unterminated last line is a line too.
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

  /** Hands out all bytes that have come, whatever lines they hold, but at a breach only whole lines; `undefined` for none. */
  all(): Uint8Array<ArrayBuffer> | undefined {
    if (this.#overLimit) this.#end = Math.max(this.#start, lastLineEnd(this.#buffer, this.#start, this.#end));
    const bytes = this.#buffer.subarray(this.#start, this.#end);
    this.#kept = this.#start = this.#searched = this.#end;
    if (this.#overLimit) this.breach ??= "byte-limit";
    return bytes.length > 0 ? bytes : undefined;
  }

  /** A block that was handed out will not be taken back. */
  release(): void {
    this.#kept = this.#start;
  }

  /** Takes back the last of the lines that were handed out, so that they are handed out again. */
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

  /** Only a block that is longer than the longest line can hold a line that is too long, so only it is walked through. */
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

  /** A CR at the end may be half of the line end, so it is not counted yet. */
  #tooLong(start: number, end: number): boolean {
    const length = end - start - this.#limits.maxLineBytes;
    return length > 1 || length === 1 && this.#buffer[end - 1] !== CR;
  }
}

/** Where the last whole line in [from, end) ends, or 0. Most reads end with a line, so the last byte is tried first. */
function lastLineEnd(buffer: Uint8Array, from: number, end: number): number {
  if (buffer[end - 1] === LF && end > from) return end;
  const last = buffer.subarray(from, end).lastIndexOf(LF);
  return last < 0 ? 0 : from + last + 1;
}
