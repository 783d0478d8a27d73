/**
 * What a conversation handler waits for: input, or something else before the next read.
 *
 * @module
 */

import type { ConnectionClocks } from "../time/conn_clocks.ts";
import type { Begun } from "../time/expiry.ts";
import type { Reader } from "./reader.ts";

/** A call of a conversation handler that waits. */
interface Waiter extends Pick<PromiseWithResolvers<void>, "resolve" | "reject"> {
  /** The read that it waits for; undefined while it waits for something else. */
  read: Promise<number | null> | undefined;
  /** Whether it waits for input. */
  readonly forInput: boolean;
}

/** The waits of a conversation handler, one at a time. */
export class HandlerWait {
  readonly #reader: Reader;
  readonly #clocks: Pick<ConnectionClocks, "rest">;
  #waiter: Waiter | undefined;
  /** The read that has the callbacks of `#readNow`. */
  #followed: Promise<number | null> | undefined;

  /**
   * @param reader Reads the input.
   * @param clocks Told when the server waits for the peer no longer.
   */
  constructor(reader: Reader, clocks: Pick<ConnectionClocks, "rest">) {
    this.#reader = reader;
    this.#clocks = clocks;
  }

  /**
   * Reads once, for a conversation handler.
   *
   * @param begun What has begun and is waited for; undefined if nothing has begun.
   * @param mostBytes Maximum size of what it waits for, in bytes.
   * @returns When there is something new: bytes, or the end of the peer's side; or when there will be no more. Rejects
   * if {@linkcode interrupt} is called meanwhile.
   */
  more(begun: Begun | undefined, mostBytes: number): Promise<void> {
    this.#reader.begun = begun;
    this.#reader.mostBytes = mostBytes;
    return new Promise((resolve, reject) =>
      this.#readFor(this.#waiter = { resolve, reject, read: undefined, forInput: true })
    );
  }

  /**
   * Makes a wait of the handler end early if reading is over, or with an error if it is interrupted.
   *
   * @param wait What the handler waits for; it never rejects.
   */
  interruptible(wait: Promise<unknown>): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiter = { resolve, reject, read: undefined, forInput: false };
      wait.then(() => resolve());
    });
  }

  /** Makes the handler's read reject, if there is one. What has come, and what comes, stays for the next read. */
  interrupt(error: unknown): void {
    this.#stopWaiting();
    this.#waiter?.reject(error);
    this.#waiter = undefined;
  }

  /** Has the handler's read look again at what has come, if it waits for more. */
  lookAgain(): void {
    const waiter = this.#waiter;
    if (waiter?.forInput !== true) return;
    this.#stopWaiting();
    this.#waiter = undefined;
    waiter.resolve();
  }

  #stopWaiting(): void {
    const reader = this.#reader;
    reader.wanting = false;
    if (reader.waiting) reader.waiting = false, this.#clocks.rest(false);
  }

  /** Ends the wait: reading is over. */
  end(): void {
    this.#waiter?.resolve();
    this.#waiter = undefined;
  }

  /** Reads once, when it is this connection's turn, unless `readAhead` has read something before. */
  #readFor(waiter: Waiter): void {
    const { byteCount } = this.#reader;
    this.#reader.want();
    const turn = this.#reader.pace === undefined ? this.#reader.turn() : this.#paced();
    if (turn === undefined) return this.#readNow(waiter);
    turn.then(() => {
      if (this.#waiter !== waiter) return;
      if (this.#reader.byteCount === byteCount) this.#readNow(waiter);
      else this.#handOver(waiter);
    });
  }

  #readNow(waiter: Waiter): void {
    const read = this.#reader.wait();
    if (read === undefined) return waiter.resolve();
    waiter.read = read;
    // A read that was interrupted is still outstanding, and has its callbacks: more of them would be kept with it.
    if (this.#followed === read) return;
    this.#followed = read;
    read.then((count) => this.#arrived(read, count), (error) => {
      if (this.#followed === read) this.#followed = undefined;
      if (this.#waiter?.read === read) this.#reader.failed(error);
      // Otherwise it has been given away.
      else if (this.#reader.outstanding === read) this.#reader.failedUnread(error);
    });
  }

  #arrived(read: Promise<number | null>, count: number | null): void {
    const waiter = this.#waiter;
    if (this.#followed === read) this.#followed = undefined;
    // If nothing waits, the bytes stay in `outstanding`, for whatever reads next.
    if (waiter?.read !== read) return;
    try {
      if (!this.#reader.readSettled(read, count)) return waiter.resolve();
      this.#clocks.rest();
      this.#handOver(waiter);
    } catch (error) {
      this.#reader.failed(error);
    }
  }

  /** Something new has come, which the handler gets when there is memory for its replies. */
  #handOver(waiter: Waiter): void {
    this.#reader.wanting = false;
    if (this.#reader.mustWait) this.#reader.room().then(() => waiter.resolve());
    else waiter.resolve();
  }

  async #paced(): Promise<void> {
    await this.#reader.pace?.read();
    await this.#reader.turn();
  }
}
