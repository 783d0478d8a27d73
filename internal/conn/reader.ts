/**
 * Reading a connection: bytes from its transport into the limiter, blocks of whole lines out.
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

/** Why there is no more input. */
export type EndReason = "end" | Breach | FinishReason;

/** What the reader tells its connection. */
export interface ReaderOwner {
  /** Whole lines have come. */
  came(): void;
  /** A read has failed. */
  failed(error: unknown): void;
}

/** Answers blocks of whole lines. */
export interface Answerer {
  /** Answers whole lines; settles when the replies have left, until when nothing is read. */
  answer(block: Uint8Array<ArrayBuffer>): Promise<void>;
  /** The same for lines that have been decoded. */
  answerText(lines: string): Promise<void>;
}

/** Maximum bytes handled without a turn, even if no read filled its buffer: a custom transport may always have data ready. */
const MAX_WORK_BETWEEN_YIELDS = 2 * 1024 * 1024;

/** Reads blocks of whole lines when they are asked for, so that the clocks know whether the server waits for the peer. */
export class Reader {
  readonly #transport: Transport;
  readonly #clocks: ConnectionClocks;
  readonly #memory: Account;
  readonly #owner: ReaderOwner;
  /** Where input lies until it is handed out. */
  readonly limiter: Limiter;
  readonly #pace: Pace | undefined;
  /** The outstanding read, of which there is at most one; undefined again when its bytes have been taken. */
  outstanding: Promise<number | null> | undefined;
  /** Whether the server waits for the peer. */
  waiting = false;
  /** Whether bytes have come that nobody has asked for yet. */
  #ahead = false;
  /** Whether lines are being answered in the limiter's buffer, so that it must stay as it is. */
  lent = false;
  /** Whether nothing more is read. */
  over = false;
  /** Whether lines that have come are not handed out either. */
  stopped = false;
  /** Why there is no more input; undefined as long as there may be more, and if it was stopped from outside. */
  endReason: EndReason | undefined;
  /** Whether the peer has ended its side. */
  peerEnded = false;
  #finishing: Finishing | undefined;
  #wake: ((nothing: undefined) => void) | undefined;
  /** What was last said of the memory that input takes. */
  #held = 0;
  /** Work done without a turn for it, in bytes. */
  #workSinceYield = 0;
  /** The number of whole lines that have come. */
  lineCount = 0;
  /** The number of bytes that have come. */
  byteCount = 0;

