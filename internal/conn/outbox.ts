/**
 * Writing to a connection.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import { ConnectionClosedError, harmless } from "../api/errors.ts";
import type { CloseReason } from "../api/reasons.ts";
import { dontDelay, type Transport } from "../api/transport.ts";
import { BLOCK_BYTES } from "../lines/limiter.ts";
import type { Account } from "../memory/budget.ts";
import { OUTPUT_BYTES } from "../memory/buffer_pool.ts";
import type { ConnectionClocks } from "../time/conn_clocks.ts";
import { Blocks } from "./blocks.ts";

const NONE_YET = new Uint8Array(0);
const NOTHING = Promise.resolve();

/** Maximum bytes that wait before a writer that awaits each of its writes is held up. */
const READY_BYTES = BLOCK_BYTES;

/** Minimum bytes that the peer's side has to take within `writeTimeout`: a byte now and then would keep a place for ever. */
const PROGRESS_BYTES = 1024;

/**
 * How many times `writeTimeout` must pass without progress where a transport does not tell what the peer's side has
 * taken: Deno's sockets take nothing more until a third of the kernel's buffer is free.
 */
const BLIND_PERIODS = 3;

/** The memory of short replies, which is not accounted for: nearly every reply has left before it could matter. */
const FREE_BYTES = OUTPUT_BYTES[0];

type WriteClocks = Pick<ConnectionClocks, "writing" | "wrote">;
type WriteMemory = Pick<Account, "holdOutput" | "stuck">;
type WriteTransport = Pick<Transport, "write" | "closeWrite" | "setNoDelay" | "progress" | "heldBytes">;

/** What the outbox tells its connection. */
export interface OutboxOwner {
  /** A write has failed; what is left will not be written. */
  failed(error: unknown): void;
  /** More than `maxQueuedBytes` wait. */
  overflowed(): void;
}

/**
 * Writes a connection's output in the order in which it was added, block by block, each with one call where the kernel
 * takes it whole.
 */
export class Outbox {
  readonly #transport: WriteTransport;
  readonly #clocks: WriteClocks;
  readonly #memory: WriteMemory;
  readonly #owner: OutboxOwner;
  readonly #maxQueuedBytes: number;
  readonly #readyBytes: number;
  readonly #blocks = new Blocks();
  #flushing: Promise<void> | undefined;
  /** What is left of the block that is being written. */
  #unsent: Uint8Array = NONE_YET;
  /** How much of this round is still to be written, and whether there is to be another. */
  #roundBytes = 0;
  #again = false;
  #scheduled = false;
  #wroteAtOnce = false;
  #readiness: PromiseWithResolvers<void> | undefined;
  /** Settles when this side has ended. */
  #writeEnd: Promise<void> | undefined;
  /** Why nothing leaves any more. */
  closed: CloseReason | undefined;
  #writes = 0;
  /** The number of bytes that have left. */
  bytesOut = 0;
  /** The value of `bytesOut` when the clock of the block last started, and how often that has passed in vain. */
  #bytesBefore = 0;
  #periods = 0;
  /** What was last said of the memory that waits. */
  #accounted = 0;

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

  /** The number of bytes that wait, those being written included. */
  get size(): number {
    return this.closed === undefined ? this.#blocks.size : 0;
  }

  /** Whether so much waits that writers should. */
  get hasRoom(): boolean {
    return this.size < this.#readyBytes;
  }

