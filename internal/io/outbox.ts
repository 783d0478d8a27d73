/**
 * A connection's output: what is written waits here until the kernel takes it.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import { ConnectionClosedError, harmless, rejection } from "../api/errors.ts";
import type { CloseReason } from "../api/reasons.ts";
import { BLOCK_BYTES } from "../memory/buffer_pool.ts";
import { BlockWriter } from "./block_writer.ts";

const NOTHING = Promise.resolve();

/** Writes a connection's output in the order in which it was added. */
export class Outbox extends BlockWriter {
  #scheduled = false;
  #wroteAtOnce = false;
  /** Whether nothing more is added. */
  #sealed = false;
  /** Settles when this side has ended; undefined until `closeWrite` is called. */
  #writeEnd: Promise<void> | undefined;
  /** Whether the transport is ending this side, and the clock of a write runs meanwhile. */
  #endsNow = false;
  /** Whether this side has ended. */
  ended = false;
  /** Whether the transport is closed. */
  #freed = false;

  /** Whether `closeWrite` was called. */
  get ending(): boolean {
    return this.#writeEnd !== undefined;
  }

  /** Adds text, or a copy of bytes, without writing yet. */
  add(data: string | Uint8Array): void {
    if (this.closed !== undefined || this.#sealed) return;
    this.blocks.add(data);
    this.added();
  }

  /** Adds bytes without a copy if nothing else waits: the caller must not change them until they have been sent. */
  lend(bytes: Uint8Array<ArrayBuffer>): void {
    if (this.closed === undefined && !this.#sealed) this.blocks.lend(bytes);
  }

  /**
   * Writes for a handler.
   *
   * @param data Text or bytes, which are copied.
   * @returns A promise that resolves when there is room for more, and rejects with a {@linkcode ConnectionClosedError}
   * if there never will be.
   */
  write(data: string | Uint8Array): Promise<void> {
    if (this.#writeEnd !== undefined) return rejection(new ConnectionClosedError(this.closed));
    // A handler that awaits each write always starts the next one with room in the queue, so only writes that are not
    // awaited can exceed `maxQueuedBytes`.
    const { hasRoom } = this;
    this.post(data);
    if (!hasRoom && this.size > this.maxQueuedBytes) this.owner.abort("write-queue");
    return !this.hasRoom || this.closed !== undefined ? harmless(this.#writable()) : NOTHING;
  }

  async #writable(): Promise<void> {
    await this.ready();
    if (this.closed !== undefined) throw new ConnectionClosedError(this.closed);
  }

  /** Waits until everything that was written has been sent; rejects if it never will be. */
  async flushed(): Promise<void> {
    const hasEnded = this.#writeEnd !== undefined || this.closed !== undefined;
    // Encodes the text that waits, so that its size is that of its bytes.
    this.blocks.first();
    const due = this.bytesOut + this.blocks.size;
    // Meanwhile this side may end, and even the connection, but behind what was written before.
    if (!hasEnded) await this.flush();
    if (hasEnded || this.bytesOut < due) throw new ConnectionClosedError(this.closed);
  }

  /**
   * Adds data, and flushes it without being asked. The first data after {@linkcode writeNextAtOnce} is written at once.
   * Data that follows in the same iteration of the event loop is written together at its end, so that a handler that
   * writes a hundred times costs two system calls. 64 KiB do not wait for that: a handler with lines at hand can delay
   * the end of the iteration for long, and `maxQueuedBytes` must not end a connection whose peer was sent nothing yet.
   */
  post(data: string | Uint8Array): void {
    this.add(data);
    if (!this.#wroteAtOnce && !this.busy) {
      this.#wroteAtOnce = true;
      this.flush();
    } else if (this.size >= BLOCK_BYTES) {
      this.flush();
    } else {
      this.flushSoon();
    }
  }

  /** Flushes what waits at the end of this iteration of the event loop. */
  flushSoon(): void {
    if (this.#scheduled || this.size === 0) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.flush();
    });
  }

  /** Called before the last reply to what has come: it is written at once, unless others wait to be written with it. */
  writeNextAtOnce(): void {
    this.#wroteAtOnce = this.#scheduled;
  }

  /** `writeTimeout` has changed: its clock starts anew, if it runs, or was switched off. */
  timeoutChanged(): void {
    if (this.sending || this.#endsNow) this.restartClock();
  }

  /** Adds nothing more: the last line has been added. */
  seal(): void {
    this.#sealed = true;
  }

  /** Ends this side once everything that was added has been sent. */
  closeWrite(): Promise<void> {
    this.seal();
    return this.#writeEnd ??= this.#endWriting();
  }

  async #endWriting(): Promise<void> {
    await this.flush();
    try {
      if (this.#freed) throw new ConnectionClosedError(this.closed!);
      // TLS writes its last words here, and waits if the peer takes nothing. A graceful close has a time of its own.
      this.#endsNow = this.closed === undefined;
      if (this.#endsNow) this.restartClock();
      await this.transport.closeWrite();
    } finally {
      if (this.closed === undefined) this.clocks.wrote();
      this.#endsNow = false;
      // If that fails, the peer is gone, and this side has ended all the same.
      this.ended = true;
    }
  }

  /**
   * Drops everything that waits, and everything that is added later.
   *
   * @param reason Why.
   * @param freed Whether the transport is about to be closed, so that it must not be called from then on.
   */
  override close(reason: CloseReason, freed = false): void {
    this.#endsNow = false;
    this.#freed ||= freed;
    super.close(reason);
  }
}
