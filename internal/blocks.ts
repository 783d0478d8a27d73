/**
 * Reading a connection's lines, block by block; both doors stand on it.
 *
 * @module
 */

import { countLineFeeds } from "./ascii.ts";
import type { Clock } from "./clocks.ts";
import { type Breach, Limiter, type SizeLimits } from "./limiter.ts";
import { answerHttp, answerTls } from "./misdirected.ts";
import { Pace, type PaceLimits } from "./pace.ts";
import { countLines, decodeLines } from "./text.ts";
import { LINE_WORK, TURN_LINES, TURNS } from "./turn.ts";

/** What reading needs of its connection. */
export interface Peer {
  /** Whether the connection is about to end, so that nobody should go on. */
  readonly leaving: boolean;
  /** Starts the one outstanding read; `null` is the end of input. */
  read(into: Uint8Array): Promise<number | null>;
  /** A read has settled with so many bytes, or with the end of input. */
  took(count: number | null): void;
  /** A read has failed. */
  failed(error: unknown): void;
  /** The server begins to wait for the peer, being in the middle of a line or not. */
  wait(midLine: boolean): void;
  /** It waits no longer. */
  rest(): void;
  /** So many lines have ended. */
  linesEnded(lines: number): void;
  /** Whether the server is short of memory. */
  readonly tight: boolean;
  /** Reading takes so many bytes of memory now, beyond the least. */
  holds(bytes: number): void;
}

/** What is read, how fast, and what for. */
export interface ReadLimits extends SizeLimits, PaceLimits {
  readonly answerMisdirected: boolean;
}

/** Who answers blocks. */
export interface Answerer {
  /** Whether it is to be asked about short blocks as bytes. */
  readonly takesBytes: boolean;
  /** Whether it handles each line by itself, which is more work. */
  readonly oneByOne: boolean;
  /** Answers whole lines; settles when the replies have left. */
  answer(lines: string): Promise<void>;
  /** The same, in memory that nothing is read into until it has settled; `undefined` to be given them as text. */
  answerBytes(lines: Uint8Array<ArrayBuffer>): Promise<void> | undefined;
}

/** Past so much work a turn is taken even by those whose reads seem to have waited: who knows what they read from. */
const MUCH_WORK = 2 * 1024 * 1024;

/** Up to this length, lines are handled faster as bytes than as text. */
const SHORT_BYTES = 4 * 1024;

/** Blocks of whole lines, read when they are asked for, so that the clocks know who waits for whom. */
export class Blocks {
  readonly #peer: Peer;
  readonly #limiter: Limiter;
  #reading = false;
  /** Whether lines are answered in the limiter's buffer, so that it must stay. */
  #lent = false;
  #over = false;
  /** How much work has been done without a turn for it, in bytes. */
  #work = 0;
  #extraBytes = 0;
  readonly #pace: Pace | undefined;
  /** Lines that the pace holds back. */
  #later = "";
  /** Whether a client that means another server may still be found out. */
  #greeting: boolean;
  /** What a client that means another server is told. */
  misdirected: string | Uint8Array | undefined;
  /** Whole lines that came. */
  lines = 0;
  /** Whether the answerer wants no more; what comes behind that is not what ends the connection. */
  stopped = false;
  /** Whether the input ended before the handler's interest in it did. */
  exhausted = false;

  constructor(peer: Peer, limits: ReadLimits, clock: Clock) {
    this.#peer = peer;
    this.#limiter = new Limiter(limits);
    this.#greeting = limits.answerMisdirected;
    const paced = limits.maxLinesPerSecond !== Infinity || limits.maxBytesPerSecond !== Infinity;
    if (paced) this.#pace = new Pace(limits, clock);
  }

  /** The limit that was passed, if one was. */
  get breach(): Breach | undefined {
    return this.#limiter.breach;
  }

  /** Whether the server waits for the peer. */
  get reading(): boolean {
    return this.#reading;
  }

  /** Whether it waits for the peer, and no line has begun. */
  get atRest(): boolean {
    return this.#reading && !this.#limiter.midLine;
  }

  /** Whether a line has begun and not ended. */
  get midLine(): boolean {
    return this.#limiter.midLine;
  }

  /** Whether the last read filled its buffer, so that more is likely to be there already. */
  get full(): boolean {
    return this.#limiter.full;
  }

  /** Reads no more. */
  end(): void {
    this.#over = this.exhausted = true;
    this.#pace?.stop();
  }

