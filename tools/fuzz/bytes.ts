/**
 * The cases for the limiter and the line cutter alone: they get an input in segments, and have to agree with the
 * oracle.
 *
 * @module
 */

import { assertEquals, assertLessOrEqual } from "@std/assert";
import { type LineEnd, resolveFraming } from "../../internal/api/framing.ts";
import { InputBuffer } from "../../internal/lines/input_buffer.ts";
import { limiterOf } from "../../tests/kit/framing/limiter.ts";
import { LineCutter } from "../../internal/lines/line_cutter.ts";
import { decodeLines } from "../../internal/lines/text.ts";
import { nextLine, type Rules } from "../../tests/kit/framing/framing_oracle.ts";
import { answer, type Limits } from "../../tests/kit/framing/oracle.ts";
import { bytesOf } from "../../tests/kit/bytes.ts";
import {
  anyCuts,
  anyFraming,
  anyInput,
  anyLimits,
  DELIMITERS,
  fc,
  framingOf,
  type PlainFraming,
} from "../../tests/kit/property.ts";

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

/** A part of a plan: a number of lines, then a number of bytes, and a framing and a maximum for what follows. */
interface Part {
  lines: number;
  bytes: number;
  framing: PlainFraming;
  maxLineBytes: number;
}

/** An input, its segments, its maximum, and how it is read: the first framing, and what comes after it. */
export type CutCase = [input: Uint8Array, cuts: number[], maxConnectionBytes: number, parts: Part[]];

const anyMaxLineBytes = fc.oneof(fc.integer({ min: 1, max: 12 }), fc.constantFrom(300, 65_536));

const anyPart: fc.Arbitrary<Part> = fc.record({
  lines: fc.oneof(fc.nat(4), fc.constant(1000)),
  bytes: fc.oneof(fc.constant(0), fc.nat(9)),
  framing: anyFraming,
  maxLineBytes: anyMaxLineBytes,
});

/** Input with many delimiters and parts of delimiters. */
const delimitedInput: fc.Arbitrary<Uint8Array> = fc.array(
  fc.oneof(
    { weight: 3, arbitrary: fc.constantFrom<string>(...DELIMITERS, "\n", "\r\n") },
    { weight: 3, arbitrary: fc.constantFrom("a", "b", "ab", "|", "\r", "\xc3", "\xe2\x82\xac", "\xf0\x9f\x98\x80") },
    { weight: 1, arbitrary: fc.constantFrom("y".repeat(255), "y".repeat(1030), "z\n".repeat(300), "\x9f".repeat(7)) },
  ),
  { maxLength: 30 },
).map((parts) => bytesOf(parts.join("")));

/** Any case for the line cutter. */
export const anyCut: fc.Arbitrary<CutCase> = fc.tuple(
  fc.oneof(anyInput, delimitedInput),
  anyCuts,
  fc.oneof(fc.constant(Infinity), fc.integer({ min: 1, max: 40 })),
  fc.array(anyPart, { minLength: 1, maxLength: 4 }),
);

/** What a plan has got of an input: lines and how they ended, `null` for lines that were discarded, bytes, the end. */
type Got = ([text: string, lineEnd: LineEnd | undefined] | Uint8Array | null | string)[];

/**
 * Passes an input to the line cutter in segments, and reads lines and bytes in turn.
 *
 * @throws {AssertionError} If the line cutter does not give what the oracle gives.
 */
export function cutInput([input, cuts, maxConnectionBytes, parts]: CutCase): void {
  assertEquals(gotFromCutter(input, cuts, maxConnectionBytes, parts), gotFromOracle(input, maxConnectionBytes, parts));
}

function gotFromCutter(input: Uint8Array, cuts: number[], maxConnectionBytes: number, parts: Part[]): Got {
  const buffer = new InputBuffer(maxConnectionBytes);
  const got: Got = [];
  const first = resolveFraming(framingOf(parts[0].framing));
  const cutter = new LineCutter(buffer, first, parts[0].maxLineBytes, true, { discarded: () => got.push(null) });
  const plan = [...parts];
  let left = plan[0].lines;
  const read = (ended: boolean) => {
    while (plan.length > 0 && cutter.breach === undefined) {
      const [{ bytes }, next] = plan;
      for (; left > 0; left--) {
        const line = cutter.next() ?? (ended ? cutter.end() : undefined);
        if (line === undefined) return;
        got.push([line, cutter.lastLineEnd]);
      }
      if (buffer.size < bytes) return;
      got.push(buffer.take(bytes));
      plan.shift();
      if (next === undefined) return;
      [cutter.framing, cutter.maxLineBytes] = [resolveFraming(framingOf(next.framing)), next.maxLineBytes];
      left = next.lines;
    }
  };
  let at = 0;
  read(false);
  for (let call = 0; at < input.length && cutter.breach === undefined && !buffer.overLimit; call++) {
    const space = buffer.space(cutter.mostBytes, cuts[0] === call);
    const part = input.subarray(at, at + Math.min(space.length, cuts[call] || Infinity));
    space.set(part);
    at += part.length;
    buffer.added(part.length);
    read(false);
    const isCutting = left > 0 && plan.length > 0 && cutter.breach === undefined;
    if (isCutting) assertLessOrEqual(buffer.size, cutter.mostBytes);
  }
  read(!buffer.overLimit);
  got.push(plan.length === 0 ? "done" : cutter.breach ?? (buffer.overLimit ? "byte-limit" : "end"));
  return got;
}

function gotFromOracle(input: Uint8Array, maxConnectionBytes: number, parts: Part[]): Got {
  const within = input.subarray(0, Math.min(input.length, maxConnectionBytes));
  const isOver = within.length < input.length;
  const got: Got = [];
  let at = 0;
  for (const { lines, bytes, framing, maxLineBytes } of parts) {
    const rules = { framing: framingOf(framing) as Rules["framing"], maxLineBytes };
    for (let left = lines; left > 0; left--) {
      const next = nextLine(within, at, rules, !isOver);
      for (let i = 0; i < next.discarded; i++) got.push(null);
      if (next.kind !== "line") return [...got, next.kind === "more" ? "byte-limit" : next.kind];
      got.push([next.text, next.lineEnd]);
      at = next.to;
    }
    if (within.length - at < bytes) return [...got, isOver ? "byte-limit" : "end"];
    got.push(within.slice(at, at + bytes));
    at += bytes;
  }
  return [...got, "done"];
}
