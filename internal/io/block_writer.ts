/**
 * Writing blocks of output to a transport, in the order in which they were added.
 *
 * @module
 */

import { checkTransferred } from "../api/check.ts";
import type { CloseReason } from "../api/reasons.ts";
import { dontDelay, has, heldBytes, progressOf, type Transport } from "../api/transport.ts";
import { Blocks } from "../memory/blocks.ts";
import type { Account } from "../memory/budget.ts";
import { BLOCK_BYTES, OUTPUT_BYTES } from "../memory/buffer_pool.ts";
import type { ConnectionClocks } from "../time/conn_clocks.ts";

const NONE_YET = new Uint8Array(0);
const NOTHING = Promise.resolve();

/** Minimum bytes that the peer's side must take per `writeTimeout`: with less, it could keep its place for ever. */
const PROGRESS_BYTES = 1024;

/**
 * Number of periods without progress that end the connection. Where the transport can say what the peer's side has taken,
 * it is asked four times per `writeTimeout`, so that the connection ends at most a quarter late. Others are given the time three
 * times: Deno's sockets accept no more bytes until a third of the kernel's buffer is free.
 */
const PERIODS = 4;
const BLIND_PERIODS = 3;

/** Maximum bytes that wait before `write` makes its caller wait for room. */
const READY_BYTES = BLOCK_BYTES;

/** Maximum bytes of output per connection that are not counted: nearly every short reply is sent before it matters. */
const FREE_BYTES = OUTPUT_BYTES[0];

export type WriteClocks = Pick<ConnectionClocks, "writing" | "grown" | "wrote">;
export type WriteMemory = Pick<Account, "holdOutput" | "output" | "stuck">;
/** What the outbox uses of a transport. */
export type WriteTransport = Pick<Transport, "write" | "closeWrite" | "setNoDelay" | "progress" | "heldBytes">;

/** What the outbox tells its connection. */
export interface OutboxOwner {
  /** A write has failed; the bytes that wait will not be written. */
  failed(error: unknown): void;
  /** More than `maxQueuedBytes` wait. */
  abort(reason: "write-queue"): void;
}

/** Writes what is in its blocks, block by block. A block that the kernel takes whole costs one call. */
export class BlockWriter {
  /** Where the bytes go; no write may be outstanding when it changes. */
  transport: WriteTransport;
  protected readonly clocks: WriteClocks;
  readonly #memory: WriteMemory;
  protected readonly owner: OutboxOwner;
  protected readonly blocks: Blocks = new Blocks();
  /** Whether a block is being written, or output is held back. */
  protected busy = false;
  /** The unsent part of the block that is being written. */
  #unsent: Uint8Array = NONE_YET;
  /**
   * The number of bytes that are still to be written in this round. What waits is written in rounds: a flush covers what
   * waits when its round begins, and flushes during a round share the next one.
   */
  #roundBytes = 0;
  /** Whether this round began while nothing was being written. */
  #isFirstRound = false;
  /** Whether another round follows. */
  #again = false;
  /** Resolves when this round has been sent, and when the next one has been; undefined if nothing waits for that. */
  #round: PromiseWithResolvers<void> | undefined;
  #nextRound: PromiseWithResolvers<void> | undefined;
  /** Resolves when the output that is held back may be sent; undefined if none is. */
  #held: PromiseWithResolvers<void> | undefined;
  /** Why nothing is written any more; undefined before that. */
  closed: CloseReason | undefined;
  #maxQueuedBytes!: number;
  #readyBytes!: number;
  /** Resolves when there is room for more; undefined if nothing waits for that. */
  #readiness: PromiseWithResolvers<void> | undefined;
  #writes = 0;
  /** The number of bytes that have been sent. */
  bytesOut = 0;
  /** `bytesOut` when the block's clock last started anew; how many periods have passed since, and what was taken. */
  #bytesBefore = 0;
  #periods = 0;
  #taken = 0;

  /**
   * @param transport Where the bytes go.
   * @param clocks Told when the write of a block starts, and when the block has been sent.
   * @param memory Told how much memory the bytes take while they wait.
   * @param owner The connection.
   * @param maxQueuedBytes Maximum bytes that may wait. A writer that awaits each write is made to wait before that.
   */
  constructor(
    transport: WriteTransport,
    clocks: WriteClocks,
    memory: WriteMemory,
    owner: OutboxOwner,
    maxQueuedBytes: number = Infinity,
  ) {
    this.transport = transport;
    this.clocks = clocks;
    this.#memory = memory;
    this.owner = owner;
    this.maxQueuedBytes = maxQueuedBytes;
  }

