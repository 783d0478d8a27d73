/**
 * Reading a connection: bytes go from its transport into the input buffer, when the handler wants them.
 *
 * @module
 */

import type { Account } from "../memory/budget.ts";
import type { Clock } from "../api/serve_options.ts";
import { type ConnectionClocks, jitteredCount } from "../time/conn_clocks.ts";
import type { Begun } from "../time/expiry.ts";
import { type EndReason, type FinishHost, Finishing, type FinishReason } from "./finishing.ts";
import { checkTransferred } from "../api/check.ts";
import { harmless, rejection } from "../api/errors.ts";
import type { ConnLimits } from "../api/conn_options.ts";
import type { Breach } from "../api/reasons.ts";
import { InputBuffer } from "../lines/input_buffer.ts";
import { Pace } from "./pace.ts";
import { HandlerWait } from "./handler_wait.ts";
import type { Transport } from "../api/transport.ts";
import { LINE_WORK, READ_WORK, SHARE_BYTES, SHARE_LINES, TURN_BYTES, TURNS } from "../time/turns.ts";

/** The connection, which the reader notifies. */
export interface ReaderOwner {
  /** `maxLines` lines have come. */
  finish(reason: "max-lines"): void;
  /** A read has failed. */
  failed(error: unknown): void;
  /** There is no more input for the line handler to answer. */
  handlerSettled(): void;
  /** The line handler has failed. */
  handlerFailed(error: unknown): void;
}

/** Answers the lines that have come. */
export interface Answerer {
  /** What has begun and is waited for; undefined if nothing has begun. */
  readonly begun: Begun | undefined;
  /** Maximum size of the next line with its end, in bytes. */
  readonly mostBytes: number;
  /** Answers all whole lines in the input; settles when the replies have been sent. */
  answer(): Promise<void> | undefined;
}

/** Reads bytes on demand, so that the clocks know whether the server waits for the peer. */
export class Reader {
  /** Where the bytes come from; no read may be outstanding when it changes. */
  transport: Transport;
  readonly #clocks: ConnectionClocks;
  readonly #memory: Account;
  readonly #owner: ReaderOwner;
  /** Holds the input until it is handed out. */
  readonly input: InputBuffer;
  /** Delays reads and lines, if a limit on their rate is set. */
  pace: Pace | undefined;
  /** The one outstanding read; undefined once its bytes have been added to the input. */
  outstanding: Promise<number | null> | undefined;
  /** Whether the server waits for the peer. */
  waiting = false;
  /** What has begun, and is waited for. */
  begun: Begun | undefined;
  /** Whether this side has opened the connection, so that its peer is a server. */
  outgoing = false;
  /** Whether the handler wants more input than has come. */
  wanting = false;
  /** Whether the handler has worked for a while without asking for what a client has sent. */
  unasked = false;
  /** Maximum size of the input that the handler waits for, in bytes. */
  mostBytes = 0;
  /**
   * Whether the answerer is called before the next read: bytes were read ahead, the rest of the input has another framing
   * now, or its end is still to be answered.
   */
  answersFirst = false;
  /**
   * Whether the input buffer must not change: it holds lines or replies that are in use, or the beginning of a TLS
   * handshake.
   */
  pinned = false;
  /** Whether nothing more is read, and what has come is not handed out either. */
  stopped = false;
  /** Why the input ended; undefined while there may be more, and if `stop` ended it. */
  endReason: EndReason | undefined;
  /** Whether the peer has ended its side. */
  peerEnded = false;
  #finishing: Finishing | undefined;
  #handlerWait: HandlerWait | undefined;
  /**
   * Work since the reader last yielded, in bytes; and the lines at hand that the handler may get until it yields. The work
   * begins at random, so that connections that began together do not all yield in the same round of the event loop.
   */
  #workSinceYield = Math.floor(Math.random() * SHARE_BYTES);
  #linesLeft = SHARE_LINES;
  /** The number of whole lines that have come, and the number at which the connection is told. */
  lineCount = 0;
  #maxLines: number | undefined;
  /** The number of bytes that have come. */
  byteCount = 0;

  /**
   * @param transport Where the bytes come from.
   * @param limits The limits on the size of the input, on its lines, and on its rate.
   * @param clocks Told when the server waits for the peer, and when it waits for the handler.
   * @param memory Told how much memory unfinished input takes.
   * @param clock Gives the pace its time.
   * @param owner The connection.
   */
  constructor(
    transport: Transport,
    limits: ConnLimits,
    clocks: ConnectionClocks,
    memory: Account,
    clock: Clock,
    owner: ReaderOwner,
  ) {
    this.transport = transport;
    this.#clocks = clocks;
    this.#memory = memory;
    this.#owner = owner;
    this.input = new InputBuffer(limits.maxConnectionBytes);
    this.pace = Pace.of(limits, clock);
    this.#maxLines = jitteredCount(limits.maxLines);
  }

