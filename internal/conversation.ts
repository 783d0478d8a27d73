/**
 * The second door: a connection's lines as one async iterator.
 *
 * @module
 */

import { TextLineStream } from "@std/streams/text-line-stream";
import type { Blocks } from "./blocks.ts";
import { turn, TURN_LINES } from "./turn.ts";
import { countLines } from "./text.ts";

/**
 * Lines in the order in which they came. Leaving a loop with `break` leaves the rest for the next loop.
 *
 * They come out of a `TextLineStream` that is fed by hand. A pipe would read ahead, and the clocks could not tell a
 * handler that works from a peer that is silent; and each pipe costs microseconds a line.
 */
export class Lines implements AsyncIterableIterator<string, undefined> {
  readonly #blocks: Blocks;
  /** Made when lines first come together, which in many a dialogue they never do. */
  #stream: LineStream | undefined;
  #pulling: Promise<void> | undefined;
  #wake: (() => void) | undefined;
  /** A line that came alone, as most do in a dialogue: it need not go through the stream, which costs microseconds. */
  #lone: string | undefined;
  /** Lines that have come here; a pace may hold back more. */
  #came = 0;
  #claimed = 0;
  #over = false;
  #stopped = false;

  constructor(blocks: Blocks) {
    this.#blocks = blocks;
  }

  /** The next line; done when there will be no more, whatever the cause. */
  async next(): Promise<IteratorResult<string, undefined>> {
    while (this.#stopped || this.#claimed === this.#came) {
      if (this.#over) return { value: undefined, done: true };
      await (this.#pulling ??= this.#pull());
    }
    const isTurnOver = ++this.#claimed % TURN_LINES === 0;
    const lone = this.#lone;
    this.#lone = undefined;
    const value = lone ?? (await this.#stream!.reader.read()).value!;
    if (isTurnOver) await turn();
    return { value, done: false };
  }

  /** What `break` calls; the lines stay where they are. */
  return(): Promise<IteratorResult<string, undefined>> {
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

  /** Waits for a block, or until {@linkcode end}. */
  #pull(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = () => {
        this.#pulling = undefined;
        resolve();
      };
      this.#blocks.next().then((lines) => {
        if (lines === undefined) this.#over = true;
        else this.#take(lines);
        this.#wake!();
      });
    });
  }

  #take(lines: string): void {
    this.#came += countLines(lines);
    if (lines.indexOf("\n") === lines.length - 1) this.#lone = lines.slice(0, -1);
    // The stream drops a CR before each LF; the blocks have dropped theirs, and a second one is text.
    else (this.#stream ??= openLineStream()).writer.write(lines.replaceAll("\r\n", "\r\r\n"));
  }
}

interface LineStream {
  readonly writer: WritableStreamDefaultWriter<string>;
  readonly reader: ReadableStreamDefaultReader<string>;
}

function openLineStream(): LineStream {
  const { writable, readable } = new TextLineStream();
  return { writer: writable.getWriter(), reader: readable.getReader() };
}
