/**
 * What a read of a conversation handler waits for.
 *
 * @module
 */

import type { Begun } from "../time/expiry.ts";
import type { Input } from "./input.ts";

/** What a read waits for. */
export interface Wanted<T> {
  /** Takes the result from the input; undefined if more has to come. */
  readonly take: (input: Input) => T | undefined;
  /** What has begun; undefined if nothing has. */
  readonly begun: (input: Input) => Begun | undefined;
  /** Maximum size of the input that it waits for, in bytes. */
  readonly mostBytes: (input: Input) => number;
  /** Returns the result if there is no more input, or throws. */
  readonly ended: (input: Input) => T;
  /** Whether it reads a line: `maxLinesPerSecond` limits lines alone. */
  readonly isLine?: true;
  /** For `conn.readable` alone: whether its reader was released, so that nothing waits for the result any more. */
  readonly abandoned?: () => boolean;
}

/** The next line; null if there are no more. */
export const LINE: Wanted<string | null> = {
  take: (input) => input.cutLine(),
  isLine: true,
  begun: ({ cutter }) => cutter.begun ? "line" : undefined,
  mostBytes: ({ cutter }) => cutter.mostBytes,
  ended: () => null,
};

/** The same within a message, which the end of input may not cut off. */
export const LINE_OF_MESSAGE: Wanted<string | null> = {
  ...LINE,
  begun: ({ cutter }) => cutter.begun ? "line-of-message" : 0,
};

/** The next line, as an iterator gives it. */
export const NEXT_LINE: Wanted<IteratorResult<string, undefined>> = {
  ...LINE,
  take: (input) => {
    const value = input.cutLine();
    return value === undefined ? undefined : { value, done: false };
  },
  ended: () => ({ value: undefined, done: true }),
};

/** The lines that have come together, at least one. */
export const NEXT_BATCH: Wanted<IteratorResult<string[], undefined>> = {
  ...LINE,
  take: (input) => {
    const line = input.cutLine();
    return line === undefined ? undefined : { value: input.batchFrom(line), done: false };
  },
  ended: () => ({ value: undefined, done: true }),
};

/** A number of bytes that are read as a stream. */
export interface Body {
  readonly count: number;
  /** How many of them have not been read. */
  left: number;
}
