/**
 * Reading lines, one by one or those that have come together.
 *
 * @module
 */

import { checkLineOptions } from "../api/check.ts";
import type { ReadLineOptions } from "../api/handlers.ts";
import type { Input } from "./input.ts";
import type { Wanted } from "./wanted.ts";

/** The next line; null if there are no more. */
const LINE: Wanted<string | null> = {
  take: (input) => input.cutLine(),
  isLine: true,
  begun: ({ cutter }) => cutter.begun ? "line" : undefined,
  mostBytes: ({ cutter }) => cutter.mostBytes,
  ended: () => null,
};

/** The same within a message, which the end of input may not cut off. */
const LINE_OF_MESSAGE: Wanted<string | null> = {
  ...LINE,
  begun: ({ cutter }) => cutter.begun ? "line-of-message" : 0,
};

/** The next line, as an iterator gives it. */
const NEXT_LINE: Wanted<IteratorResult<string, undefined>> = {
  ...LINE,
  take: (input) => {
    const value = input.cutLine();
    return value === undefined ? undefined : { value, done: false };
  },
  ended: () => ({ value: undefined, done: true }),
};

/** The lines that have come together, at least one. */
const NEXT_BATCH: Wanted<IteratorResult<string[], undefined>> = {
  ...LINE,
  take: (input) => {
    const line = input.cutLine();
    return line === undefined ? undefined : { value: batchFrom(input, line), done: false };
  },
  ended: () => ({ value: undefined, done: true }),
};

/** Takes the lines from the input that have come together with a line that was taken. */
function batchFrom({ reader, cutter }: Input, line: string): string[] {
  const batch = [line];
  // A line that is too long is left for the next read: what the peer is told of it comes behind the replies to these.
  cutter.nextLines(batch, reader.atOnce);
  reader.input.searchAnew();
  if (batch.length > 1) reader.gaveLines(batch.length - 1);
  return batch;
}

/** Reads the next line; null if there are no more. */
export function readLine(input: Input, options?: ReadLineOptions): Promise<string | null> {
  try {
    const wanted = options === undefined || checkLineOptions(options) ? LINE : LINE_OF_MESSAGE;
    const line = input.lineAtHand(options);
    return line === undefined ? input.read(wanted, options) : Promise.resolve(line);
  } catch (error) {
    return input.reader.refuse(error);
  }
}

/** Reads the next line, for an iterator. */
export function nextLine(input: Input): Promise<IteratorResult<string, undefined>> {
  const line = input.lineAtHand();
  return line === undefined ? input.read(NEXT_LINE) : Promise.resolve({ value: line, done: false });
}

/** Reads the lines that have come together, for an iterator. */
export function nextBatch(input: Input): Promise<IteratorResult<string[], undefined>> {
  const line = input.lineAtHand();
  return line === undefined ? input.read(NEXT_BATCH) : Promise.resolve({ value: batchFrom(input, line), done: false });
}
