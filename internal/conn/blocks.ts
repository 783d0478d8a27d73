/**
 * Output that waits, in blocks.
 *
 * @module
 */

import { BLOCK_BYTES } from "../lines/limiter.ts";
import { giveBuffer, OUTPUT_BYTES, takeBuffer } from "../memory/buffer_pool.ts";

const ENCODER = new TextEncoder();

/** A block that takes no more. */
interface SealedBlock {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly used: number;
  /** Whether it is only lent, and not taken from the spares. */
  readonly lent: boolean;
}

/** Most connections never have a full block, and need no list of their own for it. */
const NONE: SealedBlock[] = [];

/** Maximum bytes of one UTF-16 code unit: half of a character beyond the BMP counts as one that takes three. */
const MAX_BYTES_PER_UNIT = 3;

/** Maximum length of text before it is encoded, so that its size in bytes is known. */
const ENCODE_LENGTH = 16 * 1024;

/** Maximum pieces of text before it is encoded: a string of many pieces is slow to flatten, and takes 32 bytes for each. */
const ENCODE_PIECES = 32;

/** Bytes and text in the order in which they were added, in blocks of at most 64 KiB. */
export class Blocks {
  /** Full blocks, oldest first; then the one that is being filled. */
  #sealed: SealedBlock[] = NONE;
  #block: Uint8Array<ArrayBuffer> | undefined;
  #lent = false;
  #used = 0;
  /** How much of the oldest block has left. */
  #sent = 0;
  /** Text at the very end, encoded when it is wanted as bytes: many small replies cost one call. */
  #text = "";
  #pieces = 0;
  #bytes = 0;
  /** The number of bytes that wait; text that is not encoded yet counts as if it were ASCII. */
  size = 0;
  /** The number of bytes of memory that were taken for them. */
  held = 0;

  /** Adds text, or a copy of bytes. */
  add(data: string | Uint8Array): void {
    if (typeof data === "string") {
      this.#text += data;
      this.size += data.length;
      if (++this.#pieces >= ENCODE_PIECES || this.#text.length >= ENCODE_LENGTH) this.#encode();
      return;
    }
    this.#encode();
    for (let rest = data; rest.length > 0;) {
      const room = this.#room(rest.length);
      const part = rest.subarray(0, room.length);
      room.set(part);
      this.#fill(part.length);
      rest = rest.subarray(part.length);
    }
  }

  /** Adds bytes that stay as they are until they have left, or a copy of them if others are before them. */
  lend(bytes: Uint8Array<ArrayBuffer>): void {
    if (this.size > 0) return this.add(bytes);
    this.#block = bytes;
    this.#lent = true;
    this.#fill(bytes.length);
  }

  /** What waits of the oldest block, as far as it is filled by now; `undefined` if nothing waits. */
  first(): Uint8Array | undefined {
    this.#encode();
    if (this.#sealed.length > 0) return part(this.#sealed[0].bytes, this.#sent, this.#sealed[0].used);
    return this.#block && part(this.#block, this.#sent, this.#used);
  }

  /** So many bytes of the oldest block have left; it may have been sealed meanwhile, with more in it than at first. */
  left(count: number): void {
    this.#bytes -= count;
    this.size -= count;
    this.#sent += count;
    if (this.#sealed.length > 0) {
      const { bytes, used, lent } = this.#sealed[0];
      if (this.#sent === used) this.#sealed.shift(), this.#giveBack(bytes, lent);
    } else if (this.#sent === this.#used) {
      this.#giveBack(this.#block!, this.#lent);
      this.#block = undefined;
      this.#used = 0;
    }
  }

  /** Drops what waits, and gives its memory back, from which nothing must be written any more. */
  clear(): void {
    for (const { bytes, lent } of this.#sealed) if (!lent) giveBuffer(bytes);
    if (this.#block !== undefined && !this.#lent) giveBuffer(this.#block);
    this.#sealed = NONE;
    this.#block = undefined;
    this.#text = "";
    this.#bytes =
      this.size =
      this.#used =
      this.#sent =
      this.held =
        0;
  }

  #giveBack(block: Uint8Array<ArrayBuffer>, lent: boolean): void {
    this.#sent = 0;
    if (lent) return;
    giveBuffer(block);
    this.held -= block.length;
  }

  #encode(): void {
    if (this.#text === "") return;
    for (let text = this.#text; text.length > 0;) {
      const { read, written } = ENCODER.encodeInto(text, this.#room(text.length * MAX_BYTES_PER_UNIT));
      this.#fill(written);
      if (read === text.length) break;
      text = text.slice(read);
      this.#seal();
    }
    this.#text = "";
    this.#pieces = 0;
  }

  /** Where so many bytes go, or the first of them. */
  #room(bytes: number): Uint8Array<ArrayBuffer> {
    if (this.#used === this.#block?.length) this.#seal();
    if (this.#block === undefined) {
      this.#lent = false;
      this.#block = takeBuffer(blockSize(bytes, this.#bytes));
      this.held += this.#block.length;
    }
    return this.#used === 0 ? this.#block : this.#block.subarray(this.#used);
  }

  #fill(count: number): void {
    this.#used += count;
    this.#bytes += count;
    this.size = this.#bytes;
  }

  #seal(): void {
    if (this.#sealed === NONE) this.#sealed = [];
    this.#sealed.push({ bytes: this.#block!, used: this.#used, lent: this.#lent });
    this.#block = undefined;
    this.#used = 0;
  }
}

/** A part of a block, or the block itself: a view of its own would cost 7 % of a short line. */
function part(block: Uint8Array, start: number, end: number): Uint8Array {
  return start === 0 && end === block.length ? block : block.subarray(start, end);
}

/** The size of the block for more bytes behind others: with something before them, more than a little is likely to follow. */
function blockSize(bytes: number, before: number): number {
  const [small] = OUTPUT_BYTES;
  if (bytes + before <= small) return small;
  return before > 0 ? BLOCK_BYTES : OUTPUT_BYTES.find((size) => bytes <= size) ?? BLOCK_BYTES;
}
