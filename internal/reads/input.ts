/**
 * The reads of a conversation handler: lines and bytes, in any order, from one position in the input.
 *
 * @module
 */

import { delimitersOf } from "../api/framing.ts";
import { checkBytesOptions, checkCount, checkLineOptions, checkReadOptions } from "../api/check.ts";
import { harmless, LimitError } from "../api/errors.ts";
import type { Delimiter, ReadBytesOptions, ReadLineOptions, ReadOptions, ReadUntilOptions } from "../api/handlers.ts";
import { firstToEnd } from "../lines/input_buffer.ts";
import type { LineCutter } from "../lines/line_cutter.ts";
import type { ConnectionClocks } from "../time/conn_clocks.ts";
import type { Begun, Expiry } from "../time/expiry.ts";
import { type Body, LINE, LINE_OF_MESSAGE, NEXT_BATCH, NEXT_LINE, type Wanted } from "./wanted.ts";
import type { Breach } from "../api/reasons.ts";
import type { Reader } from "../io/reader.ts";

type Bytes = Uint8Array<ArrayBuffer>;

/** The parts of the connection, as the input sees them. */
interface InputOwner {
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
  /** The body that is being read as a stream. */
  #body: Body | undefined;
  /** The number of bytes of cancelled bodies that are to be skipped, and that have come. */
  #toSkip = 0;
  #skippedBytes = 0;
  /** The time limit of the current read, in milliseconds; and the error that interrupts it. */
  #timeout: number | undefined;
  #interruption: { readonly error: unknown } | undefined;
  /** Takes the listener off the signal of the current read, if it has one. */
  #removeAbortListener: (() => void) | undefined;
  /** The wait for the pace, which an interrupted read leaves to the next one; and whether a line may pass. */
  #passing: Promise<void> | undefined;
  #mayPass = false;
  /** Whether the handler has had to wait for input, and has not written since. */
  #waited = false;
  /** Settles when the peer has taken enough of what it was told of lines that were too long; undefined if it has. */
  #toldOf: Promise<void> | undefined;

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

  /** Reads the next line; null if there are no more. */
  readLine(options?: ReadLineOptions): Promise<string | null> {
    try {
      const wanted = options === undefined || checkLineOptions(options) ? LINE : LINE_OF_MESSAGE;
      const line = hasOwnEnd(options) ? undefined : this.lineAtHand();
      return line === undefined ? this.read(wanted, options) : Promise.resolve(line);
    } catch (error) {
      return this.reader.refuse(error);
    }
  }

  /** Reads the next line, for an iterator. */
  nextLine(): Promise<IteratorResult<string, undefined>> {
    const line = this.lineAtHand();
    return line === undefined ? this.read(NEXT_LINE) : Promise.resolve({ value: line, done: false });
  }

  /** Returns the next line if it has come, and nothing else is to be done first; otherwise undefined. */
  lineAtHand(): string | undefined {
    const line = this.#atOnce > 0 ? this.cutter.next() : undefined;
    if (line === undefined) return undefined;
    this.reader.gaveLines(1);
    this.#gaveAtOnce();
    return line;
  }

