/**
 * The errors of reads.
 *
 * @module
 */

import { count, LimitError } from "../api/errors.ts";
import type { Input } from "./input.ts";

/** The errors of reads whose input has ended early, or that were too long, each with its input. */
const sources = new WeakMap<Error, Input>();

/** Whether an error only says that an input has ended within what was to be read. */
export function isEofOf(input: Input | undefined, error: unknown): boolean {
  return error instanceof Deno.errors.UnexpectedEof && input !== undefined && sources.get(error) === input;
}

/** Whether an error says that a limit was passed, and not that a read of another input has passed it. */
export function isLimitOf(input: Input | undefined, error: unknown): boolean {
  return error instanceof LimitError && [undefined, input].includes(sources.get(error));
}

/**
 * Throws the error of a read whose input has ended early.
 *
 * @param input The input.
 * @param message What could not be read.
 */
export function throwEof(input: Input, message: string): never {
  throw own(new Deno.errors.UnexpectedEof(message), input);
}

/** Returns the error of a read that would take more than it may. */
export function tooLong(input: Input, maxBytes: number): LimitError {
  return own(new LimitError("read-too-long", maxBytes), input);
}

/** Says how the input has ended: with the connection, or behind what has come. */
export function endOf({ reader, ending }: Input): string {
  return reader.stopped
    ? `the connection has ended (${ending})`
    : `the input has ended after ${bytes(reader.input.size)}`;
}

/** Returns a number of bytes as text. */
export const bytes = (number: number): string => count(number, "byte");

/** Marks an error as one of this input. */
export function own<E extends Error>(error: E, input: Input): E {
  sources.set(error, input);
  return error;
}

/** The read was given up, because the reader of its stream was released. */
export const released = (): Error => new Deno.errors.Interrupted("The stream's reader was released");

/** Another read has not settled. */
export const busy = (): TypeError => new TypeError("Cannot read: another read of this connection has not settled");