  /** Changes the limits on the size of the input, on its lines, and on its rate. */
  setLimits(before: ConnLimits, limits: ConnLimits, clock: Clock): void {
    this.input.maxTotal = limits.maxConnectionBytes;
    if (limits.maxLines !== before.maxLines) this.#maxLines = jitteredCount(limits.maxLines);
    if (!Pace.changes(before, limits)) return;
    this.pace?.stop();
    this.pace = Pace.of(limits, clock);
  }

  /** Delays lines, if their rate is limited. */
  get linePace(): Pace | undefined {
    return this.pace?.limitsLines ? this.pace : undefined;
  }

  /** Whether reading is over; input that has come may still be handed out. */
  get over(): boolean {
    return this.stopped || this.peerEnded || this.endReason !== undefined;
  }

  /** Whether the input holds the beginning of what the handler waits for, or what it has not asked for for a while. */
  get holdsInput(): boolean {
    return (this.wanting || this.unasked && !this.pinned) && this.input.size > 0;
  }

  /**
   * Ends the input at the next line boundary at which the handler has got everything that the peer has sent.
   *
   * @param reason Why the input ends.
   * @param host The server.
   * @param atBoundary Called if the server waits for the peer at the boundary: no read would settle and report the end.
   */
  finish(reason: FinishReason, host: FinishHost, atBoundary: () => void): void {
    this.#finishing ??= new Finishing(reason, this, host, () => {
      this.endReason ??= this.input.overLimit ? "byte-limit" : reason;
      this.pace?.stop();
      // The server no longer waits for the peer, although its read does not settle.
      if (this.waiting) this.waiting = this.wanting = false, this.#clocks.rest(), atBoundary();
      this.#handlerWait?.end();
    });
  }

  /** The waits of a conversation handler; a line handler has none. */
  get handlerWait(): HandlerWait {
    return this.#handlerWait ??= new HandlerWait(this, this.#clocks);
  }

  /** Ends reading, and hands out nothing more. */
  stop(): void {
    this.stopped = true;
    this.pace?.stop();
    this.#handlerWait?.end();
  }

  /**
   * Ends the input: with `end`, if the peer has ended its side; or with a breach, which replaces an earlier reason, as the
   * rest of an input that has ended may be a last line without its end.
   *
   * @param breach What is wrong with the input.
   */
  endInput(breach?: Breach): void {
    if (breach !== undefined) this.endReason = breach;
    else if (this.peerEnded) this.endReason ??= "end";
  }

  /** Ends reading, and frees the memory of the input. */
  free(): void {
    this.stop();
    this.#memory.holdInput(0);
    if (this.pinned) return;
    // During an outstanding read, the kernel may still write into the buffer.
    if (this.outstanding === undefined) this.input.free();
    else this.outstanding.then(() => this.input.free(), () => this.input.free());
  }

  /**
   * Gives the outstanding read away, while no input waits: its bytes are no input of this reader.
   *
   * @returns The bytes, or null at the end of input; undefined if no read is outstanding.
   */
  giveAwayRead(): Promise<Uint8Array | null> | undefined {
    const read = this.outstanding;
    if (read === undefined) return undefined;
    this.outstanding = undefined;
    const space = this.input.giveAway();
    this.#holdInput();
    return read.then((count) => count === null ? null : space.subarray(0, count));
  }

  /** How many more lines, or other pieces of input, the handler may get in its turn; none while lines are delayed. */
  get atOnce(): number {
    return this.stopped || this.linePace !== undefined ? 0 : this.#linesLeft - 1;
  }

  /**
   * Notes that the handler has got a line or another piece of input without waiting for it.
   *
   * @returns A promise if the handler has had its turn and others come first; otherwise undefined.
   */
  handled(): Promise<void> | undefined {
    if (--this.#linesLeft > 0) return undefined;
    this.#linesLeft = SHARE_LINES;
    return TURNS.take(TURN_BYTES);
  }

  /** Rejects what the handler asks for. It counts as a piece of input: a handler could go on asking for ever. */
  refuse(error: unknown): Promise<never> {
    const turn = this.handled();
    return turn === undefined ? rejection(error) : harmless(turn.then(() => rejection(error)));
  }

  /** The handler wants more input than has come. */
  want(): void {
    this.wanting = true;
    this.unasked = false;
  }

  /**
   * A read has failed, and no read of the handler waits for it. Input that has come from a server, or before TLS was cut
   * off, stays for the handler, as it often says why; the read after it fails. Otherwise the connection ends: a client that
   * has reset it waits for nothing.
   */
  failedUnread(error: unknown): void {
    const keeps = this.outgoing || error instanceof Deno.errors.UnexpectedEof;
    if (keeps && this.input.size > 0) this.#clocks.halfClose();
    else this.failed(error);
  }

  /**
   * Reads until the input ends, and has each read answered. Then it tells the connection.
   *
   * @param answerer Answers the lines.
   * @returns A promise that settles after that, and never rejects.
   */
  async read(answerer: Answerer): Promise<void> {
    let reading = false;
    try {
      while (!this.over || this.answersFirst && !this.stopped) {
        this.want();
        if (this.pace !== undefined && !this.answersFirst) await this.pace.read();
        const turn = this.turn();
        if (turn !== undefined) await turn;
        // Bytes that were read ahead meanwhile come first: the peer may send no more before they are answered.
        if (!this.answersFirst) {
          const read = this.#waitFor(answerer);
          if (read === undefined) break;
          reading = true;
          if (!this.readSettled(read, await read)) break;
          reading = false;
        }
        this.wanting = false;
        if (this.mustWait) await this.room();
        if (this.stopped) break;
        const answered = answerer.answer();
        if (answered !== undefined) await answered;
        this.pinned = false;
      }
    } catch (error) {
      if (!reading) return this.#owner.handlerFailed(error);
      this.failed(error);
    }
    this.#owner.handlerSettled();
  }

  /** Whether what has come has to wait for memory for replies; the mere end of input needs none. */
  get mustWait(): boolean {
    return this.#memory.budget.crowded && this.input.size > 0;
  }

  /** Waits for memory for replies; the block to be answered must stay where it is meanwhile. */
  async room(): Promise<void> {
    this.#clocks.rest();
    this.pinned = true;
    await this.#memory.budget.room();
    this.pinned = false;
  }

  /** Returns the turn to wait for before the next read; undefined if it can start now. */
  turn(): Promise<void> | undefined {
    this.#workSinceYield += (SHARE_LINES - this.#linesLeft) * LINE_WORK;
    this.#linesLeft = SHARE_LINES;
    // If a read filled its buffer, the next one will probably not wait for the peer, and so would not yield.
    if (!this.input.full && this.#workSinceYield <= SHARE_BYTES) return undefined;
    const work = this.#workSinceYield;
    this.#workSinceYield = 0;
    return TURNS.take(Math.max(work, READ_WORK));
  }

  /** Starts waiting for what an answerer wants next; undefined if there can be no more. */
  #waitFor({ begun, mostBytes }: Answerer): Promise<number | null> | undefined {
    this.begun = begun;
    this.mostBytes = mostBytes;
    return this.wait();
  }

  /** Starts waiting for the peer, with the outstanding read or a new one; undefined if there can be none. */
  wait(): Promise<number | null> | undefined {
    if (this.over) return undefined;
    try {
      const read = this.outstanding ?? this.startRead();
      if (read === undefined) return undefined;
      this.waiting = true;
      this.#clocks.wait(this.begun);
      this.#finishing?.waiting();
      return read;
    } catch (error) {
      this.failed(error);
    }
  }

  /** Handles a settled read, unless `readAhead` has done so; returns whether bytes may be handed out. */
  readSettled(read: Promise<number | null>, count: number | null): boolean {
    this.waiting = false;
    if (this.outstanding !== read) return true;
    if (this.over) return false;
    this.received(count);
    return true;
  }

  /** A read has failed. */
  failed(error: unknown): void {
    this.waiting = false;
    this.outstanding = undefined;
    this.#owner.failed(error);
  }

  /**
   * Starts a read.
   *
   * @param over Whether reading is over, so that what comes will be dropped.
   * @returns The read; undefined if its buffer passed the memory limit, and this connection was ended for that.
   */
  startRead(over = false): Promise<number | null> | undefined {
    const space = this.input.space(this.mostBytes, this.#memory.budget.tight);
    this.#holdInput();
    if (this.over && !over || this.input.freed) return undefined;
    const most = this.pace?.beginRead() ?? Infinity;
    const read = this.transport.read(space.length > most ? space.subarray(0, most) : space);
    // The same promise, unless a custom transport returns something else.
    return this.outstanding = Promise.resolve(read);
  }

  /** Reports how much memory the input takes. */
  #holdInput(): void {
    if (this.input.extraBytes !== this.#memory.input) this.#memory.holdInput(this.input.extraBytes);
  }

  /** Frees the input's buffer if memory is short and nothing is in it: the handler may work for long. */
  letGo(): void {
    // A read that is outstanding writes into the buffer.
    if (!this.#memory.budget.tight || this.outstanding !== undefined) return;
    // A buffer with input in it stays, and must not count again if the connection has ended.
    if (this.input.letGo()) this.#holdInput();
  }

  /** Handles the result of the outstanding read: bytes, or the end of the peer's side. */
  received(count: number | null): void {
    // First: `readAhead` ignores the error of a read that is no longer outstanding.
    if (count !== null) checkTransferred("read", count, this.input.spaceBytes);
    this.outstanding = undefined;
    if (count === null) {
      this.peerEnded = true;
      return this.#clocks.halfClose();
    }
    this.byteCount += count;
    this.#workSinceYield += count;
    this.input.added(count);
    this.pace?.took(count);
  }

  /** Notes that the handler has got lines without waiting for them: they count towards its turn. */
  gaveLines(count: number): void {
    this.#linesLeft -= count;
    this.linesCame(count);
  }

  /** Counts whole lines that have come. */
  linesCame(lines: number): void {
    this.lineCount += lines;
    if (this.#maxLines !== undefined && this.lineCount >= this.#maxLines) this.#owner.finish("max-lines");
  }
}