  get maxQueuedBytes(): number {
    return this.#maxQueuedBytes;
  }

  /** Changes the maximum number of bytes that may wait. */
  set maxQueuedBytes(bytes: number) {
    this.#maxQueuedBytes = bytes;
    this.#readyBytes = Math.min(READY_BYTES, bytes);
  }

  /** The number of bytes that wait, including the block that is being written. */
  get size(): number {
    return this.closed === undefined ? this.blocks.size : 0;
  }

  /** Whether writers may go on without waiting. */
  get hasRoom(): boolean {
    return this.size < this.#readyBytes;
  }

  /** Resolves when there is room for more, or never will be. */
  async ready(): Promise<void> {
    if (this.hasRoom) return;
    this.#readiness ??= Promise.withResolvers<void>();
    await this.#readiness.promise;
  }

  #wakeWriters(): void {
    this.#readiness?.resolve();
    this.#readiness = undefined;
  }

  /** Something was added. While a block is being written, bytes behind it wait for the peer, and so they count. */
  protected added(): void {
    if (!this.busy) return;
    this.#account();
    // No write is timed meanwhile that could find it stuck. If it never counted, peers that do not go on with their
    // handshakes could fill the memory, and make all other connections wait.
    if (this.#held !== undefined) this.#memory.stuck = true;
    // The block that is being written may have been too small to be timed for this.
    else if (this.#memory.output > 0 && this.closed === undefined && !this.#memory.stuck) this.clocks.grown();
  }

  /** Whether a block is being written. */
  protected get sending(): boolean {
    return this.#unsent.length > 0;
  }

  /**
   * Writes everything that has been added until now; resolves when it has been sent or never will be, and never rejects.
   * It does not wait for what is added later: others may go on writing for ever.
   */
  flush(): Promise<void> {
    this.#again = true;
    if (this.busy) return (this.#nextRound ??= Promise.withResolvers()).promise;
    // Nothing was written while output was held back: the flushes that waited for its release are done.
    if (!this.#nextBlock()) return this.#endRound(), NOTHING;
    this.busy = true;
    // Nearly always this is one block, taken whole. Entering the loop of `#goOn` for it would cost 3 % of a short line.
    return this.#send().then((count) => {
      if (!this.#written(count)) return undefined;
      const sent = this.#isFirstRound ? this.#roundSent() : undefined;
      this.#goOn();
      return sent;
    }, (error) => void this.#fail(error));
  }

  #roundSent(): Promise<void> {
    return (this.#round ??= Promise.withResolvers()).promise;
  }

  /**
   * Called when a period of `writeTimeout` is over. Restarts its clock if the peer's side has made progress since it
   * started, and begins the next period if there is one.
   *
   * @returns Whether the clock runs.
   */
  progressed(): boolean {
    const { transport } = this;
    const seen = has(transport, "progress");
    if (seen) this.#taken += progressOf(transport);
    if (this.#taken >= PROGRESS_BYTES) this.restartClock();
    else if (++this.#periods < (seen ? PERIODS : BLIND_PERIODS)) this.#startPeriod(false);
    else return false;
    return true;
  }

  protected restartClock(): void {
    this.#bytesBefore = this.bytesOut;
    this.#periods = this.#taken = 0;
    this.#startPeriod(this.#memory.output > 0);
  }

  #startPeriod(large: boolean): void {
    this.clocks.writing(large, has(this.transport, "progress") ? 1 / PERIODS : 1);
  }

  /** Called when the current block has waited for the peer for a while: from now on its memory counts as stuck. */
  stuck(): void {
    this.#account();
    this.#memory.stuck = true;
  }

  /**
   * Sends everything that has been added, and holds back what is added from now on, until {@linkcode release}.
   *
   * @returns A promise that settles when everything has been sent, or never will be.
   */
  hold(): Promise<void> {
    this.blocks.cut();
    // A round that has begun takes in what has been added behind it.
    if (this.busy) this.#roundBytes = this.blocks.size - this.#unsent.length;
    const sent = this.busy ? this.#roundSent() : this.flush();
    const held = this.#held = Promise.withResolvers<void>();
    // Bytes that are added wait from now on, as they do while a block is being written.
    this.busy = true;
    sent.then(() => held.promise).then(() => {
      this.#held = undefined;
      this.#memory.stuck = false;
      this.#stop();
      this.flush();
    });
    return sent;
  }

  /** Sends what was held back, unless nothing is written any more. */
  release(): void {
    this.#held?.resolve();
  }

  /** Drops everything that waits, and everything that is added later; `reason` says why. */
  close(reason: CloseReason): void {
    this.closed = reason;
    this.#roundBytes = 0;
    // The kernel may still read from the block that is being written.
    if (!this.busy) this.blocks.clear();
    this.#memory.stuck = false;
    this.#memory.holdOutput(0);
    this.#wakeWriters();
  }

  async #goOn(): Promise<void> {
    try {
      while (this.#written(await this.#send()));
    } catch (error) {
      this.#fail(error);
    }
  }

  #send(): Promise<number> {
    // From the second write on: Nagle's algorithm delays no first write, and many connections have no second one.
    if (this.#writes++ === 1) dontDelay(this.transport);
    try {
      return Promise.resolve(this.transport.write(this.#unsent));
    } catch (error) {
      // A custom transport may throw synchronously, or return something else than a promise.
      return Promise.reject(error);
    }
  }

  /** Notes what the kernel took; returns whether there is more to write. */
  #written(count: number): boolean {
    if (count === 0) return this.#fail(new Deno.errors.WriteZero("Cannot write: the transport takes no bytes"));
    try {
      checkTransferred("write", count, this.#unsent.length);
    } catch (error) {
      return this.#fail(error);
    }
    if (this.closed === undefined) {
      this.bytesOut += count;
      this.blocks.left(count);
      if (this.hasRoom) this.#wakeWriters();
      if (count < this.#unsent.length) {
        this.#unsent = this.#unsent.subarray(count);
        if (this.bytesOut - this.#bytesBefore >= PROGRESS_BYTES) this.restartClock();
        return true;
      }
      // Only writes that are not awaited leave that much behind a block.
      const backlog = this.blocks.size > BLOCK_BYTES;
      this.clocks.wrote(backlog);
      if (this.#memory.stuck && !backlog) this.#memory.stuck = this.#held !== undefined && this.blocks.size > 0;
      if (this.#nextBlock()) return true;
    }
    return this.#stop();
  }

  /** Makes the oldest block the next to be written; a flush covers the bytes that wait when it starts. */
  #nextBlock(): boolean {
    if (this.#roundBytes === 0) this.#endRound();
    if (this.#roundBytes === 0 && (!this.#again || this.#held !== undefined)) return false;
    const first = this.blocks.first();
    if (this.#roundBytes === 0) {
      this.#again = false;
      this.#roundBytes = this.blocks.size;
      this.#isFirstRound = !this.busy;
      this.#round = this.#nextRound;
      this.#nextRound = undefined;
    }
    if (first === undefined || this.#roundBytes === 0) return false;
    this.#unsent = first;
    this.#roundBytes = Math.max(0, this.#roundBytes - first.length);
    this.#account();
    // Short of memory, the connection may just have been ended for this.
    if (this.closed !== undefined) return false;
    this.restartClock();
    return true;
  }

  #fail(error: unknown): false {
    this.#stop();
    this.#endRounds();
    this.owner.failed(error);
    return false;
  }

  /** Ends the flush, and drops its memory: the caller may keep the connection long after its end. */
  #stop(): false {
    this.#unsent = NONE_YET;
    if (this.#held === undefined) this.busy = false;
    this.#endRound();
    if (this.closed === undefined) this.#account();
    else this.blocks.clear(), this.#endRounds();
    return false;
  }

  #endRound(): void {
    this.#round?.resolve();
    this.#round = undefined;
  }

  /** Nothing more will be sent of what has been added until now. */
  #endRounds(): void {
    this.#endRound();
    this.#nextRound?.resolve();
    this.#nextRound = undefined;
  }

  /**
   * Reports how much memory waits for the peer, here and in the transport. While nothing waits, none counts: what TLS
   * holds for a quiet connection would otherwise keep others waiting for memory, for as long as it is quiet.
   */
  #account(): void {
    const waiting = this.blocks.size > 0;
    const bytes = waiting ? Math.max(0, this.blocks.held - FREE_BYTES) + heldBytes(this.transport) : 0;
    if (bytes !== this.#memory.output) this.#memory.holdOutput(bytes);
  }
}
