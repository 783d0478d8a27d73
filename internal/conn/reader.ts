/**
 * Reading a connection: bytes go from its transport into the limiter, which cuts them into blocks of whole lines.
 *
 * @module
 */

import { countLineFeeds } from "../lines/ascii.ts";
import type { Account } from "../memory/budget.ts";
import type { Clock } from "../api/clock.ts";
import type { ConnectionClocks } from "../time/conn_clocks.ts";
import { Finishing, type FinishReason } from "./finishing.ts";
import type { Breach } from "../api/reasons.ts";
import { Limiter, type SizeLimits } from "../lines/limiter.ts";
import { Pace, type PaceLimits } from "../time/pace.ts";
import { countLines, decodeLines } from "../lines/text.ts";
import type { Transport } from "../api/transport.ts";
import { LINE_WORK, TURN_LINES, TURNS } from "../time/turns.ts";

/** Why the input ended. */
export type EndReason = "end" | Breach | FinishReason;

/** The connection, which the reader notifies. */
export interface ReaderOwner {
  /** Whole lines have come. */
  came(): void;
  /** A read has failed. */
  failed(error: unknown): void;
}

/** Answers blocks of whole lines. */
export interface Answerer {
  /** Answers whole lines; settles when the replies have been sent. Until then nothing is read. */
  answer(block: Uint8Array<ArrayBuffer>): Promise<void>;
  /** The same for lines that have been decoded. */
  answerText(lines: string): Promise<void>;
}

/**
 * Maximum bytes handled before the reader yields to other connections, even if no read filled its buffer: a custom
 * transport may always have data ready.
 */
const MAX_WORK_BETWEEN_YIELDS = 2 * 1024 * 1024;

/** Reads blocks of whole lines on demand, so that the clocks know whether the server waits for the peer. */
export class Reader {
  readonly #transport: Transport;
  readonly #clocks: ConnectionClocks;
  readonly #memory: Account;
  readonly #owner: ReaderOwner;
  /** Holds the input until it is handed out. */
  readonly limiter: Limiter;
  readonly #pace: Pace | undefined;
  /** The one outstanding read; undefined once its bytes have been added to the limiter. */
  outstanding: Promise<number | null> | undefined;
  /** Whether the server waits for the peer. */
  waiting = false;
  /** Whether the limiter holds bytes that were read before they were asked for. */
  #ahead = false;
  /** Whether the limiter's buffer holds lines or replies that are still in use, so that it must not change. */
  lent = false;
  /** Whether reading is over; lines that have come may still be handed out. */
  over = false;
  /** Whether handing out lines is over, too. */
  stopped = false;
  /** Why the input ended; undefined while there may be more, and if `stop` ended it. */
  endReason: EndReason | undefined;
  /** Whether the peer has ended its side. */
  peerEnded = false;
  #finishing: Finishing | undefined;
  #wake: ((nothing: undefined) => void) | undefined;
  /** The number of bytes that `holdInput` was last told. */
  #held = 0;
  /** Work since the reader last yielded, in bytes. */
  #workSinceYield = 0;
  /** The number of whole lines that have come. */
  lineCount = 0;
  /** The number of bytes that have come. */
  byteCount = 0;

  /**
   * @param transport Where the bytes come from.
   * @param limits The limits on the size of lines and input, and on their rates.
   * @param clocks Told when the server waits for the peer, and when it waits for the handler.
   * @param memory Told how much memory unfinished input takes.
   * @param clock Gives the pace its time.
   * @param owner The connection.
   * @param keeps Whether the limiter keeps lines that were handed out, so that they can be taken back.
   */
  constructor(
    transport: Transport,
    limits: SizeLimits & PaceLimits,
    clocks: ConnectionClocks,
    memory: Account,
    clock: Clock,
    owner: ReaderOwner,
    keeps: boolean,
  ) {
    this.#transport = transport;
    this.#clocks = clocks;
    this.#memory = memory;
    this.#owner = owner;
    this.limiter = new Limiter(limits, keeps);
    if (Pace.isSet(limits)) this.#pace = new Pace(limits, clock);
  }