  /** How many pieces of input that have come may be taken without waiting for a turn, if the handler may read. */
  get #atOnce(): number {
    const free = this.#wanted === undefined && this.#queued === undefined && this.#body === undefined;
    return free && this.#toSkip === 0 ? this.reader.atOnce : 0;
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
    this.#mayPass = false;
    this.reader.came(1);
    return line;
  }

  /** Reads the lines that have come together, for an iterator. */
  nextBatch(): Promise<IteratorResult<string[], undefined>> {
    const line = this.lineAtHand();
    return line === undefined ? this.read(NEXT_BATCH) : Promise.resolve({ value: this.batchFrom(line), done: false });
  }

  /** Takes the lines from the input that have come together with a line that was taken. */
  batchFrom(line: string): string[] {
    const batch = [line];
    // A line that is too long is left for the next read: what the peer is told of it comes behind the replies to these.
    this.cutter.nextLines(batch, this.reader.atOnce);
    this.#forgetSearch();
    if (batch.length > 1) this.reader.gaveLines(batch.length - 1);
    return batch;
  }

  /** Reads a number of bytes. */
  readExactly(count: number, options: ReadBytesOptions = {}): Promise<Bytes> {
    try {
      if (this.#refuses()) throw busy();
      const { maxBytes, boundary } = checkBytesOptions("readExactly", options);
      checkCount("count", count);
      if (count > maxBytes) throw this.#tooLong(maxBytes);
      const { input } = this.reader;
      const take = () => input.size >= count ? input.take(count) : undefined;
      const atHand = this.#takeAtOnce(options, take);
      if (atHand !== undefined) return Promise.resolve(atHand);
      const ended = () => this.eof(`Cannot read ${count} bytes: the input has ended ${this.#endedAfter}`);
      return this.read({ take, begun: () => this.#begunBytes(boundary), mostBytes: () => count, ended }, options);
    } catch (error) {
      return this.reader.refuse(error);
    }
  }

  /** Reads up to a delimiter, or one of several; null if there is no more input. */
  readUntil(delimiter: Delimiter | readonly Delimiter[], options: ReadUntilOptions = {}): Promise<Bytes | null> {
    try {
      if (this.#refuses()) throw busy();
      const { maxBytes, boundary, keepDelimiter } = checkBytesOptions("readUntil", options);
      const wanted = delimitersOf(delimiter, this.cutter.framing.encoding);
      const { input } = this.reader;
      const take = () => this.#takeUntil(wanted, maxBytes, keepDelimiter);
      const atHand = this.#takeAtOnce(options, take);
      if (atHand !== undefined) return Promise.resolve(atHand);
      const cut = () => this.eof(`Cannot read up to the delimiter: the input has ended ${this.#endedAfter}`);
      const [begun, ended] = [() => this.#begunBytes(boundary), () => input.size === 0 ? null : cut()];
      return this.read<Bytes | null>({ take, begun, mostBytes: () => maxBytes + longest(wanted), ended }, options);
    } catch (error) {
      return this.reader.refuse(error);
    }
  }

  /** What has begun while a read of bytes waits: nothing, if a message begins with it of which no byte has come. */
  #begunBytes(boundary: boolean): Begun | undefined {
    const { size } = this.reader.input;
    return boundary && size === 0 ? undefined : size;
  }

  /** Takes what has come, if there is enough of it, and nothing else is to be done first. */
  #takeAtOnce(options: ReadBytesOptions, take: () => Bytes | undefined): Bytes | undefined {
    if (hasOwnEnd(options) || this.#atOnce <= 0) return undefined;
    // Counts also if it throws: a handler could go on reading for ever.
    this.reader.handled();
    try {
      const bytes = take();
      if (bytes !== undefined) this.#gaveAtOnce();
      return bytes;
    } finally {
      this.#forgetSearch();
    }
  }

  #takeUntil(delimiters: Uint8Array[], maxBytes: number, keeps: boolean): Bytes | undefined {
    const { input } = this.reader;
    const { bytes, start, searched, end } = input;
    const found = firstToEnd(bytes, delimiters, searched, end);
    input.searched = found?.at ?? Math.max(start, end - longest(delimiters) + 1);
    const length = input.searched - start;
    if (length > maxBytes) throw this.#tooLong(maxBytes);
    if (found === undefined) return undefined;
    const data = input.take(keeps ? length + found.length : length);
    if (!keeps) input.skip(found.length);
    return data;
  }

  /** Begins to read a number of bytes as a stream; other reads are refused until it is read or cancelled. */
  beginBody(count: number): Body {
    if (this.#refuses()) throw busy();
    checkCount("count", count);
    const body = { count, left: count };
    if (count > 0) this.#body = body;
    return body;
  }

  /**
   * Keeps the handler from reading until {@linkcode release}. Throws if it reads already, or has left a body unread.
   *
   * @returns Settles when the reads have that were given up before; undefined if there are none.
   */
  reserve(): Promise<unknown> | undefined {
    if (this.#refuses() || !this.#skipped()) {
      throw new TypeError("Cannot begin TLS: a read has not settled, or the rest of a body has not come");
    }
    const before = this.#queued?.read ?? this.#reading;
    this.#queued = RESERVED;
    return before?.catch(() => {});
  }

  /** Lets the handler read again. */
  release(): void {
    this.#queued = undefined;
    this.#forgetSearch();
  }

  /** Notes that bytes of a body have been read, or that there are no more. */
  tookOfBody(body: Body, count: number): void {
    body.left -= count;
    if (body.left === 0) this.#body = undefined;
  }

  /** Ends a body early: what has not been read of it is skipped before the next read. */
  async cancelBody(body: Body): Promise<void> {
    if (this.#body !== body) return;
    this.#toSkip += body.left;
    this.#skippedBytes += body.count - body.left;
    this.#body = undefined;
    await this.cancelRead();
  }

  /** Ends the current read of a stream. What has come stays. */
  async cancelRead(): Promise<void> {
    this.#interrupt(new Deno.errors.Interrupted("The stream was cancelled"));
    await this.#reading?.catch(() => {});
  }

  /** The time of the current read is up. */
  timedOut(): void {
    this.#interrupt(new Deno.errors.TimedOut(`Cannot read: not all has come within ${this.#timeout} ms`));
  }

  /** Has the next read from the peer wait until a promise has settled, which never rejects. */
  waitFor(told: Promise<void>): void {
    this.#toldOf ??= told.then(() => this.#toldOf = undefined);
  }

  #interrupt(error: unknown): void {
    if (this.#wanted === undefined) return;
    this.#interruption = { error };
    this.reader.handlerWait.interrupt(error);
  }

  /** Tells a write, once for each wait, whether it answers something that was waited for, and nothing more has come. */
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
    if (this.#refuses(body)) return this.reader.refuse(busy());
    if (this.#wanted === undefined && this.#queued === undefined) return this.#start(wanted, options, body);
    const queued: QueuedRead = {
      read: undefined,
      isGivenUp: () => (options?.signal?.aborted ?? false) || (wanted.abandoned?.() ?? false) || this.#body !== body,
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
    const isKept = this.#body !== body || this.#queued === RESERVED;
    if (isKept) return this.reader.refuse(wanted.abandoned?.() ? released() : busy());
    this.#wanted = wanted;
    const { timeout, signal } = options ?? {};
    if (signal !== undefined) this.#listenTo(signal);
    const reading = this.#run(wanted, timeout, body);
    // It may have settled already.
    if (this.#wanted !== wanted) return harmless(reading);
    return this.#reading = reading;
  }

  /** Whether a read has to be refused: another one has not settled, and was not given up. */
  #refuses(body?: Body): boolean {
    if (this.#body !== body) return true;
    if (this.#queued !== undefined) return !this.#queued.isGivenUp();
    if (this.#wanted === undefined) return false;
    this.dropAbandoned();
    return this.#interruption === undefined;
  }

  /** A clock has expired; returns whether that is none of the peer's, because the handler works and waits for no read. */
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
    const { reader } = this;
    let handlerAt = this.#begin(timeout, body);
    try {
      for (;;) {
        // Also if nothing more will come: a handler could go on reading for ever.
        const turn = reader.handled();
        if (turn !== undefined) await turn;
        if (reader.pace !== undefined && wanted.isLine && !reader.stopped) await this.#pass();
        if (reader.stopped) return wanted.ended(this);
        if (this.#interruption !== undefined) throw this.#interruption.error;
        const result = this.#skipped() ? wanted.take(this) : undefined;
        if (result !== undefined) {
          handlerAt = undefined;
          if (!wanted.abandoned?.()) this.#clocks.gave();
          return result;
        }
        if (this.#ended(wanted.abandoned === undefined)) {
          // Timers run only in a turn if the handler goes on reading after the end, and its clock stands still then.
          if (turn !== undefined && handlerAt !== undefined) this.#clocks.handlerIsDue(handlerAt);
          return wanted.ended(this);
        }
        if (this.#toldOf !== undefined) {
          await this.#waitUntilTold(this.#toldOf);
          continue;
        }
        await reader.handlerWait.more(
          this.#toSkip > 0 ? this.#skippedBytes : wanted.begun(this),
          wanted.mostBytes(this),
        );
        this.#waited = true;
      }
    } catch (error) {
      // A handler that awaits the read only later, or never, must not end the process when its peer leaves.
      if (this.#reading !== undefined) harmless(this.#reading);
      throw error;
    } finally {
      this.#settle(timeout, handlerAt);
    }
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
    this.#forgetSearch();
    if (timeout !== undefined) this.#clocks.limitRead(undefined);
    this.#clocks.work(handlerAt);
    this.reader.letGo();
    if (this.reader.peerEnded) this.#owner.sideEnded();
  }

  /** Has the next read search all that has come: it may look for something else. */
  #forgetSearch(): void {
    const { input } = this.reader;
    input.searched = input.start;
  }

  /** Waits until the pace lets the next line pass, if there is one. */
  async #pass(): Promise<void> {
    if (this.#mayPass || this.#interruption !== undefined || this.cutter.count(1) === 0) return;
    this.#passing ??= this.reader.pace?.line((most) => this.cutter.count(most))?.then(() => {
      this.#passing = undefined;
      this.#mayPass = true;
    });
    const wait = this.#passing;
    if (wait === undefined) this.#mayPass = true;
    else await this.reader.handlerWait.interruptible(wait);
  }

  /** Skips what is left of cancelled bodies; returns whether it has all come. */
  #skipped(): boolean {
    if (this.#toSkip === 0) return true;
    const { input } = this.reader;
    const count = Math.min(this.#toSkip, input.size);
    this.#toSkip -= count;
    this.#skippedBytes += count;
    input.skip(count);
    if (this.#toSkip > 0) return false;
    this.#skippedBytes = 0;
    this.#clocks.begin();
    return true;
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
    reader.endIfDone(breach);
    this.#clocks.toldEnd();
    this.#owner.inputEnded(breach, atOnce);
    return true;
  }

  /** How much input there was, or that the server hands out no more of it; to be read after "the input has ended". */
  get #endedAfter(): string {
    return this.reader.stopped ? "with the connection" : `after ${this.reader.input.size}`;
  }

  /** Throws the error of a read whose input has ended early. */
  eof(message: string): never {
    throw this.#own(new Deno.errors.UnexpectedEof(message));
  }

  #tooLong(maxBytes: number): LimitError {
    return this.#own(new LimitError("read-too-long", maxBytes));
  }

  #own<E extends Error>(error: E): E {
    sources.set(error, this);
    return error;
  }
}

/** Whether a read may end before what it waits for has come. */
function hasOwnEnd(options: ReadOptions | undefined): boolean {
  return options?.timeout !== undefined || options?.signal !== undefined;
}

/** The errors of reads whose input has ended early, or that were too long, each with its input. */
const sources = new WeakMap<Error, Input>();

/** Returns the input whose read has thrown an error; `undefined` for an error that no read has thrown. */
export function sourceOf(error: unknown): Input | undefined {
  return error instanceof Error ? sources.get(error) : undefined;
}

const longest = (delimiters: Uint8Array[]) => delimiters.reduce((most, { length }) => Math.max(most, length), 0);

const released = () => new Deno.errors.Interrupted("The stream's reader was released");

const busy = () => new TypeError("Cannot read: another read of this connection has not settled");
