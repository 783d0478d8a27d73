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
