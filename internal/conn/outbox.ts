/**
 * What a connection has yet to write.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import { BLOCK_BYTES } from "../lines/limiter.ts";
import type { Account } from "../memory/budget.ts";
import type { ConnectionClocks } from "../time/conn_clocks.ts";
import { ConnectionClosedError, harmless } from "../api/errors.ts";
import type { CloseReason } from "../api/reasons.ts";
import { giveBuffer, OUTPUT_BYTES, takeBuffer } from "../memory/spares.ts";
import { dontDelay, type Transport } from "../api/transport.ts";

const ENCODER = new TextEncoder();

/** A block that takes no more. */
interface FullBlock {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly used: number;
  /** Whether it is only lent, and not taken from the spares. */
  readonly lent: boolean;
}

/** Most connections never have a full block, and need no list of their own for it. */
const NONE: FullBlock[] = [];
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

/** Minimum bytes that the peer's side has to take within `writeTimeout`: a byte now and then would keep a place for ever. */
const PROGRESS_BYTES = 1024;

/**
 * How many times `writeTimeout` must pass without progress where a transport does not tell what the peer's side has
 * taken: Deno's sockets take nothing more until a third of the kernel's buffer is free.
 */
const BLIND_PERIODS = 3;

type WriteClocks = Pick<ConnectionClocks, "writing" | "wrote">;
type WriteMemory = Pick<Account, "holdOutput" | "stuck">;
type WriteTransport = Pick<Transport, "write" | "closeWrite" | "setNoDelay" | "progress" | "heldBytes">;

/** The memory of short replies, which is not accounted for: nearly every reply has left before it could matter. */
const FREE_BYTES = OUTPUT_BYTES[0];

/** What the outbox tells its connection. */
export interface OutboxOwner {
  /** A write has failed; what is left will not be written. */
  failed(error: unknown): void;
  /** More than `maxQueuedBytes` wait. */
  overflowed(): void;
}

/**
 * Bytes in the order in which they were added, in blocks of at most 64 KiB, each written with one call where the
 * kernel takes it whole.
 */
export class Outbox {
  readonly #transport: WriteTransport;
  readonly #clocks: WriteClocks;
  readonly #memory: WriteMemory;
  readonly #owner: OutboxOwner;
  readonly #maxQueuedBytes: number;
  readonly #readyBytes: number;
  /** Full blocks, oldest first; then the one that is being filled. */
  #full: FullBlock[] = NONE;
  #block: Uint8Array<ArrayBuffer> | undefined;
  /** Whether that one is only lent, and not taken from the spares. */
  #lent = false;
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
  /** Settles when this side has ended. */
  #ending: Promise<void> | undefined;
  /** Why nothing leaves any more. */
  closed: CloseReason | undefined;
  /** Text at the very end, encoded when it is wanted as bytes: many small replies cost one call. */
  #text = "";
  #pieces = 0;
  #bytes = 0;
  #writes = 0;
  /** The number of bytes that have left. */
  bytesOut = 0;
  /** The value of `bytesOut` when the clock of the block last started, and how often that has passed in vain. */
  #bytesBefore = 0;
  #periods = 0;
  /** Memory taken from the spares. */
  #held = 0;

