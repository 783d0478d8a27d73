/**
 * The cases for the limiter alone: it gets an input in segments, and has to agree with the oracle.
 *
 * @module
 */

import { assertEquals, assertLessOrEqual } from "@std/assert";
import { limiterOf } from "../../tests/kit/limiter.ts";
import { decodeLines } from "../../internal/lines/text.ts";
import { answer, type Limits } from "../../tests/kit/oracle.ts";
import { anyCuts, anyInput, anyLimits, fc } from "../../tests/kit/property.ts";

/** An input, its segments, its limits. */
export type BytesCase = [input: Uint8Array, cuts: number[], limits: Limits];

/** Any case; one in eight repeats its input, so that buffers grow and shrink. */
export const anyBytes: fc.Arbitrary<BytesCase> = fc.tuple(
  fc.tuple(anyInput, fc.constantFrom(1, 1, 1, 1, 1, 1, 1, 60)).map(([input, times]) => repeat(input, times)),
  anyCuts,
  anyLimits,
);

/**
 * Passes an input to the limiter in segments.
 *
 * @throws {AssertionError} If the limiter does not give what the oracle gives.
 */
export function feed([input, cuts, limits]: BytesCase): void {
  const limiter = limiterOf(limits);
  let text = "";
  let at = 0;
  for (let call = 0; at < input.length && limiter.breach === undefined; call++) {
    const space = limiter.input.space(limiter.mostBytes, cuts[0] === call);
    const part = input.subarray(at, at + Math.min(space.length, cuts[call] || Infinity));
    space.set(part);
    at += part.length;
    const block = limiter.take(part.length);
    if (block !== undefined) text += decodeLines(block);
    assertLessOrEqual(limiter.input.size, limits.maxLineBytes + 1 + part.length);
  }
  const last = limiter.end();
  if (last !== undefined) text += decodeLines(last);
  const { lines, reason } = answer(input, limits);
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const wanted = lines.map((line) => decoder.decode(line) + "\n").join("");
  assertEquals([text, limiter.breach ?? "end"], [wanted, reason]);
}

function repeat(input: Uint8Array, times: number): Uint8Array {
  const whole = new Uint8Array(input.length * times);
  for (let i = 0; i < times; i++) whole.set(input, i * input.length);
  return whole;
}
