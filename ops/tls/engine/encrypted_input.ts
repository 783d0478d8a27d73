/**
 * Encrypted input: the buffer for it, which grows while the peer sends much, and where its records end.
 *
 * @module
 */

import { giveBuffer, takeBuffer } from "../../../internal/memory/buffer_pool.ts";
import { TURN_BYTES } from "../../../internal/time/turns.ts";

/**
 * The sizes of the buffer in bytes. It starts small: most connections wait for their peer most of the time. The third
 * has room for the largest record of TLS 1.3.
 */
const SIZES = [1024, 4 * 1024, 17 * 1024, 64 * 1024] as const;

/**
 * Number of reads in a row that take no more than a quarter of the buffer, after which it shrinks. If it shrank at once,
 * it would grow anew with each record of 16 KiB, which takes a tenth of the time of such a line. The largest size does
 * shrink at once: a peer that has sent much and is silent then would hold it.
 */
const SMALL_READS = 4;

/** Time of decrypting, in milliseconds, that counts as the work of one turn; the buffer grows only below it. */
const TURN_MS = 1;

/**
 * A buffer whose size follows what the last read took. The work of a read is measured by its time: a message that changes
 * the keys has some 30 bytes, and takes as long as a hundred kilobytes of text.
 */
export class ReadBuffer {
  /** Undefined while a buffer of the largest size is not needed. */
  #bytes: Uint8Array<ArrayBuffer> | undefined = new Uint8Array(SIZES[0]);
  /** Maximum size of the part that the present read may fill. */
  #partBytes = Infinity;
  /** The work of the last read, in bytes, if it filled its part of the buffer; 0 otherwise. */
  work = 0;
  /** The place of the size in the list, and how many small reads there were in a row. */
  #place = 0;
  #smallReads = 0;

  /** Where the next read puts its bytes. */
  get bytes(): Uint8Array<ArrayBuffer> {
    return this.#bytes ??= takeBuffer(SIZES[this.#place]);
  }

  /**
   * The part of it that a read may fill: not much more than fits into the buffer that the decrypted bytes go to. The rest
   * would wait in memory, in no account, for as long as a handler works.
   *
   * @param into The size of that buffer, in bytes.
   */
  part(into: number): Uint8Array<ArrayBuffer> {
    const { bytes } = this;
    this.#partBytes = Math.max(into, SIZES[0]);
    return bytes.length > this.#partBytes ? bytes.subarray(0, this.#partBytes) : bytes;
  }

  /** Whether a read has filled the part that it was given, so that there is probably more. */
  isFull(count: number): boolean {
    return count === Math.min(this.#partBytes, this.bytes.length);
  }

  /** Lets go of a large buffer until the next read, before which a handler may work for long. Nothing is in it. */
  rest(): void {
    if (this.#bytes?.length !== SIZES[3]) return;
    giveBuffer(this.#bytes);
    this.#bytes = undefined;
  }

  /** Number of bytes by which the buffer is larger than at the start. */
  get grownBytes(): number {
    return (this.#bytes?.length ?? SIZES[0]) - SIZES[0];
  }

  /**
   * Sets the work and the size of the next read.
   *
   * @param count The number of bytes that the last read got.
   * @param ms How long it took to decrypt them, in milliseconds; of no matter unless they fill their part of the buffer.
   */
  adapt(count: number, ms: number): void {
    const { length } = this.bytes;
    const full = this.isFull(count);
    this.work = full ? Math.max(count, ms / TURN_MS * TURN_BYTES) : 0;
    this.#smallReads = 4 * count <= length ? this.#smallReads + 1 : 0;
    const slow = full && ms >= TURN_MS;
    if (count === length && !slow) this.#resize(this.#place + 1);
    else if (slow || !full && length === SIZES[3] || this.#smallReads === SMALL_READS) this.#resize(this.#place - 1);
  }

  #resize(place: number): void {
    this.#smallReads = 0;
    this.#place = Math.max(0, Math.min(place, SIZES.length - 1));
    const size = SIZES[this.#place];
    if (size !== this.bytes.length) this.#bytes = size === SIZES[3] ? undefined : new Uint8Array(size);
  }
}

/** Length of a TLS record's header in bytes: type, version, and the length of its content. */
const HEADER_BYTES = 5;

/** The type of the records of text. In TLS 1.3, also that of all other encrypted records. */
const APPLICATION_DATA = 23;

/**
 * Whether the first bytes of a buffer are one whole record that says that it is text, as most reads of short lines are. A
 * read that begins within a record can look like one by chance.
 *
 * @param bytes The buffer.
 * @param count The number of the bytes.
 */
export function isText(bytes: Uint8Array, count: number): boolean {
  return bytes[0] === APPLICATION_DATA && HEADER_BYTES + (bytes[3] << 8) + bytes[4] === count;
}

/** Cuts a stream of bytes at the ends of TLS records. */
export class RecordCutter {
  /** Number of bytes received of the present record, and its length, which the header tells. */
  #received = 0;
  #length = HEADER_BYTES;
  #whole: PromiseWithResolvers<void> | undefined;

  /** Whether a record has begun whose rest has not come. */
  get isWithin(): boolean {
    return this.#received > 0;
  }

  /** Settles when the rest of the record has come; undefined if none has begun. */
  get whole(): Promise<void> | undefined {
    return this.isWithin ? (this.#whole ??= Promise.withResolvers()).promise : undefined;
  }

  /** Follows the next bytes without cutting them. */
  follow(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) at = this.#take(bytes, at);
  }

  /** Cuts the next bytes. Each part ends at the end of a record, except the last, which may be unfinished. */
  *cut(bytes: Uint8Array): Generator<Uint8Array> {
    let start = 0;
    for (let at = 0; at < bytes.length;) {
      at = this.#take(bytes, at);
      if (this.isWithin) continue;
      yield bytes.subarray(start, at);
      start = at;
    }
    if (start < bytes.length) yield bytes.subarray(start);
  }

  /** Takes the rest of a record, as far as it has come, or a byte of a header that is cut; returns where it ends. */
  #take(bytes: Uint8Array, at: number): number {
    const left = bytes.length - at;
    let step = 1;
    if (this.#received === 0 && left >= HEADER_BYTES) {
      this.#length += (bytes[at + 3] << 8) + bytes[at + 4];
      step = Math.min(this.#length, left);
    } else if (this.#received >= HEADER_BYTES) step = Math.min(this.#length - this.#received, left);
    else if (this.#received === 3) this.#length += bytes[at] << 8;
    else if (this.#received === 4) this.#length += bytes[at];
    this.#received += step;
    if (this.#received === this.#length) {
      this.#received = 0;
      this.#length = HEADER_BYTES;
      this.#whole?.resolve();
      this.#whole = undefined;
    }
    return at + step;
  }
}
