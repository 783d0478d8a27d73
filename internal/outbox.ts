/**
 * What a connection has yet to write.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import { BLOCK_BYTES } from "./limiter.ts";
import { Spares } from "./spares.ts";

const ENCODER = new TextEncoder();

/**
 * Empty blocks: a connection borrows one only while something waits in it. Most replies need a small one, and the
 * kernel may wake a thousand connections at once.
 */
const SMALL = new Spares(4 * 1024, 1024);
const LARGE = new Spares(BLOCK_BYTES, 64);

/** Most connections never have a full block, and need no list of their own for it. */
const NONE: Uint8Array[] = [];
const NONE_YET = new Uint8Array(0);
const NOTHING = Promise.resolve();

/** A character of a string, which is half of one beyond the BMP, becomes three bytes at most. */
const MAX_BYTES_PER_CHAR = 3;

/** So much text is encoded at once, so that its size in bytes is known. */
const ENCODE_LENGTH = 16 * 1024;

/** So many pieces too: a string of many pieces is slow to flatten, and takes 32 bytes for each while it waits. */
const ENCODE_PIECES = 32;

/** A writer that waits for each of its writes never has more than this under way, but for its last. */
const READY_BYTES = BLOCK_BYTES;

/** Where the bytes go, and who is told. */
export interface Sink {
  /** Writes some of the bytes, and says how many. */
  send(bytes: Uint8Array): Promise<number>;
  /** A block of at most 64 KiB begins to be written. */
  writing(): void;
  /** So many bytes have left. */
  sent(bytes: number): void;
  /** The block has left. */
  wrote(): void;
  /** The block will not leave, nor what is behind it. */
  writeFailed(error: unknown): void;
}

/**
 * Bytes in the order in which they were added, in blocks of at most 64 KiB, each written with one call where the
 * kernel takes it whole.
 */
export class Outbox {
  readonly #sink: Sink;
  readonly #readyBytes: number;
  /** Full blocks, oldest first; then the one that is being filled. */
  #full: Uint8Array[] = NONE;
  #block: Uint8Array<ArrayBuffer> | undefined;
  /** Where that one goes when it is empty; nowhere if it is only lent. */
  #home: Spares | undefined;
  #used = 0;
  /** How much of the oldest block has left. */
  #sent = 0;
  #flushing: Promise<void> | undefined;
  /** What is left of the block that is being written. */
  #rest: Uint8Array = NONE_YET;
  /** How much of this round is still to be written, and whether there is to be another. */
  #owed = 0;
  #again = false;
  #scheduled = false;
  #postedAlone = false;
  #readiness: PromiseWithResolvers<void> | undefined;
  #closed = false;
  /** Text at the very end, encoded when it is wanted as bytes: many small replies cost one call. */
  #text = "";
  #pieces = 0;
  #bytes = 0;

  /**
   * @param sink Where the bytes go.
   * @param maxQueuedBytes What must never wait; a writer that waits for each of its writes is held up before.
   */
  constructor(sink: Sink, maxQueuedBytes = Infinity) {
    this.#sink = sink;
    this.#readyBytes = Math.min(READY_BYTES, maxQueuedBytes);
  }

  /** Bytes that wait, those being written included; text that is not encoded yet counts as if it were ASCII. */
  get size(): number {
    return this.#bytes + this.#text.length;
  }

  /** Whether so much waits that writers should. */
  get full(): boolean {
    return this.size >= this.#readyBytes;
  }