  /**
   * Ends the input at the next line boundary at which the handler has got everything that the peer has sent.
   *
   * @param reason Why the input ends.
   * @param socketsTurn Settles when the kernel has been asked about every socket.
   * @param atBoundary Called if the server waits for the peer at the boundary: no read would settle and report the end.
   */
  finish(reason: FinishReason, socketsTurn: () => Promise<void>, atBoundary: () => void): void {
    this.#finishing ??= new Finishing(reason, this, this.limiter, socketsTurn, () => {
      this.over = true;
      this.endReason ??= this.limiter.breach ?? reason;
      this.#pace?.stop();
      // The server no longer waits for the peer, although its read does not settle.
      if (this.waiting) this.#clocks.rest(), atBoundary();
      this.#wakeHandler();
    });
  }

  /** Ends reading, and hands out no more lines. */
  stop(): void {
    this.stopped = this.over = true;
    this.#pace?.stop();
    this.#wakeHandler();
  }

  /** Ends reading, and frees the memory of the input. */
  free(): void {
    this.stop();
    this.#memory.holdInput(this.#held = 0);
    if (this.lent) return;
    // During an outstanding read, the kernel may still write into the buffer.
    if (this.outstanding === undefined) this.limiter.free();
    else this.outstanding.then(() => this.limiter.free(), () => this.limiter.free());
  }

  /**
   * Reads ahead while the handler works, to learn whether the peer is still there. It stops when some 64 KiB wait for
   * the handler.
   */
  async listen(): Promise<void> {
    if (this.#pace?.holdsUp) return this.#clocks.listenLater();
    while (!this.waiting && !this.over && !this.peerEnded && !this.lent && this.limiter.hasRoom) {
      try {
        const read = this.outstanding ?? this.#startRead();
        if (read === undefined) return;
        const count = await read;
        // Meanwhile the handler may have asked for more, and got the bytes of this read.
        if (this.outstanding !== read || this.over) return;
        this.#received(count);
      } catch (error) {
        return this.#failed(error);
      }
      this.#ahead = true;
      if (this.#pace !== undefined) return;
    }
    // There is no room to read more, but some transports can report a reset without a read.
    if (!this.over) this.#transport.onReset?.((error) => this.#owner.failed(error));
  }

  /**
   * Reads the next block.
   *
   * @returns One or more lines, each ended by one LF; `undefined` when the input has ended, whatever the cause.
   */
  next(): Promise<string | undefined> {
    if (!this.#pace?.later) this.limiter.release();
    return this.#ask(this.#pace === undefined ? this.#read() : this.#next());
  }

  /** Waits until bytes have come, which {@linkcode takeBytes} returns then, or until the input has ended. */
  bytesCome(): Promise<unknown> {
    return this.limiter.midLine ? Promise.resolve() : this.#ask(this.#read(undefined, true));
  }

  /** Makes a call of the handler settle when its read does, or earlier if reading is over first. */
  #ask(read: Promise<string | undefined>): Promise<string | undefined> {
    return new Promise((resolve) => {
      this.#wake = resolve;
      read.then(resolve);
    });
  }

  /** Settles a call that waits for the peer when reading is over. A call whose block has come still gets it. */
  #wakeHandler(): void {
    if (this.waiting) this.#wake?.(undefined);
  }

  /** Returns a copy of all bytes that have come, and removes them; `undefined` if there are none. */
  takeBytes(): Uint8Array<ArrayBuffer> | undefined {
    this.#clocks.came(true);
    const bytes = this.limiter.all()?.slice();
    this.endReason ??= this.limiter.breach;
    if (bytes === undefined) return undefined;
    this.#ahead = false;
    this.came(countLineFeeds(bytes));
    return bytes;
  }

  /** Takes back the last of the lines that were handed out: the next read gets them first. */
  takeBack(lines: number): void {
    const all = lines + countLines(this.#pace?.takeLater() ?? "");
    if (all === 0) return;
    this.limiter.takeBack(all);
    this.lineCount -= all;
    this.#ahead = true;
  }

  /**
   * Gives each block to the answerer until the input ends; rejects with the answerer's error.
   *
   * @param answerer Answers the blocks.
   */
  each(answerer: Answerer): Promise<unknown> {
    return this.#pace === undefined ? this.#read(answerer) : this.#eachInPace(answerer);
  }

  async #eachInPace(answerer: Answerer): Promise<void> {
    for (let lines; !this.stopped && (lines = await this.#next()) !== undefined;) await answerer.answerText(lines);
  }

  /** Reads the next block, or as much of it as the pace lets pass. */
  async #next(): Promise<string | undefined> {
    this.#clocks.stopHandler();
    const lines = await this.#pace!.next(() => this.#read());
    return this.stopped ? undefined : lines;
  }

  /**
   * Reads until the input ends and, given an answerer, answers each block. One async function does both: a second
   * suspended one would cost 480 bytes per connection.
   *
   * @param answerer Answers the blocks; without one, the first block is the result.
   * @param bytes Whether to return as soon as bytes have come, and leave them in the limiter.
   */
  async #read(answerer?: Answerer, bytes = false): Promise<string | undefined> {
    const limiter = this.limiter;
    while (limiter.breach === undefined && (this.#ahead || !this.over)) {
      if (this.#pace !== undefined && !this.#ahead) await this.#pace.read();
      const turn = this.#ahead ? undefined : this.#turn();
      if (turn !== undefined) await turn;
      // Bytes that `listen` has read meanwhile come first: the peer may send no more before they are answered.
      if (!this.#ahead) {
        const read = this.over ? undefined : this.#wait();
        if (read === undefined) break;
        try {
          if (!this.#readSettled(read, await read)) break;
        } catch (error) {
          this.#failed(error);
          break;
        }
      }
      if (bytes && limiter.midLine) return undefined;
      const block = this.#cut();
      if (block === undefined) continue;
      if (this.#memory.budget.crowded) await this.#room();
      if (this.stopped) return undefined;
      if (answerer === undefined) return this.textOf(block, true);
      await answerer.answer(block);
      this.lent = false;
      if (this.stopped) return undefined;
    }
    this.endReason ??= limiter.breach ?? (this.peerEnded ? "end" : undefined);
  }

  /** Waits for memory for replies; the block to be answered must stay where it is meanwhile. */
  async #room(): Promise<void> {
    this.lent = true;
    await this.#memory.budget.room();
    this.lent = false;
  }

  /** Returns the turn to wait for before the next read; undefined if it can start now. */
  #turn(): Promise<void> | undefined {
    // If a read filled its buffer, the next one will probably not wait for the peer, and so would not yield.
    if (!this.limiter.full && this.#workSinceYield <= MAX_WORK_BETWEEN_YIELDS) return undefined;
    const work = this.#workSinceYield;
    this.#workSinceYield = 0;
    return TURNS.take(work);
  }

  /** Starts waiting for the peer, with the outstanding read or a new one; undefined if there can be none. */
  #wait(): Promise<number | null> | undefined {
    try {
      const read = this.outstanding ?? this.#startRead();
      if (read === undefined) return undefined;
      this.waiting = true;
      this.#clocks.wait(this.limiter.midLine);
      this.#finishing?.waiting();
      return read;
    } catch (error) {
      this.#failed(error);
    }
  }

  /** Handles a settled read, unless `listen` has done so; returns whether bytes may be handed out. */
  #readSettled(read: Promise<number | null>, count: number | null): boolean {
    this.waiting = false;
    if (this.outstanding !== read) return true;
    if (this.over) return false;
    this.#received(count);
    return true;
  }

  #failed(error: unknown): void {
    this.waiting = false;
    this.outstanding = undefined;
    this.#owner.failed(error);
  }

  /** Starts a read; undefined if its buffer passed the memory limit, and this connection was ended for that. */
  #startRead(): Promise<number | null> | undefined {
    const space = this.limiter.space(this.#memory.budget.tight);
    this.#holdInput();
    if (this.over) return undefined;
    const { maxReadBytes = Infinity } = this.#pace ?? {};
    return this.outstanding = this.#transport.read(
      space.length > maxReadBytes ? space.subarray(0, maxReadBytes) : space,
    );
  }

  #holdInput(): void {
    if (this.limiter.extraBytes !== this.#held) this.#memory.holdInput(this.#held = this.limiter.extraBytes);
  }

  /** Handles the result of the outstanding read: bytes, or the end of the peer's side. */
  #received(count: number | null): void {
    this.outstanding = undefined;
    if (count === null) {
      this.peerEnded = this.over = true;
      this.#clocks.halfClose();
      return;
    }
    this.byteCount += count;
    this.#workSinceYield += count;
    this.limiter.added(count);
    this.#pace?.took(count);
    this.#finishing?.received();
  }

  #cut(): Uint8Array<ArrayBuffer> | undefined {
    const block = this.limiter.cut();
    // At the end of input, an unterminated last line is a block of its own.
    this.#ahead = block !== undefined && this.peerEnded;
    this.#clocks.came(block !== undefined);
    return block ?? (this.peerEnded ? this.limiter.end() : undefined);
  }

  /**
   * Decodes a block, and counts its lines. Where memory is short, the buffer of its bytes is freed at once, because
   * answering may take long.
   *
   * @param block The block.
   * @param oneByOne Whether the handler is called for each line, which is more work.
   * @returns The same lines, each ended by LF alone.
   */
  textOf(block: Uint8Array, oneByOne: boolean): string {
    const text = decodeLines(block);
    // A read that is outstanding writes into the limiter's buffer.
    if (this.#memory.budget.tight && this.outstanding === undefined) this.limiter.letGo(), this.#holdInput();
    const lines = countLines(text);
    if (oneByOne) this.noteLines(lines);
    this.came(lines);
    return text;
  }

  /** Adds the work of lines handled one by one, without each full `TURN_LINES`: after these, their handler yields. */
  noteLines(lines: number): void {
    this.#workSinceYield += (lines % TURN_LINES) * LINE_WORK;
  }

  /** Counts whole lines that have come, and tells the connection. */
  came(lines: number): void {
    this.lineCount += lines;
    this.#owner.came();
  }
}
