/**
 * A connection's input as iterators and Web streams.
 *
 * @module
 */

import type { Input } from "./input.ts";

type Bytes = Uint8Array<ArrayBuffer>;

/**
 * Yields lines in the order in which they came. After a `break`, the next loop gets the lines that follow.
 *
 * They are cut from the reader's bytes. A `TextLineStream` does the same, but takes twice the processor time per line,
 * and it reads ahead, so that a handler could not change from lines to the bytes behind them.
 */
export class Lines implements AsyncIterableIterator<string, undefined> {
  readonly #input: Input;

  /** @param input Where the lines come from. */
  constructor(input: Input) {
    this.#input = input;
  }

  /** Returns the next line; `done` when there will be no more, whatever the cause. */
  next(): Promise<IteratorResult<string, undefined>> {
    const line = this.#input.lineAtHand();
    return line === undefined ? this.#input.readLine().then(toResult) : Promise.resolve({ value: line, done: false });
  }

  /** Called by `break`: the lines stay for the next loop. */
  return(): Promise<IteratorResult<string, undefined>> {
    return Promise.resolve({ value: undefined, done: true });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}

/** Yields the same lines in arrays: those that came together. */
export class Batches implements AsyncIterableIterator<string[], undefined> {
  readonly #input: Input;

  /** @param input Where the lines come from. */
  constructor(input: Input) {
    this.#input = input;
  }

  /** Returns the next lines; `done` when there will be no more, whatever the cause. */
  next(): Promise<IteratorResult<string[], undefined>> {
    return this.#input.readBatch().then(toResult);
  }

  /** Called by `break`: the lines stay for the next loop. */
  return(): Promise<IteratorResult<string[], undefined>> {
    return Promise.resolve({ value: undefined, done: true });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}

function toResult<T>(value: T | null): IteratorResult<T, undefined> {
  return value === null ? { value: undefined, done: true } : { value, done: false };
}

/**
 * Makes a stream of all bytes of an input. It reads only when it is pulled, and its end closes nothing.
 *
 * @param input Where the bytes come from.
 * @returns The stream.
 */
export function readableOf(input: Input): ReadableStream<Bytes> {
  let pulling = false;
  return new ReadableStream({
    type: "bytes",
    async pull(controller) {
      pulling = true;
      // What does not fit into a buffer of the caller's own would stay in the stream, where no other read finds it.
      const room = () => controller.byobRequest?.view?.byteLength ?? Infinity;
      const came = await input.readBytes(room, (bytes) => controller.enqueue(bytes)).finally(() => pulling = false);
      if (!came) close(controller);
    },
    // The bytes that have come stay for the next read.
    cancel: () => pulling ? input.cancelRead() : undefined,
  });
}

/**
 * Makes a stream of a number of bytes of an input.
 *
 * @param input Where the bytes come from.
 * @param count The number of bytes.
 * @returns The stream.
 */
export function bodyOf(input: Input, count: number): ReadableStream<Bytes> {
  const body = input.beginBody(count);
  return new ReadableStream({
    type: "bytes",
    async pull(controller) {
      if (body.left > 0) controller.enqueue(await input.readBody(body));
      if (body.left === 0) close(controller);
    },
    cancel: () => input.cancelBody(body),
  });
}

function close(controller: ReadableByteStreamController): void {
  controller.close();
  controller.byobRequest?.respond(0);
}
