/**
 * A limiter with an input of its own.
 *
 * @module
 */

import { InputBuffer } from "../../../internal/lines/input_buffer.ts";
import { Limiter } from "../../../internal/lines/limiter.ts";

/** The two sizes that bound an input of lines, in bytes. */
export interface SizeLimits {
  readonly maxLineBytes: number;
  readonly maxConnectionBytes: number;
}

/** Makes a limiter for lines that end at LF, with one CR before it dropped. */
export function limiterOf({ maxLineBytes, maxConnectionBytes }: SizeLimits): Limiter {
  return new Limiter(maxLineBytes, true, new InputBuffer(maxConnectionBytes));
}
