/**
 * The second door: a connection's lines as one async iterator.
 *
 * @module
 */

import type { Blocks } from "./blocks.ts";
import { TURN_BYTES, TURN_LINES, TURNS } from "./turn.ts";

type Result = IteratorResult<string, undefined>;

/**
 * Lines in the order in which they came. Leaving a loop with `break` leaves the rest for the next loop.
 *
 * They are cut from the blocks here. A `TextLineStream` would do the same, but a line costs twice the processor time in
 * one, and behind a pipe that reads ahead the clocks could not tell a handler that works from a peer that is silent.
 */
export class Lines implements AsyncIterableIterator<string, undefined> {
  readonly #blocks: Blocks;
  /** The last block that came, and where its next line begins. */
  #block = "";
  #next = 0;
  #turnLeft = TURN_LINES;
  #pulling: Promise<void> | undefined;
  #wake: (() => void) | undefined;
  #over = false;
  #stopped = false;

  constructor(blocks: Blocks) {
    this.#blocks = blocks;
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

  /** Takes no more lines than those that have come; who waits for one is told. */
  end(): void {
    this.#over = true;
    const { reading } = this.#blocks;
    this.#blocks.end();
    // A block that has come already is on its way here, and counts.
    if (reading) this.#wake?.();
  }

  /** Gives no more lines, not even those that have come. */
  stop(): void {
    this.#stopped = true;
    this.end();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  get #ready(): boolean {
    return this.#next < this.#block.length && !this.#stopped;
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

  /** Waits for a block, or until {@linkcode end}. */
  #pull(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = () => {
        this.#pulling = undefined;
        resolve();
      };
      this.#blocks.next().then((lines) => {
        if (lines === undefined) this.#over = true;
        else this.#block = lines, this.#turnLeft = TURN_LINES;
        this.#wake!();
      });
    });
  }
}
