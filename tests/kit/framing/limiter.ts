/**
 * A limiter with an input of its own.
 *
 * @module
 */

import { InputBuffer } from "../../../internal/lines/input_buffer.ts";
import { Limiter } from "../../../internal/lines/limiter.ts";
import { answer } from "./oracle.ts";

/** The two sizes that bound an input of lines, in bytes. */
export interface SizeLimits {
  readonly maxLineBytes: number;
  readonly maxConnectionBytes: number;
}

/** Makes a limiter for lines that end at LF, with one CR before it dropped. */
export function limiterOf({ maxLineBytes, maxConnectionBytes }: SizeLimits): Limiter {
  return new Limiter(maxLineBytes, true, new InputBuffer(maxConnectionBytes));
}

/** The answer of the oracle as text, with each line end as LF, and the reason of the end. */
export function expected(input: Uint8Array, limits: SizeLimits): { text: string; reason: string } {
  const { lines, reason } = answer(input, limits);
  return { text: lines.map((line) => new TextDecoder("latin1").decode(line) + "\n").join(""), reason };
}