  /** Adds text, or a copy of bytes, without writing yet. */
  add(data: string | Uint8Array): void {
    if (this.closed !== undefined) return;
    this.#blocks.add(data);
    // What is added behind a block that is on its way waits for the peer.
    if (this.#flushing !== undefined) this.#account();
  }

  /** Adds bytes that stay as they are until they have left, or a copy of them if others are before them. */
  lend(bytes: Uint8Array<ArrayBuffer>): void {
    if (this.closed === undefined) this.#blocks.lend(bytes);
  }

  /**
   * Writes what a handler wants to be written.
   *
   * @param data Text or bytes, which are copied.
   * @returns When there is room for more; rejects with a {@linkcode ConnectionClosedError} if there never will be.
   */
  write(data: string | Uint8Array): Promise<void> {
    if (this.#writeEnd !== undefined) return harmless(Promise.reject(new ConnectionClosedError("closed")));
    // A handler that awaits each write always starts the next one with room in the queue, so that only writes that are
    // not awaited can pass the limit.
    const { hasRoom } = this;
    this.post(data);
    if (!hasRoom && this.size > this.#maxQueuedBytes) this.#owner.overflowed();
    return !this.hasRoom || this.closed !== undefined ? harmless(this.#writable()) : NOTHING;
  }

  async #writable(): Promise<void> {
    await this.ready();
    if (this.closed !== undefined) throw new ConnectionClosedError(this.closed);
  }

  /**
   * Adds, and sees to it that it leaves by itself. The first thing after {@linkcode writeNextAtOnce} leaves at once; what
   * follows in the same turn leaves together at the turn's end, so that a handler that writes a hundred times costs
   * two system calls. A full block does not wait for that: a handler with lines at hand can make a turn very long, and
   * `maxQueuedBytes` must not catch a peer that nothing was sent to yet.
   */
  post(data: string | Uint8Array): void {
    this.add(data);
    if (!this.#wroteAtOnce && this.#flushing === undefined) {
      this.#wroteAtOnce = true;
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

  /** A line has come alone: what is posted next is worth a write of its own. */
  writeNextAtOnce(): void {
    this.#wroteAtOnce = false;
  }

  /** Writes all that has been added; settles when it has left or never will, and never rejects. */
  flush(): Promise<void> {
    this.#again = true;
    if (this.#flushing !== undefined) return this.#flushing;
    if (!this.#nextBlock()) return NOTHING;
    // Nearly always this is all: one block, taken whole. Entering the loop for it would cost 3 % of a short line.
    return this.#flushing = this.#send().then(
      (count) => this.#written(count) ? this.#goOn() : undefined,
      (error) => void this.#fail(error),
    );
  }

  /**
   * Looks whether the peer's side has taken enough since the clock of the block started, and if so starts it anew.
   *
   * @returns Whether it has.
   */
  progressed(): boolean {
    const { progress } = this.#transport;
    if (progress === undefined && ++this.#periods < BLIND_PERIODS) this.#clocks.writing(false);
    else if (progress !== undefined && this.#transport.progress!() >= PROGRESS_BYTES) this.#restartClock();
    else return false;
    return true;
  }

  #restartClock(): void {
    this.#bytesBefore = this.bytesOut;
    this.#periods = 0;
    this.#clocks.writing(this.#blocks.held > FREE_BYTES);
  }

  /** The block that is being written has waited for the peer for a while: its memory counts from now on. */
  stuck(): void {
    this.#account();
    this.#memory.stuck = true;
  }

  /** Ends this side once everything that was added has left. */
  closeWrite(): Promise<void> {
    return this.#writeEnd ??= this.#endWriting();
  }

  async #endWriting(): Promise<void> {
    await this.flush();
    await this.#transport.closeWrite();
  }

  /** Drops what waits, and all that is added later. */
  close(reason: CloseReason): void {
    this.closed = reason;
    this.#roundBytes = 0;
    // The kernel may still read from the block that is being written.
    if (this.#flushing === undefined) this.#blocks.clear();
    this.#memory.stuck = false;
    this.#memory.holdOutput(0);
    this.#wakeWriters();
  }

  /** Settles when there is room for more, or never will be. */
  async ready(): Promise<void> {
    if (this.hasRoom) return;
    this.#readiness ??= Promise.withResolvers<void>();
    await this.#readiness.promise;
  }

  async #goOn(): Promise<void> {
    try {
      while (this.#written(await this.#send()));
    } catch (error) {
      this.#fail(error);
    }
  }

  #send(): Promise<number> {
    // Nagle's algorithm holds no first write back, and many a connection has no other.
    if (this.#writes++ === 1) dontDelay(this.#transport);
    try {
      return this.#transport.write(this.#unsent);
    } catch (error) {
      // A transport of the caller's own may throw at once.
      return Promise.reject(error);
    }
  }

  /** Notes what the kernel took; returns whether there is more to write. */
  #written(count: number): boolean {
    if (!(count > 0)) return this.#fail(new Deno.errors.WriteZero("Cannot write: the transport takes no bytes"));
    if (this.closed === undefined) {
      this.bytesOut += count;
      this.#blocks.left(count);
      if (this.hasRoom) this.#wakeWriters();
      if (count < this.#unsent.length) {
        this.#unsent = this.#unsent.subarray(count);
        if (this.bytesOut - this.#bytesBefore >= PROGRESS_BYTES) this.#restartClock();
        return true;
      }
      this.#clocks.wrote();
      if (this.#memory.stuck) this.#memory.stuck = false;
      if (this.#nextBlock()) return true;
    }
    return this.#stop();
  }

  /** Begins with the oldest block; what is added from here on is for the next round. */
  #nextBlock(): boolean {
    if (this.#roundBytes === 0 && !this.#again) return false;
    const first = this.#blocks.first();
    if (this.#roundBytes === 0) {
      this.#again = false;
      this.#roundBytes = this.#blocks.size;
    }
    if (first === undefined || this.#roundBytes === 0) return false;
    this.#unsent = first;
    this.#roundBytes = Math.max(0, this.#roundBytes - first.length);
    this.#restartClock();
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
    this.#unsent = NONE_YET;
    this.#flushing = undefined;
    if (this.closed !== undefined) this.#blocks.clear();
    else this.#account();
    return false;
  }

  /** Notes how much memory waits for the peer, here and in the transport. */
  #account(): void {
    const bytes = Math.max(0, this.#blocks.held - FREE_BYTES) + (this.#transport.heldBytes ?? 0);
    if (bytes !== this.#accounted) this.#memory.holdOutput(this.#accounted = bytes);
  }

  #wakeWriters(): void {
    this.#readiness?.resolve();
    this.#readiness = undefined;
  }
}
