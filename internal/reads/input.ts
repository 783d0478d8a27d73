/**
 * The reads of a conversation handler: lines and bytes, in any order, from one position in the input.
 *
 * @module
 */

import { checkReadOptions } from "../api/check.ts";
import { harmless } from "../api/errors.ts";
import type { ReadOptions } from "../api/handlers.ts";
import type { LineCutter } from "../lines/line_cutter.ts";
import type { ConnectionClocks } from "../time/conn_clocks.ts";
import type { Expiry } from "../time/expiry.ts";
import type { Breach, CloseReason } from "../api/reasons.ts";
import type { Reader } from "../io/reader.ts";
import { Bodies, type Body } from "./bodies.ts";
import { LinePass } from "./line_pass.ts";
import { busy, released } from "./read_errors.ts";
import type { Wanted } from "./wanted.ts";

type Bytes = Uint8Array<ArrayBuffer>;

/** The parts of the connection, as the input sees them. */
interface InputOwner {
  /** Why the input or the connection ended; undefined while there may be more. */
  readonly ending: CloseReason | undefined;
  /** The handler has found that there is no more input, and what is wrong with it, if anything is. */
  inputEnded(breach: Breach | undefined, atOnce: boolean): void;
  /** The peer has ended its side, and the handler has got something; perhaps it has got everything now. */
  sideEnded(): void;
}

/** A read that begins when those before it have settled, which were given up. */
interface QueuedRead {
  /** Settles with it. */
  read: Promise<unknown> | undefined;
  /** Whether it was given up, too. */
  readonly isGivenUp: () => boolean;
}

/** Takes the place of a read while the handler may not read. */
const RESERVED: QueuedRead = { read: undefined, isGivenUp: () => false };

/** Reads for a conversation handler, one read at a time. */
export class Input {
  readonly reader: Reader;
  readonly cutter: LineCutter;
  readonly #clocks: ConnectionClocks;
  readonly #owner: InputOwner;
  /** What the current read waits for, undefined if there is none; and the read itself. */
  #wanted: Wanted<unknown> | undefined;
  #reading: Promise<unknown> | undefined;
  /** The last of the reads that wait for others that were given up, or what keeps the handler from reading. */
  #queued: QueuedRead | undefined;
  /** The bodies that are read as streams. */
  readonly bodies: Bodies = new Bodies();
  /** The time limit of the current read, in milliseconds; and the error that interrupts it. */
  #timeout: number | undefined;
  #interruption: { readonly error: unknown } | undefined;
  /** Takes the listener off the signal of the current read, if it has one. */
  #removeAbortListener: (() => void) | undefined;
  /** Lets lines pass, if their rate is limited. */
  #linePass: LinePass | undefined;
  /** Whether the handler has had to wait for input, and has not written since. */
  #waited = false;
  /** Settles when the peer has taken enough of what it was told of lines that were too long; undefined if it has. */
  #noticesTaken: Promise<void> | undefined;

  /**
   * @param reader Where the bytes come from.
   * @param cutter Cuts lines.
   * @param clocks Told when the handler waits, and when it gets something.
   * @param owner The parts of the connection.
   */
  constructor(reader: Reader, cutter: LineCutter, clocks: ConnectionClocks, owner: InputOwner) {
    this.reader = reader;
    this.cutter = cutter;
    this.#clocks = clocks;
    this.#owner = owner;
  }

  /** Why the input or the connection ended; undefined while there may be more. */
  get ending(): CloseReason | undefined {
    return this.#owner.ending;
  }

  /** Returns the next line if it has come, and nothing else is to be done first; otherwise undefined. */
  lineAtHand(options?: ReadOptions): string | undefined {
    const line = this.#atOnce > 0 && !hasOwnEnd(options) ? this.cutter.next() : undefined;
    if (line === undefined) return undefined;
    this.reader.gaveLines(1);
    this.#gaveAtOnce();
    return line;
  }

