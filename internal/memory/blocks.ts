/**
 * The queue of output that waits to be written, in blocks.
 *
 * @module
 */

import { BLOCK_BYTES, giveBuffer, OUTPUT_BYTES, takeBuffer } from "./buffer_pool.ts";

const ENCODER = new TextEncoder();

/** A block to which no more bytes are added. */
interface SealedBlock {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly used: number;
  /** Whether the bytes belong to the caller, and not to a buffer pool. */
  readonly lent: boolean;
}

/** An empty list that all queues share: most connections never seal a block, and need no list of their own. */
const NONE: SealedBlock[] = [];

/** Maximum UTF-8 bytes of one UTF-16 code unit. Half of a character beyond the BMP becomes U+FFFD, three bytes. */
const MAX_BYTES_PER_UNIT = 3;

/** Maximum length of text that is encoded character by character: for more, the encoder is as fast. */
const SHORT_LENGTH = 32;

/** Maximum length of text that waits unencoded: `held` does not count it, and past it, its size in bytes has to be known. */
const ENCODE_LENGTH = 4 * 1024;

/** Maximum pieces of text that wait unencoded: a string of many pieces is slow to flatten, and costs 32 bytes each. */
const ENCODE_PIECES = 32;

/** Queues bytes and text in the order in which they were added, in blocks of at most 64 KiB, but for what is lent. */
export class Blocks {
  /** Sealed blocks, oldest first. They precede `#block`, which is being filled. */
  #sealed: SealedBlock[] = NONE;
  #block: Uint8Array<ArrayBuffer> | undefined;
  #lent = false;
  #used = 0;
  /** How many bytes of the oldest block have been sent. */
  #sent = 0;
  /** Text behind all blocks. It is encoded when its bytes are needed, so that many small replies cost one call. */
  #text = "";
  #pieces = 0;
  /** The number of bytes that wait in blocks. */
  #bytes = 0;
  /** The size in bytes of the buffers that hold them, and of bytes that are lent; text that waits does not count. */
  held = 0;

  /** The number of bytes that wait; text that is not encoded yet counts as one byte per code unit. */
  get size(): number {
    return this.#bytes + this.#text.length;
  }

  /** Adds text, or a copy of bytes. */
  add(data: string | Uint8Array): void {
    if (typeof data === "string") {
      this.#text += data;
      if (++this.#pieces >= ENCODE_PIECES || this.#text.length >= ENCODE_LENGTH) this.#encode();
      return;
    }
    this.#encode();
    for (let at = 0; at < data.length;) {
      const block = this.#blockFor(data.length - at);
      // Copied to an index: a view of the free part of the block would cost 6 % of a short line.
      const rest = part(data, at, Math.min(data.length, at + block.length - this.#used));
      block.set(rest, this.#used);
      this.#fill(rest.length);
      at += rest.length;
    }
  }

  /**
   * Adds bytes without copying them, if nothing else waits: the caller must not change them until they have been sent.
   * Otherwise adds a copy.
   */
  lend(bytes: Uint8Array<ArrayBuffer>): void {
    if (this.size > 0) return this.add(bytes);
    this.#block = bytes;
    this.#lent = true;
    this.held += bytes.length;
    this.#fill(bytes.length);
  }

  /** Returns the unsent bytes of the oldest block, as far as it is filled by now; `undefined` if nothing waits. */
  first(): Uint8Array | undefined {
    this.#encode();
    if (this.#sealed.length > 0) return part(this.#sealed[0].bytes, this.#sent, this.#sealed[0].used);
    return this.#block && part(this.#block, this.#sent, this.#used);
  }

  /** Begins a new block: none of the present ones gets more bytes. */
  cut(): void {
    this.#encode();
    if (this.#used > 0) this.#seal();
  }

  /** Removes sent bytes from the oldest block, to which more may have been added meanwhile, and which may be sealed. */
  left(count: number): void {
    this.#bytes -= count;
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

  /** Drops everything, and returns the buffers to their pools: no outstanding write may read from them. */
  clear(): void {
    if (this.size === 0 && this.#block === undefined) return;
    for (const { bytes, lent } of this.#sealed) if (!lent) giveBuffer(bytes);
    if (this.#block !== undefined && !this.#lent) giveBuffer(this.#block);
    this.#sealed = NONE;
    this.#block = undefined;
    this.#text = "";
    this.#bytes =
      this.#used =
      this.#sent =
      this.held =
        0;
  }

  #giveBack(block: Uint8Array<ArrayBuffer>, lent: boolean): void {
    this.#sent = 0;
    this.held -= block.length;
    if (!lent) giveBuffer(block);
  }

  #encode(): void {
    if (this.#text === "") return;
    for (let text = this.#text; text.length > 0;) {
      const block = this.#blockFor(text.length * MAX_BYTES_PER_UNIT);
      const room = part(block, this.#used, block.length);
      if (encodeShort(text, room)) {
        this.#fill(text.length);
        break;
      }
      const { read, written } = ENCODER.encodeInto(text, room);
      this.#fill(written);
      if (read === text.length) break;
      text = text.slice(read);
      this.#seal();
    }
    this.#text = "";
    this.#pieces = 0;
  }

  /** Returns the block that is being filled, or a new one, with room for a number of bytes or for the first of them. */
  #blockFor(bytes: number): Uint8Array<ArrayBuffer> {
    if (this.#used === this.#block?.length) this.#seal();
    if (this.#block === undefined) {
      this.#lent = false;
      this.#block = takeBuffer(blockSize(bytes, this.#bytes));
      this.held += this.#block.length;
    }
    return this.#block;
  }

  #fill(count: number): void {
    this.#used += count;
    this.#bytes += count;
  }

  #seal(): void {
    if (this.#sealed === NONE) this.#sealed = [];
    this.#sealed.push({ bytes: this.#block!, used: this.#used, lent: this.#lent });
    this.#block = undefined;
    this.#used = 0;
  }
}

/** Encodes short text that is all ASCII, in half the time that the encoder takes; returns whether it did. */
function encodeShort(text: string, into: Uint8Array): boolean {
  if (text.length > SHORT_LENGTH || text.length > into.length) return false;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code >= 0x80) return false;
    into[at] = code;
  }
  return true;
}

/** Returns a part of some bytes. For the whole it makes no view, which would cost 7 % of a short line. */
function part(bytes: Uint8Array, start: number, end: number): Uint8Array {
  return start === 0 && end === bytes.length ? bytes : bytes.subarray(start, end);
}

/**
 * Chooses the size of a new block. If bytes wait already, and these do not fit into a small block with them, more are
 * likely to follow: the new block is a large one.
 */
function blockSize(bytes: number, before: number): number {
  const [small] = OUTPUT_BYTES;
  if (bytes + before <= small) return small;
  return before > 0 ? BLOCK_BYTES : OUTPUT_BYTES.find((size) => bytes <= size) ?? BLOCK_BYTES;
}