  /** Adds text, or a copy of bytes, without writing yet. */
  add(data: string | Uint8Array): void {
    if (this.#closed) return;
    if (typeof data === "string") {
      this.#text += data;
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
    if (this.#closed || this.size > 0) return this.add(bytes);
    this.#block = bytes;
    this.#home = undefined;
    this.#fill(bytes.length);
  }

  /**
   * Adds, and sees to it that it leaves by itself. The first thing after {@linkcode newTurn} leaves at once; what
   * follows in the same turn leaves together at the turn's end, so that a handler that writes a hundred times costs
   * two system calls. A full block does not wait for that: a handler with lines at hand can make a turn very long, and
   * `maxQueuedBytes` must not catch a peer that nothing was sent to yet.
   */
  post(data: string | Uint8Array): void {
    this.add(data);
    if (!this.#postedAlone && this.#flushing === undefined) {
      this.#postedAlone = true;
      this.flush();
    } else if (this.size >= BLOCK_BYTES) {
      this.flush();
    } else if (!this.#scheduled) {
      this.#scheduled = true;
      setImmediate(() => {
        this.#scheduled = false;
        this.flush();
      });
    }
  }

  /** The peer has sent a line, and no more than that: what is posted next is worth a write of its own. */
  newTurn(): void {
    this.#postedAlone = false;
  }

  /** Writes all that has been added; settles when it has left or never will, and never rejects. */
  flush(): Promise<void> {
    this.#again = true;
    if (this.#flushing !== undefined) return this.#flushing;
    if (!this.#nextBlock()) return NOTHING;
    // Nearly always this is all: one block, taken whole. Entering the loop for it would cost 3 % of a short line.
    return this.#flushing = this.#sink.send(this.#rest).then(
      (count) => this.#took(count) ? this.#goOn() : undefined,
      (error) => void this.#fail(error),
    );
  }

  /** Drops what waits, and all that is added later. */
  close(): void {
    this.#closed = true;
    this.#full = NONE;
    this.#block = undefined;
    this.#text = "";
    this.#bytes = this.#owed = 0;
    this.#wakeWriters();
  }

  /** Settles when there is room for more, or never will be. */
  async ready(): Promise<void> {
    if (!this.full) return;
    this.#readiness ??= Promise.withResolvers<void>();
    await this.#readiness.promise;
  }

  async #goOn(): Promise<void> {
    try {
      while (this.#took(await this.#sink.send(this.#rest)));
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Notes what the kernel took; returns whether there is more to write. */
  #took(count: number): boolean {
    if (!(count > 0)) return this.#fail(new Deno.errors.WriteZero("Cannot write: the transport takes no bytes"));
    if (!this.#closed) {
      this.#sink.sent(count);
      this.#left(count);
      if (count < this.#rest.length) {
        this.#rest = this.#rest.subarray(count);
        return true;
      }
      this.#sink.wrote();
      if (this.#nextBlock()) return true;
    }
    return this.#stop();
  }

  /** Begins with the oldest block, as far as it is filled by now; what is added from here on is for the next round. */
  #nextBlock(): boolean {
    if (this.#owed === 0 && this.#again) {
      this.#again = false;
      this.#encode();
      this.#owed = this.#bytes;
    }
    if (this.#owed === 0) return false;
    this.#rest = this.#full.length > 0
      ? part(this.#full[0], this.#sent, this.#full[0].length)
      : part(this.#block!, this.#sent, this.#used);
    this.#owed = Math.max(0, this.#owed - this.#rest.length);
    this.#sink.writing();
    return true;
  }

  #fail(error: unknown): false {
    this.#stop();
    this.#sink.writeFailed(error);
    return false;
  }

  /** Nothing is on its way any more, and what was is let go: the connection may be kept for long after its end. */
  #stop(): false {
    this.#rest = NONE_YET;
    this.#flushing = undefined;
    return false;
  }

  /** The block may have been sealed while it was on its way, with more in it than was known then. */
  #left(count: number): void {
    this.#bytes -= count;
    this.#sent += count;
    if (this.#full.length > 0) {
      if (this.#sent === this.#full[0].length) this.#full.shift(), this.#sent = 0;
    } else if (this.#sent === this.#used) {
      this.#home?.give(this.#block!);
      this.#block = undefined;
      this.#used = this.#sent = 0;
    }
    if (!this.full) this.#wakeWriters();
  }

  #wakeWriters(): void {
    this.#readiness?.resolve();
    this.#readiness = undefined;
  }

  #encode(): void {
    for (let text = this.#text; text.length > 0;) {
      const { read, written } = ENCODER.encodeInto(text, this.#room(text.length * MAX_BYTES_PER_CHAR));
      this.#fill(written);
      if (read === text.length) break;
      text = text.slice(read);
      this.#seal();
    }
    this.#text = "";
    this.#pieces = 0;
  }

  /** Where so many bytes go, or the first of them. Who has filled a small block is likely to fill another. */
  #room(bytes: number): Uint8Array<ArrayBuffer> {
    if (this.#used === this.#block?.length) this.#seal();
    if (this.#block === undefined) {
      this.#home = bytes + this.#bytes <= SMALL.bytes ? SMALL : LARGE;
      this.#block = this.#home.take();
    }
    return this.#used === 0 ? this.#block : this.#block.subarray(this.#used);
  }

  #fill(count: number): void {
    this.#used += count;
    this.#bytes += count;
  }

  #seal(): void {
    if (this.#full === NONE) this.#full = [];
    this.#full.push(this.#block!.subarray(0, this.#used));
    this.#block = undefined;
    this.#used = 0;
  }
}

/** A part of a block, or the block itself: a view of its own would cost 7 % of a short line. */
function part(block: Uint8Array, start: number, end: number): Uint8Array {
  return start === 0 && end === block.length ? block : block.subarray(start, end);
}
