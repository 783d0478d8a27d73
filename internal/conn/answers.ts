/**
 * Answering with a line handler: it gets the lines, and its replies go to the outbox.
 *
 * @module
 */

import { countLineFeeds, LF } from "../lines/ascii.ts";
import { Limiter } from "../lines/limiter.ts";
import type { LineCutter } from "../lines/line_cutter.ts";
import { countLines, decodeLines, encodeLine } from "../lines/text.ts";
import type { Budget } from "../memory/budget.ts";
import type { ConnectionClocks } from "../time/conn_clocks.ts";
import { show } from "../api/check.ts";
import { harmless } from "../api/errors.ts";
import { ANSWER_BYTES, type BytesHandler, type Conn } from "../api/handlers.ts";
import type { ResolvedFraming } from "../api/framing.ts";
import type { Outbox } from "../io/outbox.ts";
import type { Answerer, Reader } from "../io/reader.ts";

/** Maximum length of a block, in bytes, that is answered as bytes whatever its lines: for more, text may be faster. */
const SHORT_BYTES = 4 * 1024;

/** Minimum length of the lines, in bytes, of a longer block that is answered as text: shorter ones are slow to count in it. */
const LONG_LINE_BYTES = 32;

/** The parts of the connection, as a line handler's answers need them. */
interface AnsweredConn<Data> {
  /** What the handler gets. */
  readonly handle: Conn<Data>;
  /** Settles when TLS has begun, or cannot begin; undefined while the connection does not begin it. */
  readonly upgraded: Promise<unknown> | undefined;
}

/** Calls the line handler for the lines of one connection, and writes its replies. */
export class Answers<Data> implements Answerer {
  readonly #conn: AnsweredConn<Data>;
  readonly #reader: Reader;
  readonly #cutter: LineCutter;
  readonly #outbox: Outbox;
  readonly #clocks: ConnectionClocks;
  readonly #handler: BytesHandler<Data>;
  readonly #budget: Budget;
  /** Cuts blocks of lines for a handler that answers them at once; undefined while each line is cut on its own. */
  #limiter: Limiter | undefined;
  /** The framing for which that was chosen; undefined if it is to be chosen anew. */
  #arrangedFor: ResolvedFraming | undefined;
  /** Whether the handler is running. */
  answering = false;

  /**
   * @param conn The parts of the connection.
   * @param reader Counts the lines, and says whether more are to be answered.
   * @param cutter Cuts lines, and knows their framing.
   * @param outbox Where the replies go.
   * @param clocks Told when the connection starts and stops waiting for the handler.
   * @param budget Says whether memory is short.
   * @param handler Answers the lines.
   */
  constructor(
    conn: AnsweredConn<Data>,
    reader: Reader,
    cutter: LineCutter,
    outbox: Outbox,
    clocks: ConnectionClocks,
    budget: Budget,
    handler: BytesHandler<Data>,
  ) {
    this.#conn = conn;
    this.#reader = reader;
    this.#cutter = cutter;
    this.#outbox = outbox;
    this.#clocks = clocks;
    this.#handler = handler;
    this.#budget = budget;
  }

