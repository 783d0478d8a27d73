/**
 * The second door: a connection's lines as one async iterator over the classic pipeline of streams.
 *
 * @module
 */

import { TextLineStream } from "@std/streams/text-line-stream";
import { ByteLimitStream } from "./byte_limit_stream.ts";
import type { Breach, SizeLimits } from "./limiter.ts";
import type { Input, Peer } from "./peer.ts";

/** Lines in the order in which they came. Leaving a loop with `break` leaves the rest for the next loop. */
export class Lines implements AsyncIterableIterator<string>, Input {
  readonly #peer: Peer;
  readonly #limit: ByteLimitStream;
  readonly #reader: ReadableStreamDefaultReader<string>;
  readonly #source: { end(): void };
  #taken = 0;
  /** How many lines there will be in all, once that is known. */
  #last = Infinity;
  #waiting = 0;

  constructor(peer: Peer, limits: SizeLimits) {
    this.#peer = peer;
    const { maxLineBytes, maxConnectionBytes } = limits;
    this.#limit = new ByteLimitStream({ maxLineBytes, maxConnectionBytes, error: false });
    const { readable, end } = byteSource(async (into) => {
      try {
        const count = await peer.read(into);
        if (peer.leaving) return null;
        peer.took(count);
        // Bytes are progress: the clocks begin anew, now inside a line, unless this ends it, and then they rest soon.
        if (count !== null && this.#waiting > 0) this.#restart();
        return count;
      } catch (error) {
        peer.failed(error);
        return null;
      }
    });
    this.#source = { end };
    this.#reader = readable
      .pipeThrough(this.#limit)
      .pipeThrough(new TextDecoderStream("utf-8", { ignoreBOM: true }))
      .pipeThrough(new TextLineStream())
      .getReader();
  }

  get breach(): Breach | undefined {
    return this.#limit.breach;
  }

  get count(): number {
    return this.#limit.lines;
  }

  get atRest(): boolean {
    return this.#starved && !this.#limit.midLine;
  }

  /** Whether the handler has every line that came and waits for more. */
  get #starved(): boolean {
    return this.#waiting > 0 && this.#taken === this.#limit.lines;
  }

  /** The next line; done when there will be no more, whatever the cause. */
  async next(): Promise<IteratorResult<string, undefined>> {
    this.#waiting++;
    if (this.#starved) this.#peer.wait(this.#limit.midLine);
    const { value, done } = await this.#reader.read();
    if (--this.#waiting === 0) this.#peer.rest();
    // What was cut off in mid-line when the lines were ended from this side is no line.
    if (done || this.#taken === this.#last) return { value: undefined, done: true };
    this.#taken++;
    this.#peer.lineEnded();
    return { value, done };
  }

  /** What `break` calls; the lines stay where they are. */
  return(): Promise<IteratorResult<string, undefined>> {
    return Promise.resolve({ value: undefined, done: true });
  }

  end(): boolean {
    this.#last = this.#limit.lines;
    this.#source.end();
    return true;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #restart(): void {
    this.#peer.rest();
    this.#peer.wait(true);
  }
}

/** The least and the most that is read at once; a full buffer grows fourfold, one that is much too large shrinks. */
const LEAST_BYTES = 512;
const MOST_BYTES = 64 * 1024;

/** A stream of bytes that are read when they are asked for, and that can be ended from this side. */
function byteSource(read: (into: Uint8Array) => Promise<number | null>) {
  let size = LEAST_BYTES;
  let over = false;
  let close = () => {};
  const end = () => {
    if (over) return;
    over = true;
    close();
  };
  const readable = new ReadableStream<Uint8Array<ArrayBuffer>>({
    start(controller) {
      close = () => controller.close();
    },
    async pull(controller) {
      const buffer = new Uint8Array(size);
      const count = await read(buffer);
      if (count === null) return end();
      if (over) return;
      controller.enqueue(buffer.subarray(0, count));
      if (count === size) size = Math.min(4 * size, MOST_BYTES);
      else if (16 * count < size) size = Math.max(size / 4, LEAST_BYTES);
    },
    // The limiter has ended the stream; the transport is for its owner to close.
    cancel() {
      over = true;
    },
  }, { highWaterMark: 0 });
  return { readable, end };
}
