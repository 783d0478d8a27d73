/**
 * A connection's input as iterators and Web streams.
 *
 * @module
 */

import { checkCount } from "../api/check.ts";
import { countLineFeeds } from "../lines/ascii.ts";
import { SOURCES } from "../lines/byte_limit_stream.ts";
import { lastLineEnd } from "../lines/limiter.ts";
import { BLOCK_BYTES } from "../memory/buffer_pool.ts";
import { SHARE_LINES } from "../time/turns.ts";
import type { Body } from "./bodies.ts";
import type { Input } from "./input.ts";
import { nextBatch, nextLine } from "./line_reads.ts";
import { busy, own, throwEof } from "./read_errors.ts";
import type { Wanted } from "./wanted.ts";

type Bytes = Uint8Array<ArrayBuffer>;

/** What a loop gets, piece by piece. After a `break`, the next loop gets what follows. */
abstract class Pieces<T> implements AsyncIterableIterator<T, undefined> {
  protected readonly input: Input;

  /** @param input Where the pieces come from. */
  constructor(input: Input) {
    this.input = input;
  }

  /** Returns the next piece; `done` when there will be no more, whatever the cause. */
  abstract next(): Promise<IteratorResult<T, undefined>>;

  /** Called by `break`: what has come stays for the next loop. */
  return(): Promise<IteratorResult<T, undefined>> {
    return Promise.resolve({ value: undefined, done: true });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}

/**
 * Yields lines in the order in which they came.
 *
 * They are cut from the reader's bytes. A `TextLineStream` does the same, but takes twice the processor time per line,
 * and it reads ahead, so that a handler could not change from lines to the bytes behind them.
 */
export class Lines extends Pieces<string> {
  next(): Promise<IteratorResult<string, undefined>> {
    return nextLine(this.input);
  }
}

/** Yields the same lines in arrays: those that came together. */
export class Batches extends Pieces<string[]> {
  next(): Promise<IteratorResult<string[], undefined>> {
    return nextBatch(this.input);
  }
}

/**
 * Makes a stream of all bytes of an input. It reads only when it is pulled, and its end closes nothing.
 *
 * @param input Where the bytes come from.
 * @returns The stream.
 */
export function readableOf(input: Input): ReadableStream<Bytes> {
  let cancelled = false;
  let pulled: Wanted<boolean> | undefined;
  const stream: ReadableStream<Bytes> = new ReadableStream({
    type: "bytes",
    async pull(controller) {
      // A read into a buffer of the caller's own stays with the stream until it has got bytes.
      const abandoned = () => cancelled || !stream.locked && controller.byobRequest === null;
      // What does not fit into a buffer of the caller's own would stay in the stream, where no other read finds it.
      const room = () => controller.byobRequest?.view?.byteLength ?? Infinity;
      pulled = {
        // `take` checks `abandoned()` first. Otherwise a cancelled stream would lose these bytes, and a released one would
        // keep them from the next read.
        take: () => abandoned() || pass(takeBytes(input, room()), controller),
        begun: () => undefined,
        mostBytes: () => BLOCK_BYTES,
        ended: () => false,
        abandoned,
      };
      try {
        if (!await input.read(pulled)) close(controller);
      } catch (error) {
        // Another read has taken the place of this one.
        if (!(error instanceof Deno.errors.Interrupted)) throw error;
      }
    },
    // The bytes that have come stay for the next read.
    cancel() {
      cancelled = true;
      return pulled && input.cancelRead(pulled);
    },
  });
  SOURCES.set(stream, {
    unterminated: () => input.reader.endReason === "end" ? "line" : "drop",
    own: (error) => own(error, input),
  });
  return stream;
}

function pass(bytes: Bytes | undefined, controller: ReadableByteStreamController): true | undefined {
  if (bytes === undefined) return undefined;
  controller.enqueue(bytes);
  return true;
}

/**
 * Takes bytes that have come; of those before a limit, only whole lines. Of many short lines it takes about as many as a
 * connection handles before others come first: a pipeline handles all that it gets without waiting for the event loop.
 */
function takeBytes({ reader }: Input, most: number): Bytes | undefined {
  const { input } = reader;
  const end = input.overLimit ? lastLineEnd(input.bytes, input.start, input.end) : input.end;
  if (end <= input.start) return undefined;
  const size = Math.min(end - input.start, most, BLOCK_BYTES);
  // Not in all that has come: each small read would count most of it again.
  const lines = countLineFeeds(input.bytes.subarray(input.start, input.start + size));
  const bytes = input.take(lines > SHARE_LINES ? Math.ceil(size / lines * SHARE_LINES) : size);
  reader.gaveLines(bytes.length === size ? lines : countLineFeeds(bytes));
  return bytes;
}

/**
 * Makes a stream of a number of bytes of an input.
 *
 * @param input Where the bytes come from.
 * @param count The number of bytes.
 * @returns The stream.
 */
export function bodyOf(input: Input, count: number): ReadableStream<Bytes> {
  if (input.refuses()) throw busy();
  checkCount("count", count);
  const body = input.bodies.begin(count);
  const wanted = wantedOf(input, body);
  return new ReadableStream({
    type: "bytes",
    async pull(controller) {
      if (body.left > 0) controller.enqueue(await input.read(wanted, undefined, body));
      if (body.left === 0) close(controller);
    },
    cancel: async () => {
      if (input.bodies.cancel(body)) await input.cancelRead(wanted);
    },
  });
}

/** The next bytes of a body. */
function wantedOf(input: Input, body: Body): Wanted<Bytes> {
  const { input: buffer } = input.reader;
  return {
    take: () => {
      if (buffer.size === 0) return undefined;
      const bytes = buffer.take(Math.min(buffer.size, body.left, BLOCK_BYTES));
      input.bodies.took(body, bytes.length);
      return bytes;
    },
    begun: () => body.count - body.left,
    mostBytes: () => BLOCK_BYTES,
    ended: () => {
      const { left } = body;
      input.bodies.took(body, left);
      return throwEof(input, `Cannot read: the input has ended ${left} bytes before the end of the stream`);
    },
  };
}

/** Closes a stream, also for a reader that waits with a buffer of its own. */
function close(controller: ReadableByteStreamController): void {
  controller.close();
  controller.byobRequest?.respond(0);
}