  /** Chooses how lines are cut, for the framing and the limits that hold from now on. */
  #arrange(framing: ResolvedFraming): void {
    const { lineEnd, encoding, invalidText, unterminated, onLongLine } = framing;
    const plain = (lineEnd === "any" || lineEnd === "lf") && encoding === "utf-8" && invalidText === "replace";
    // The cutter drops the rest of a line that was too long under another framing.
    const { skipping } = this.#cutter;
    const inBlocks = !skipping && plain && unterminated === "line" && onLongLine === "close" &&
      this.#reader.linePace === undefined &&
      this.#handler.block !== undefined;
    this.#arrangedFor = skipping ? undefined : framing;
    // What has come has another meaning now.
    const { input } = this.#reader;
    input.searchAnew();
    this.#limiter = inBlocks ? new Limiter(this.#cutter.maxLineBytes, framing.dropsCr, input) : undefined;
  }

  /** Limits have changed. */
  limitsChanged(): void {
    this.#arrangedFor = undefined;
  }

  /** Whether the handler is answering lines that it has got together. */
  get inBlock(): boolean {
    return this.answering && this.#limiter !== undefined;
  }

  get begun(): "line" | undefined {
    return this.#cutter.begun ? "line" : undefined;
  }

  get mostBytes(): number {
    return this.#cutter.mostBytes;
  }

  answer(): Promise<void> | undefined {
    const { framing } = this.#cutter;
    if (framing !== this.#arrangedFor) this.#arrange(framing);
    this.#reader.answersFirst = false;
    return this.#limiter === undefined ? this.#answerEach() : this.#answerBlock(this.#limiter);
  }

  #answerBlock(limiter: Limiter): Promise<void> | undefined {
    const reader = this.#reader;
    let block = limiter.cut();
    this.#clocks.bytesCame(block !== undefined);
    // At the end of input, an unterminated last line is a block of its own, behind the others.
    const whole = block !== undefined;
    if (reader.peerEnded) block ??= limiter.end();
    if (block === undefined) {
      reader.endInput(limiter.breach);
      return undefined;
    }
    // The end, or a breach, is seen to when this block has been answered.
    if (limiter.breach !== undefined || reader.peerEnded) reader.answersFirst = true;
    const dropsCr = this.#cutter.framing.dropsCr;
    if (this.#handler[ANSWER_BYTES] === undefined || !isFasterAsBytes(block) || this.#budget.tight) {
      const text = decodeLines(block, dropsCr);
      this.#cutter.gave(block, whole);
      reader.letGo();
      reader.linesCame(countLines(text));
      return this.#answerText(text);
    }
    reader.linesCame(countLineFeeds(block));
    return this.#answerBytes(block, dropsCr);
  }

  #answerBytes(lines: Uint8Array<ArrayBuffer>, dropsCr: boolean): Promise<void> {
    this.answering = true;
    const replies = this.#handler[ANSWER_BYTES]!(lines);
    this.answering = false;
    if (replies === undefined) return this.#answerText(decodeLines(lines, dropsCr));
    this.#reader.pinned = true;
    if (replies === lines) this.#outbox.lend(lines);
    else this.#outbox.add(checkBytes(replies));
    return this.#outbox.flush();
  }

  #answerText(lines: string): Promise<void> {
    this.answering = true;
    const replies = this.#handler.block!(lines, this.#conn.handle);
    return replies instanceof Promise ? this.#answerLater(replies) : this.#answered(replies);
  }

  async #answerLater(replies: Promise<string>): Promise<void> {
    await this.#answered(await this.#pending(replies));
  }

  /** The handler has answered a block. If it has changed the framing, the rest of the input has another meaning. */
  #answered(replies: string): Promise<void> {
    this.answering = false;
    if (this.#cutter.framing !== this.#arrangedFor && this.#reader.input.size > 0) this.#reader.answersFirst = true;
    this.#outbox.add(checkText(replies, "a string"));
    return this.#outbox.flush();
  }

  /** Answers line by line: the lines that have come, and at the end of input the unterminated last one. */
  async #answerEach(): Promise<void> {
    const [reader, cutter, outbox] = [this.#reader, this.#cutter, this.#outbox];
    let line = this.#cut();
    this.#clocks.bytesCame(line !== undefined);
    for (; line !== undefined; line = this.#cut()) {
      const wait = reader.linePace?.line((most) => 1 + cutter.count(most - 1));
      if (wait !== undefined) outbox.flush(), await wait;
      if (reader.stopped) return;
      reader.linesCame(1);
      this.answering = true;
      // What the handler changes holds from the next line.
      const { framing } = cutter;
      // Called by itself: as a method of this object, a handler would find its parts in `this`.
      const handler = this.#handler;
      let reply = handler(line, this.#conn.handle);
      if (typeof reply === "object") reply = await this.#pending(reply);
      this.answering = false;
      if (outbox.closed === undefined && reply !== undefined) {
        outbox.add(encodeLine(checkText(reply, "a string or undefined"), framing));
      }
      // A handler need not wait until TLS has begun. It must get no line that comes before that: an attacker on the way
      // can have inserted it.
      if (this.#conn.upgraded !== undefined) await this.#conn.upgraded;
      if (!outbox.hasRoom) await outbox.flush();
      const turn = reader.handled();
      if (turn !== undefined) await turn;
      if (reader.stopped) break;
    }
    await outbox.flush();
    // The handler may have closed the connection at its last line. What has come meanwhile, perhaps the end of input, is
    // cut before it is decided why the input ended.
    if (reader.stopped || reader.answersFirst) return;
    reader.endInput(cutter.breach ?? (reader.input.overLimit ? "byte-limit" : undefined));
  }

  #cut(): string | undefined {
    return this.#cutter.next() ?? (this.#reader.peerEnded ? this.#cutter.end() : undefined);
  }

  /** Awaits a reply. If it takes longer than this iteration of the event loop, earlier replies are sent meanwhile. */
  async #pending<T>(reply: Promise<T> | T): Promise<T> {
    this.#outbox.flushSoon();
    this.#reader.letGo();
    this.#clocks.work();
    try {
      return await reply;
    } finally {
      this.#clocks.stopHandler();
    }
  }
}

/** Whether a block is answered faster as bytes than as text. The first of its lines stands for all of them. */
function isFasterAsBytes(block: Uint8Array): boolean {
  return block.length <= SHORT_BYTES || block.indexOf(LF) < LONG_LINE_BYTES;
}

function checkBytes(replies: unknown): Uint8Array {
  if (replies instanceof Uint8Array) return replies;
  throw wrongReply(replies, "a Uint8Array or undefined");
}

function checkText(reply: unknown, expected: string): string {
  if (typeof reply === "string") return reply;
  throw wrongReply(reply, expected);
}

function wrongReply(reply: unknown, expected: string): TypeError {
  // The handler must not return a promise here; nothing else would handle its rejection.
  if (reply instanceof Promise) harmless(reply);
  return new TypeError(`Cannot send what the line handler returned: expected ${expected}, got ${show(reply)}`);
}