  /** How many pieces of input that have come may be taken without waiting for a turn, if the handler may read. */
  get #atOnce(): number {
    const free = this.#wanted === undefined && this.#queued === undefined && this.bodies.idle;
    return free ? this.reader.atOnce : 0;
  }

  /** The handler has got something that it did not wait for. */
  #gaveAtOnce(): void {
    this.#interruption = undefined;
    this.#clocks.gave();
    this.#clocks.handlerActed();
    if (this.reader.peerEnded) this.#owner.sideEnded();
  }

  /** Takes the next line from the input, at its end also an unterminated one. */
  cutLine(): string | undefined {
    const line = this.cutter.next() ?? (this.reader.peerEnded ? this.cutter.end() : undefined);
    if (line === undefined) return undefined;
    this.#linePass?.used();
    this.reader.linesCame(1);
    return line;
  }

  /** Takes what has come, if there is enough of it, and nothing else is to be done first. */
  takeAtOnce(options: ReadOptions, take: () => Bytes | undefined): Bytes | undefined {
    if (hasOwnEnd(options) || this.#atOnce <= 0) return undefined;
    // Counts also if it throws: a handler could go on reading for ever.
    this.reader.handled();
    try {
      const bytes = take();
      if (bytes !== undefined) this.#gaveAtOnce();
      return bytes;
    } finally {
      this.reader.input.searchAnew();
    }
  }

  /**
   * Keeps the handler from reading until {@linkcode release}. Throws if it reads already, or has left a body unread.
   *
   * @returns Settles when the reads have that were given up before; undefined if there are none.
   */
  reserve(): Promise<unknown> | undefined {
    if (this.refuses() || !this.bodies.skip(this.reader.input, this.#clocks)) {
      throw new TypeError("Cannot begin TLS: a read has not settled, or the rest of a body has not come");
    }
    const before = this.#queued?.read ?? this.#reading;
    this.#queued = RESERVED;
    return before?.catch(() => {});
  }

  /** Lets the handler read again. */
  release(): void {
    this.#queued = undefined;
    this.reader.input.searchAnew();
  }

  /** Ends a read of a stream, if it is the current read. What has come stays. */
  async cancelRead(wanted: Wanted<unknown>): Promise<void> {
    if (this.#wanted !== wanted) return;
    this.#interrupt(new Deno.errors.Interrupted("The stream was cancelled"));
    await this.#reading?.catch(() => {});
  }

  /** The time of the current read is up. */
  timedOut(): void {
    this.#interrupt(new Deno.errors.TimedOut(`Cannot read: not all has come within ${this.#timeout} ms`));
  }

  /** Has the next read from the peer wait until a promise has settled, which never rejects. */
  waitFor(told: Promise<void>): void {
    this.#noticesTaken ??= told.then(() => this.#noticesTaken = undefined);
  }

  #interrupt(error: unknown): void {
    if (this.#wanted === undefined) return;
    this.#interruption = { error };
    this.reader.handlerWait.interrupt(error);
  }

  /** Returns true for the first write after a wait for input, if no more input is there: it is probably the last reply. */
  takeAnswersLast(): boolean {
    const last = this.#waited && this.reader.input.size === 0;
    if (last) this.#waited = false;
    return last;
  }

  /**
   * Reads.
   *
   * @param wanted What is read.
   * @param options The caller's options.
   * @param body The body of which it is a part.
   */
  read<T>(wanted: Wanted<T>, options?: ReadOptions, body?: Body): Promise<T> {
    if (this.refuses(body)) return this.reader.refuse(busy());
    if (this.#wanted === undefined && this.#queued === undefined) return this.#start(wanted, options, body);
    const queued: QueuedRead = {
      read: undefined,
      isGivenUp: () =>
        (options?.signal?.aborted ?? false) || (wanted.abandoned?.() ?? false) || this.bodies.current !== body,
    };
    const start = () => {
      if (this.#queued === queued) this.#queued = undefined;
      return this.#start(wanted, options, body);
    };
    const reading = harmless((this.#queued?.read ?? this.#reading!).then(start, start));
    queued.read = reading;
    this.#queued = queued;
    return reading;
  }

  #start<T>(wanted: Wanted<T>, options?: ReadOptions, body?: Body): Promise<T> {
    try {
      if (options !== undefined) checkReadOptions(options);
      // What an earlier read has begun goes on, and so does its clock.
      options?.signal?.throwIfAborted();
    } catch (error) {
      return this.reader.refuse(error);
    }
    // If it has waited, a body may have been begun or cancelled meanwhile, or TLS.
    const isBarred = this.bodies.current !== body || this.#queued === RESERVED;
    if (isBarred) return this.reader.refuse(wanted.abandoned?.() ? released() : busy());
    this.#wanted = wanted;
    const { timeout, signal } = options ?? {};
    if (signal !== undefined) this.#listenTo(signal);
    const reading = this.#run(wanted, timeout, body);
    // It may have settled already.
    if (this.#wanted !== wanted) return harmless(reading);
    return this.#reading = reading;
  }

  /** Whether a read has to be refused: another one has not settled, and was not given up. */
  refuses(body?: Body): boolean {
    if (this.bodies.current !== body) return true;
    if (this.#queued !== undefined) return !this.#queued.isGivenUp();
    if (this.#wanted === undefined) return false;
    this.dropAbandoned();
    return this.#interruption === undefined;
  }

  /**
   * A clock has expired. If it is one of the peer's, and the current read was given up, it must not end the connection: the
   * server does not wait for the peer. Then this ends that read.
   *
   * @returns Whether that is so.
   */
  droppedAt(expiry: Expiry): boolean {
    const isWait = expiry === "idle" || expiry === "first-line-timeout";
    const dropped = isWait && this.dropAbandoned();
    if (dropped) this.#clocks.gave();
    return dropped;
  }

  /** Gives the current read up if nothing waits for its result any more; returns whether it did. */
  dropAbandoned(): boolean {
    if (!this.#wanted?.abandoned?.()) return false;
    this.#interrupt(released());
    return true;
  }

  /** Has a signal interrupt the current read. */
  #listenTo(signal: AbortSignal): void {
    const abort = () => this.#interrupt(signal.reason);
    signal.addEventListener("abort", abort);
    this.#removeAbortListener = () => signal.removeEventListener("abort", abort);
  }

  async #run<T>(wanted: Wanted<T>, timeout?: number, body?: Body): Promise<T> {
    let handlerAt = this.#begin(timeout, body);
    try {
      for (;;) {
        // Also if nothing more will come: a handler could go on reading for ever.
        const turn = this.reader.handled();
        if (turn !== undefined) await turn;
        if (this.reader.linePace !== undefined && wanted.isLine) await this.#pass();
        if (this.reader.stopped) return wanted.ended(this);
        if (this.#interruption !== undefined) throw this.#interruption.error;
        const result = this.bodies.skip(this.reader.input, this.#clocks) ? wanted.take(this) : undefined;
        if (result !== undefined) {
          handlerAt = undefined;
          if (!wanted.abandoned?.()) this.#clocks.gave();
          return result;
        }
        if (this.#ended(wanted.abandoned === undefined)) {
          // The clock of the handler stands still during a read. If the handler only reads on after the end of the input,
          // timers run during reads alone, so it is checked here.
          if (turn !== undefined && handlerAt !== undefined) this.#clocks.handlerIsDue(handlerAt);
          return wanted.ended(this);
        }
        const told = this.#noticesTaken;
        if (told !== undefined) await this.#waitUntilTold(told);
        else await this.#more(wanted), this.#waited = true;
      }
    } catch (error) {
      // A handler that awaits the read only later, or never, must not end the process when its peer leaves.
      if (this.#reading !== undefined) harmless(this.#reading);
      throw error;
    } finally {
      this.#settle(timeout, handlerAt);
    }
  }

  #more<T>(wanted: Wanted<T>): Promise<void> {
    return this.reader.handlerWait.more(this.bodies.skipped ?? wanted.begun(this), wanted.mostBytes(this));
  }

  /** Waits until the rate of lines lets the next one pass. */
  async #pass(): Promise<void> {
    if (this.reader.stopped || this.#interruption !== undefined) return;
    const wait = (this.#linePass ??= new LinePass()).wait(this.reader, this.cutter);
    if (wait !== undefined) await this.reader.handlerWait.interruptible(wait);
  }

  /** Waits for the peer to take something; it is idle if it does not, and no clock of writes runs. */
  async #waitUntilTold(told: Promise<void>): Promise<void> {
    this.#clocks.wait(undefined);
    try {
      await this.reader.handlerWait.interruptible(told);
    } finally {
      this.#clocks.rest(false);
    }
  }

  /** Returns when the handler's clock would expire: a read that gives nothing once reading is over does not change it. */
  #begin(timeout: number | undefined, body?: Body): number | undefined {
    // What an interrupted read has begun goes on, and so does its clock.
    if (this.#interruption === undefined && (body === undefined || body.left === body.count)) this.#clocks.begin();
    this.#interruption = undefined;
    const handlerAt = this.#clocks.stopHandler();
    this.#timeout = timeout;
    if (timeout !== undefined) this.#clocks.limitRead(timeout);
    return this.reader.over ? handlerAt : undefined;
  }

  #settle(timeout: number | undefined, handlerAt: number | undefined): void {
    this.#removeAbortListener?.();
    this.#removeAbortListener = undefined;
    this.#wanted = this.#reading = undefined;
    this.reader.input.searchAnew();
    if (timeout !== undefined) this.#clocks.limitRead(undefined);
    this.#clocks.work(handlerAt);
    this.reader.letGo();
    if (this.reader.peerEnded) this.#owner.sideEnded();
  }

  /**
   * Whether nothing more will come. If something is wrong with the input, it ends the connection. The signal then
   * aborts at once, unless the handler reads a stream of bytes: its pipeline may still hold lines, which the signal
   * would make it drop.
   */
  #ended(atOnce: boolean): boolean {
    const { reader, cutter } = this;
    const breach = cutter.breach ?? (reader.input.overLimit ? "byte-limit" : undefined);
    if (breach === undefined && !reader.over) return false;
    reader.endInput(breach);
    this.#clocks.toldEnd();
    this.#owner.inputEnded(breach, atOnce);
    return true;
  }
}

/** Whether a read may end before what it waits for has come. */
function hasOwnEnd(options: ReadOptions | undefined): boolean {
  return options?.timeout !== undefined || options?.signal !== undefined;
}
