/**
 * A conversation's lines as one async iterator.
 *
 * @module
 */

import type { ConnectionClocks } from "../time/conn_clocks.ts";
import type { Outbox } from "./outbox.ts";
import type { Reader } from "./reader.ts";
import { countLines } from "../lines/text.ts";
import { TURN_BYTES, TURN_LINES, TURNS } from "../time/turns.ts";

type Result = IteratorResult<string, undefined>;

/**
 * Yields lines in the order in which they came. After a `break`, the next loop gets the lines that follow.
 *
 * It cuts them from the reader's blocks. A `TextLineStream` does the same, but takes twice the processor time per line,
 * and it reads ahead, so that a handler could not change from lines to the bytes behind them.
 */
export class Lines implements AsyncIterableIterator<string, undefined> {
  readonly #reader: Reader;
  readonly #outbox: Pick<Outbox, "writeNextAtOnce">;
  readonly #clocks: Pick<ConnectionClocks, "work">;
  /** The last block that came, and the index at which its next line begins. */
  #block = "";
  #next = 0;
  #turnLeft = TURN_LINES;
  #pulling: Promise<void> | undefined;
  #over = false;

  /**
   * @param reader Where the blocks come from.
   * @param outbox Told when a block of a single line has come, whose reply is to be written at once.
   * @param clocks Told when the handler gets a block, or learns that there will be none.
   */
  constructor(reader: Reader, outbox: Pick<Outbox, "writeNextAtOnce">, clocks: Pick<ConnectionClocks, "work">) {
    this.#reader = reader;
    this.#outbox = outbox;
    this.#clocks = clocks;
  }

  /** Returns the next line; `done` when there will be no more, whatever the cause. */
  next(): Promise<Result> {
    if (!this.#ready) return this.#later();
    const result = this.#take();
    return this.#turnLeft > 0 ? Promise.resolve(result) : this.#afterTurn(result);
  }

  /** Called by `break`: keeps the lines for the next loop. */
  return(): Promise<Result> {
    return Promise.resolve({ value: undefined, done: true });
  }

  /** Gives the lines that no caller has got yet back to the reader, so that they can be read as bytes. */
  giveBack(): void {
    this.#reader.takeBack(countLines(this.#block.slice(this.#next)));
    this.#block = "";
    this.#next = 0;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  get #ready(): boolean {
    return this.#next < this.#block.length && !this.#reader.stopped;
  }

  #take(): Result {
    const end = this.#block.indexOf("\n", this.#next);
    const value = this.#block.slice(this.#next, end);
    this.#next = end + 1;
    // Drop the text, so that a quiet connection holds none of it.
    if (this.#next === this.#block.length) this.#block = "", this.#next = 0;
    this.#turnLeft--;
    return { value, done: false };
  }

  async #later(): Promise<Result> {
    while (!this.#ready) {
      if (this.#over) return { value: undefined, done: true };
      await (this.#pulling ??= this.#pull());
    }
    return this.#take();
  }

  async #afterTurn(result: Result): Promise<Result> {
    this.#turnLeft = TURN_LINES;
    await TURNS.take(TURN_BYTES);
    return result;
  }

  async #pull(): Promise<void> {
    const lines = await this.#reader.next();
    if (lines === undefined) this.#over = true;
    else this.#block = lines, this.#turnLeft = TURN_LINES;
    if (lines?.indexOf("\n") === this.#block.length - 1) this.#outbox.writeNextAtOnce();
    this.#clocks.work();
    this.#pulling = undefined;
  }
}
