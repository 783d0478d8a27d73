/**
 * What has been read of bodies, and what is to be skipped. A body is a number of bytes that is read as a Web stream.
 *
 * @module
 */

import type { InputBuffer } from "../lines/input_buffer.ts";
import type { ConnectionClocks } from "../time/conn_clocks.ts";

/** A number of bytes that are read as a stream. */
export interface Body {
  readonly count: number;
  /** How many of them have not been read. */
  left: number;
}

/** The body that is read now, and what is left of those that were cancelled. */
export class Bodies {
  /** While there is one, other reads are refused. */
  current: Body | undefined;
  /** The number of bytes of cancelled bodies that are to be skipped, and that have come. */
  #toSkip = 0;
  #skippedBytes = 0;

  /** Whether no body is being read, and none is to be skipped. */
  get idle(): boolean {
    return this.current === undefined && this.#toSkip === 0;
  }

  /** How many bytes of a body have come that is being skipped; undefined if none is. */
  get skipped(): number | undefined {
    return this.#toSkip > 0 ? this.#skippedBytes : undefined;
  }

  /** Begins to read a body. */
  begin(count: number): Body {
    const body = { count, left: count };
    if (count > 0) this.current = body;
    return body;
  }

  /** Notes that bytes of a body have been read, or that there are no more. */
  took(body: Body, count: number): void {
    body.left -= count;
    if (body.left === 0) this.current = undefined;
  }

  /** Ends a body early: what has not been read of it is skipped before the next read. Returns whether it was being read. */
  cancel(body: Body): boolean {
    if (this.current !== body) return false;
    this.#toSkip += body.left;
    this.#skippedBytes += body.count - body.left;
    this.current = undefined;
    return true;
  }

  /** Skips what is left of cancelled bodies; returns whether it has all come. What comes behind it has its whole time. */
  skip(input: InputBuffer, clocks: Pick<ConnectionClocks, "begin">): boolean {
    if (this.#toSkip === 0) return true;
    const count = Math.min(this.#toSkip, input.size);
    this.#toSkip -= count;
    this.#skippedBytes += count;
    input.skip(count);
    if (this.#toSkip > 0) return false;
    this.#skippedBytes = 0;
    clocks.begin();
    return true;
  }
}
