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
 * Lines in the order in which they came. Leaving a loop with `break` leaves the rest for the next loop.
 *
 * They are cut from the reader's blocks here. A `TextLineStream` would do the same, but a line costs twice the processor
 * time in one, and it reads ahead, so that there would be no way back from lines to the bytes behind them.
 */
export class Lines implements AsyncIterableIterator<string, undefined> {
  readonly #reader: Reader;
  readonly #outbox: Pick<Outbox, "writeNextAtOnce">;
  readonly #clocks: Pick<ConnectionClocks, "work">;
  /** The last block that came, and where its next line begins. */
  #block = "";
  #next = 0;
  #turnLeft = TURN_LINES;
  #pulling: Promise<void> | undefined;
  #over = false;

  /**
   * @param reader Where the blocks come from.
   * @param outbox Told when a line has come alone.
   * @param clocks Told when the handler has a block to work on, or knows that there will be none.
   */
  constructor(reader: Reader, outbox: Pick<Outbox, "writeNextAtOnce">, clocks: Pick<ConnectionClocks, "work">) {
    this.#reader = reader;
    this.#outbox = outbox;
    this.#clocks = clocks;
  }

  /** The next line; done when there will be no more, whatever the cause. */
  next(): Promise<Result> {
    if (!this.#ready) return this.#later();
    const result = this.#take();
    return this.#turnLeft > 0 ? Promise.resolve(result) : this.#afterTurn(result);
  }

  /** What `break` calls; the lines stay where they are. */
  return(): Promise<Result> {
    return Promise.resolve({ value: undefined, done: true });
  }

  /** Gives the lines that nobody has taken back to the reader, for one that reads bytes. */
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
    // A connection that has become quiet holds none of its text.
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