  /** Reads no more, and does without its memory. */
  free(): void {
    this.end();
    // Into the buffer of a read that is outstanding, the kernel may still write.
    if (!this.#reading && !this.#lent) this.#limiter.free();
  }

  /**
   * The next block.
   *
   * @returns One or more lines, each ended by one LF; `undefined` when there will be no more, whatever the cause.
   */
  next(): Promise<string | undefined> {
    return this.#pace === undefined ? this.#read() : this.#nextInPace(this.#pace);
  }

  /**
   * Has all blocks answered, one by one, until there will be no more; rejects with what the answerer throws.
   *
   * @param answerer Who answers them.
   */
  each(answerer: Answerer): Promise<unknown> {
    return this.#pace === undefined ? this.#read(answerer) : this.#eachInPace(this.#pace, answerer);
  }

  async #eachInPace(pace: Pace, answerer: Answerer): Promise<void> {
    for (let lines; !this.stopped && (lines = await this.#nextInPace(pace)) !== undefined;) {
      await answerer.answer(lines);
    }
  }

  async #nextInPace(pace: Pace): Promise<string | undefined> {
    const lines = this.#later || await this.#read();
    if (lines === undefined) return undefined;
    const end = await pace.pass(lines);
    this.#later = lines.slice(end);
    return this.#peer.leaving ? undefined : lines.slice(0, end);
  }

  /** The loop in which the answerer is, if there is one: one loop that waits for another would cost 480 bytes each. */
  async #read(answerer?: Answerer): Promise<string | undefined> {
    const peer = this.#peer;
    const limiter = this.#limiter;
    while (!this.#isOver) {
      if (this.#pace !== undefined) await this.#pace.read();
      // A read that filled its buffer did not have to wait, and neither will the next.
      if (limiter.full || this.#work > MUCH_WORK) {
        const turn = TURNS.take(this.#work);
        this.#work = 0;
        await turn;
      }
      // It may have ended meanwhile, and may be the one that gives way to make room for itself.
      if (this.#isOver) break;
      const space = this.#space();
      if (this.#isOver) break;
      let count: number | null;
      try {
        const read = peer.read(space);
        this.#reading = true;
        peer.wait(limiter.midLine);
        count = await read;
      } catch (error) {
        peer.failed(error);
        return undefined;
      } finally {
        this.#reading = false;
      }
      if (peer.leaving || this.#over) return undefined;
      peer.rest();
      peer.took(count);
      const block = this.#take(count);
      if (this.misdirected !== undefined) return undefined;
      if (block === undefined) continue;
      if (answerer === undefined) return this.#textOf(block, true);
      await this.#answer(block, answerer);
      this.#lent = false;
      if (this.stopped) return undefined;
    }
    this.exhausted = true;
  }

  #answer(block: Uint8Array<ArrayBuffer>, answerer: Answerer): Promise<void> {
    if (!answerer.takesBytes || block.length > SHORT_BYTES || this.#peer.tight) {
      return answerer.answer(this.#textOf(block, answerer.oneByOne));
    }
    const lines = countLineFeeds(block);
    this.#came(lines);
    this.#lent = true;
    const answered = answerer.answerBytes(block);
    if (answered !== undefined) return answered;
    this.#lent = false;
    if (answerer.oneByOne) this.#noteLines(lines);
    return answerer.answer(this.#decode(block));
  }

  /** The text of lines that have come now, and that will be handled one by one or all at once. */
  #textOf(block: Uint8Array, oneByOne: boolean): string {
    const text = this.#decode(block);
    const lines = countLines(text);
    if (oneByOne) this.#noteLines(lines);
    this.#came(lines);
    return text;
  }

  /** Notes what work they are, but for those for whom the door takes turns of its own. */
  #noteLines(lines: number): void {
    this.#work += (lines % TURN_LINES) * LINE_WORK;
  }

  /** Once it is leaving, the polite ending alone reads what still comes. */
  get #isOver(): boolean {
    return this.#over || this.#peer.leaving || this.#limiter.breach !== undefined;
  }

  #space(): Uint8Array {
    const space = this.#limiter.space(this.#peer.tight);
    this.#noteSize();
    return this.#pace === undefined ? space : space.subarray(0, this.#pace.maxReadBytes);
  }

  #noteSize(): void {
    const { extraBytes } = this.#limiter;
    if (extraBytes !== this.#extraBytes) this.#peer.holds(this.#extraBytes = extraBytes);
  }

  /** Its text; where memory is short, its bytes do not stay while that is answered, which can take for ever. */
  #decode(block: Uint8Array): string {
    const lines = decodeLines(block);
    if (this.#peer.tight) {
      this.#limiter.letGo();
      this.#noteSize();
    }
    return lines;
  }

  #take(count: number | null): Uint8Array<ArrayBuffer> | undefined {
    if (count === null) {
      this.#over = true;
      return this.#limiter.end();
    }
    this.#pace?.took(count);
    const block = this.#limiter.take(count);
    this.#work += count;
    if (this.#greeting) this.misdirected = answerTls(block ?? this.#limiter.held) ?? (block && answerHttp(block));
    return block;
  }

  #came(lines: number): void {
    this.#greeting = false;
    this.lines += lines;
    this.#peer.linesEnded(lines);
  }
}