  /**
   * @param transport Where the bytes come from.
   * @param limits How much is read, and how fast.
   * @param clocks Told when the server waits for the peer, and when for the handler.
   * @param memory Told how much memory unfinished input takes.
   * @param clock Where the pace gets its time from.
   * @param owner The connection.
   * @param keeps Whether lines that were handed out may be taken back.
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
   * Ends the input at the next line boundary at which everything that the peer has sent has been handed out.
   *
   * @param reason What the input ends with.
   * @param socketsTurn Lets the kernel say what else has come.
   * @param atBoundary Called at the boundary if the server waits for the peer there, so that nothing else would notice.
   */
  finish(reason: FinishReason, socketsTurn: () => Promise<void>, atBoundary: () => void): void {
    this.#finishing ??= new Finishing(reason, this, this.limiter, socketsTurn, () => {
      this.over = true;
      this.endReason ??= this.limiter.breach ?? reason;
      this.#pace?.stop();
      if (this.waiting) atBoundary();
      this.#wakeHandler();
    });
  }

  /** Reads no more, and hands out no more lines. */
  stop(): void {
    this.stopped = this.over = true;
    this.#pace?.stop();
    this.#wakeHandler();
  }

  /** Reads no more, and gives its memory back. */
  free(): void {
    this.stop();
    this.#memory.holdInput(this.#held = 0);
    if (this.lent) return;
    // The kernel may still write into the buffer of a read that is outstanding.
    if (this.outstanding === undefined) this.limiter.free();
    else this.outstanding.then(() => this.limiter.free(), () => this.limiter.free());
  }

  /**
   * Reads on although the handler has not asked for more, to learn whether the peer is still there, until some 64 KiB
   * have come that wait for it.
   */
  async listen(): Promise<void> {
    if (this.#pace?.holdsUp) return this.#clocks.listenLater();
    while (!this.waiting && !this.over && !this.peerEnded && !this.lent && this.limiter.hasRoom) {
      try {
        const read = this.outstanding ?? this.#startRead();
        if (read === undefined) return;
        const count = await read;
        // The handler may have asked meanwhile, and what has come may have been taken for it.
        if (this.outstanding !== read || this.over) return;
        this.#received(count);
      } catch (error) {
        return this.#owner.failed(error);
      }
      this.#ahead = true;
      if (this.#pace !== undefined) return;
    }
    // What is to be read next does not fit, but some transports can tell of a reset without reading.
    if (!this.over) this.#transport.onReset?.((error) => this.#owner.failed(error));
  }

  /**
   * The next block.
   *
   * @returns One or more lines, each ended by one LF; `undefined` when there is no more input, whatever the cause.
   */
  next(): Promise<string | undefined> {
    if (!this.#pace?.later) this.limiter.release();
    return this.#ask(this.#pace === undefined ? this.#read() : this.#next());
  }

  /** Waits until bytes have come; then {@linkcode takeBytes} has them, or there is no more input. */
  bytesCome(): Promise<unknown> {
    return this.#ask(this.#read(undefined, true));
  }

  /** Has a call of the handler's settle when the transport does, or when reading is over before that. */
  #ask(read: Promise<string | undefined>): Promise<string | undefined> {
    return new Promise((resolve) => {
      this.#wake = resolve;
      read.then(resolve);
    });
  }

  /** Tells a call that waits for the peer that reading is over. A block that has come already is on its way, and counts. */
  #wakeHandler(): void {
    if (this.waiting) this.#wake?.(undefined);
  }

  /** Takes all bytes that have come, in memory of their own; `undefined` if there are none. */
  takeBytes(): Uint8Array<ArrayBuffer> | undefined {
    this.#clocks.came(true);
    const bytes = this.limiter.all()?.slice();
    this.endReason ??= this.limiter.breach;
    if (bytes === undefined) return undefined;
    this.#ahead = false;
    this.came(countLineFeeds(bytes));
    return bytes;
  }

  /** Takes back the last of the lines that were handed out: whatever reads next gets them first. */
  takeBack(lines: number): void {
    const all = lines + countLines(this.#pace?.takeLater() ?? "");
    if (all === 0) return;
    this.limiter.takeBack(all);
    this.lineCount -= all;
    this.#ahead = true;
  }

  /**
   * Has each block answered until there is no more input; rejects with what the answerer throws.
   *
   * @param answerer Answers the blocks.
   */
  each(answerer: Answerer): Promise<unknown> {
    return this.#pace === undefined ? this.#read(answerer) : this.#eachInPace(answerer);
  }

  async #eachInPace(answerer: Answerer): Promise<void> {
    for (let lines; !this.stopped && (lines = await this.#next()) !== undefined;) await answerer.answerText(lines);
  }

  /** The next block, or as much of it as the pace lets pass. */
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
   * @param bytes Whether it is enough that bytes have come, which stay where they are.
   */
  async #read(answerer?: Answerer, bytes = false): Promise<string | undefined> {
    const limiter = this.limiter;
    if (bytes && limiter.midLine) return undefined;
    while (limiter.breach === undefined && (this.#ahead || !this.over)) {
      const turn = this.#ahead ? undefined : this.#turn();
      if (turn !== undefined) await turn;
      // What `listen` has read meanwhile comes first: the peer may send no more before that is answered.
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
      if (this.#memory.budget.crowded) await this.#memory.budget.room();
      if (this.stopped) return undefined;
      if (answerer === undefined) return this.textOf(block, true);
      await answerer.answer(block);
      this.lent = false;
      if (this.stopped) return undefined;
    }
    this.endReason ??= limiter.breach ?? (this.peerEnded ? "end" : undefined);
  }

  /** The turn to wait for before the next read, if there is one. */
  #turn(): Promise<void> | undefined {
    if (this.#pace !== undefined) return this.#pace.read().then(() => this.#turnForWork());
    return this.#turnForWork();
  }

  #turnForWork(): Promise<void> | undefined {
    // A read that filled its buffer did not have to wait, and neither will the next.
    if (!this.limiter.full && this.#workSinceYield <= MAX_WORK_BETWEEN_YIELDS) return undefined;
    const work = this.#workSinceYield;
    this.#workSinceYield = 0;
    return TURNS.take(work);
  }

  /** Begins to wait for the peer, in the outstanding read or a new one; undefined if there is none. */
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

  /** The read has settled; returns whether its bytes, which `listen` may have taken, are to be handed out. */
  #readSettled(read: Promise<number | null>, count: number | null): boolean {
    this.waiting = false;
    if (this.outstanding !== read) return true;
    if (this.over) return false;
    this.#received(count);
    return true;
  }

  #failed(error: unknown): void {
    this.waiting = false;
    this.#owner.failed(error);
  }

  /** Starts the one outstanding read; undefined if it is this connection that had to give way to make room for it. */
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
    const { extraBytes } = this.limiter;
    if (extraBytes !== this.#held) this.#memory.holdInput(this.#held = extraBytes);
  }

  /** Takes what the outstanding read brought. */
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
    // The line that the end of input ends is a block of its own.
    this.#ahead = block !== undefined && this.peerEnded;
    this.#clocks.came(block !== undefined);
    return block ?? (this.peerEnded ? this.limiter.end() : undefined);
  }

  /**
   * Decodes a block, and counts its lines; where memory is short, its bytes are given back before they are answered, which
   * may take long.
   *
   * @param block The block.
   * @param oneByOne Whether each line is handled by itself, which is more work.
   * @returns The same lines, each ended by LF alone.
   */
  textOf(block: Uint8Array, oneByOne: boolean): string {
    const text = decodeLines(block);
    if (this.#memory.budget.tight) this.limiter.letGo(), this.#holdInput();
    const lines = countLines(text);
    if (oneByOne) this.noteLines(lines);
    this.came(lines);
    return text;
  }

  /** Notes how much work lines are that are handled one by one, but for those that take turns of their own. */
  noteLines(lines: number): void {
    this.#workSinceYield += (lines % TURN_LINES) * LINE_WORK;
  }

  /** So many whole lines have come. */
  came(lines: number): void {
    this.lineCount += lines;
    this.#owner.came();
  }
}