  /**
   * @param transport Where the bytes go.
   * @param clocks Told when a block begins to be written, and when it has left.
   * @param memory Told how much memory the bytes take while they wait.
   * @param owner The connection.
   * @param maxQueuedBytes What must never wait; a writer that awaits each of its writes is held up before.
   */
  constructor(
    transport: WriteTransport,
    clocks: WriteClocks,
    memory: WriteMemory,
    owner: OutboxOwner,
    maxQueuedBytes: number = Infinity,
  ) {
    this.#transport = transport;
    this.#clocks = clocks;
    this.#memory = memory;
    this.#owner = owner;
    this.#maxQueuedBytes = maxQueuedBytes;
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
    if (this.closed !== undefined) return;
    if (typeof data === "string") {
      this.#text += data;
      if (++this.#pieces >= ENCODE_PIECES || this.#text.length >= ENCODE_LENGTH) this.#encode();
    } else this.#addBytes(data);
    // What is added behind a block that is on its way waits for the peer.
    if (this.#flushing !== undefined) this.#account();
  }

  #addBytes(data: Uint8Array): void {
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
    if (this.closed !== undefined || this.size > 0) return this.add(bytes);
    this.#block = bytes;
    this.#lent = true;
    this.#fill(bytes.length);
  }

  /**
   * Writes what a handler wants to be written.
   *
   * @param data Text or bytes, which are copied.
   * @returns When there is room for more; rejects with a {@linkcode ConnectionClosedError} if there never will be.
   */
  write(data: string | Uint8Array): Promise<void> {
    if (this.#ending !== undefined) return harmless(Promise.reject(new ConnectionClosedError("closed")));
    // A handler that awaits each write always starts the next one with room in the queue, so that only writes that are
    // not awaited can pass the limit.
    const hadRoom = !this.full;
    this.post(data);
    if (!hadRoom && this.size > this.#maxQueuedBytes) this.#owner.overflowed();
    return this.full || this.closed !== undefined ? harmless(this.#writable()) : NOTHING;
  }

  async #writable(): Promise<void> {
    await this.ready();
    if (this.closed !== undefined) throw new ConnectionClosedError(this.closed);
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
    return this.#flushing = this.#send().then(
      (count) => this.#took(count) ? this.#goOn() : undefined,
      (error) => void this.#fail(error),
    );
  }

  /**
   * Looks whether the peer's side has taken enough since the clock of the block started, and if so starts it anew.
   *
   * @returns Whether it has.
   */
  progressed(): boolean {
    const taken = this.#transport.progress?.() ?? this.bytesOut - this.#bytesBefore;
    if (taken >= PROGRESS_BYTES) this.#periods = 0;
    else if (this.#transport.progress !== undefined || ++this.#periods >= BLIND_PERIODS) return false;
    this.#bytesBefore = this.bytesOut;
    this.#clocks.writing(false);
    return true;
  }

  /** The block that is being written has waited for the peer for a while: its memory counts from now on. */
  stuck(): void {
    this.#account();
    this.#memory.stuck = true;
  }

  /** Ends this side once everything that was added has left. */
  closeWrite(): Promise<void> {
    return this.#ending ??= this.#endWriting();
  }

  async #endWriting(): Promise<void> {
    await this.flush();
    await this.#transport.closeWrite();
  }

  /** Drops what waits, and all that is added later. */
  close(reason: CloseReason): void {
    this.closed = reason;
    this.#text = "";
    this.#bytes = this.#owed = 0;
    // The kernel may still read from the block that is being written.
    if (this.#flushing === undefined) this.#release();
    this.#memory.stuck = false;
    this.#memory.holdOutput(0);
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
      while (this.#took(await this.#send()));
    } catch (error) {
      this.#fail(error);
    }
  }

  #send(): Promise<number> {
    // Nagle's algorithm holds no first write back, and many a connection has no other.
    if (this.#writes++ === 1) dontDelay(this.#transport);
    try {
      return this.#transport.write(this.#rest);
    } catch (error) {
      // A transport of the caller's own may throw at once.
      return Promise.reject(error);
    }
  }

  /** Notes what the kernel took; returns whether there is more to write. */
  #took(count: number): boolean {
    if (!(count > 0)) return this.#fail(new Deno.errors.WriteZero("Cannot write: the transport takes no bytes"));
    if (this.closed === undefined) {
      this.bytesOut += count;
      this.#left(count);
      if (count < this.#rest.length) {
        this.#rest = this.#rest.subarray(count);
        return true;
      }
      this.#clocks.wrote();
      this.#memory.stuck = false;
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
      ? part(this.#full[0].bytes, this.#sent, this.#full[0].used)
      : part(this.#block!, this.#sent, this.#used);
    this.#owed = Math.max(0, this.#owed - this.#rest.length);
    this.#bytesBefore = this.bytesOut;
    this.#periods = 0;
    this.#clocks.writing(this.#held > FREE_BYTES);
    this.#account();
    return true;
  }

  #fail(error: unknown): false {
    this.#stop();
    this.#owner.failed(error);
    return false;
  }

  /** Nothing is on its way any more, and what was is let go: the connection may be kept for long after its end. */
  #stop(): false {
    this.#rest = NONE_YET;
    this.#flushing = undefined;
    if (this.closed !== undefined) this.#release();
    else this.#account();
    return false;
  }

  /** Notes how much memory waits for the peer, here and in the transport. */
  #account(): void {
    this.#memory.holdOutput(Math.max(0, this.#held - FREE_BYTES) + (this.#transport.heldBytes ?? 0));
  }

  /** Gives all blocks back. */
  #release(): void {
    for (const { bytes, lent } of this.#full) if (!lent) giveBuffer(bytes);
    if (this.#block !== undefined && !this.#lent) giveBuffer(this.#block);
    this.#full = NONE;
    this.#block = undefined;
    this.#used = this.#sent = this.#held = 0;
  }

  /** The block may have been sealed while it was on its way, with more in it than was known then. */
  #left(count: number): void {
    this.#bytes -= count;
    this.#sent += count;
    if (this.#full.length > 0) {
      const { bytes, used, lent } = this.#full[0];
      if (this.#sent === used) this.#full.shift(), this.#giveBack(bytes, lent);
    } else if (this.#sent === this.#used) {
      this.#giveBack(this.#block!, this.#lent);
      this.#block = undefined;
      this.#used = 0;
    }
    if (!this.full) this.#wakeWriters();
  }

  #giveBack(block: Uint8Array<ArrayBuffer>, lent: boolean): void {
    this.#sent = 0;
    if (lent) return;
    giveBuffer(block);
    this.#held -= block.length;
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
      this.#lent = false;
      this.#block = takeBuffer(blockSize(bytes, this.#bytes));
      this.#held += this.#block.length;
    }
    return this.#used === 0 ? this.#block : this.#block.subarray(this.#used);
  }

  #fill(count: number): void {
    this.#used += count;
    this.#bytes += count;
  }

  #seal(): void {
    if (this.#full === NONE) this.#full = [];
    this.#full.push({ bytes: this.#block!, used: this.#used, lent: this.#lent });
    this.#block = undefined;
    this.#used = 0;
  }
}

/** A part of a block, or the block itself: a view of its own would cost 7 % of a short line. */
function part(block: Uint8Array, start: number, end: number): Uint8Array {
  return start === 0 && end === block.length ? block : block.subarray(start, end);
}

/** The size of the block for more bytes behind others: with something before it, more than a little is likely to follow. */
function blockSize(bytes: number, before: number): number {
  const [small] = OUTPUT_BYTES;
  if (bytes + before <= small) return small;
  return before > 0 ? BLOCK_BYTES : OUTPUT_BYTES.find((size) => bytes <= size) ?? BLOCK_BYTES;
}
