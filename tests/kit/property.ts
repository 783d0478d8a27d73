/**
 * Properties, checked on values drawn at random. A failure prints its seed; `SHOUTY_SEED=…` repeats it.
 *
 * @module
 */

import { bytesOf, toBytes } from "./bytes.ts";
import * as fc from "./framing/fast_check.ts";
import type { Framing } from "../../internal/api/framing.ts";
import type { Limits } from "./framing/oracle.ts";

export { fc };

/** Checks that a property holds. */
export async function check<Ts extends unknown[]>(
  arbitraries: [...{ [I in keyof Ts]: fc.Arbitrary<Ts[I]> }],
  property: (...values: Ts) => void | Promise<void>,
  numRuns = 100,
): Promise<void> {
  const seed = Number(Deno.env.get("SHOUTY_SEED") ?? NaN);
  const options = Number.isNaN(seed) ? { numRuns } : { numRuns, seed };
  const values = fc.tuple<Ts>(...arbitraries);
  await fc.assert(fc.asyncProperty(values, async (values) => await property(...values)), options);
}

/** Bytes as a line server gets them: text and random bytes, with many line ends. */
export const anyInput: fc.Arbitrary<Uint8Array> = fc.array(
  fc.oneof(
    { weight: 4, arbitrary: fc.constantFrom("\n", "\r\n", "\r", "\r\r\n", "\n\n") },
    { weight: 3, arbitrary: fc.string({ unit: "binary", maxLength: 12 }) },
    { weight: 2, arbitrary: fc.constantFrom("a", "ß", "ŉ", "ﬃ", "\uFEFF", "\0", "\v", "\f", "\u0085", "\u2028", "😀") },
    { weight: 2, arbitrary: fc.uint8Array({ maxLength: 6 }) },
  ),
  { maxLength: 24 },
).map((parts) => new Uint8Array(parts.flatMap((part) => [...toBytes(part)])));

/** Lengths of the segments of an input; see {@linkcode cut}. */
export const anyCuts: fc.Arbitrary<number[]> = fc.array(fc.nat(64), { maxLength: 12 });

/** Limits that small inputs reach. */
export const anyLimits: fc.Arbitrary<Limits> = fc.record({
  maxLineBytes: fc.oneof(fc.integer({ min: 1, max: 12 }), fc.constant(65_536)),
  maxConnectionBytes: fc.oneof(fc.integer({ min: 1, max: 40 }), fc.constant(Infinity)),
});

/** A framing as plain data: each character of its delimiter is one byte. */
export type PlainFraming = Omit<Framing, "lineEnd"> & {
  lineEnd: "any" | "lf" | "crlf" | { delimiter: string };
};

/** Delimiters, some of which begin with what they end with, so that a search must not go on behind a mismatch. */
export const DELIMITERS = ["\0", "||", "aab", "abab", "\r", "\n\n", "\xc3\x9f", "\xff"] as const;

/** Any framing, each part of it the default in half of the cases. */
export const anyFraming: fc.Arbitrary<PlainFraming> = fc.record({
  lineEnd: fc.oneof(
    fc.constantFrom("any" as const, "any" as const, "lf" as const, "crlf" as const),
    fc.constantFrom(...DELIMITERS).map((delimiter) => ({ delimiter })),
  ),
  encoding: fc.constantFrom("utf-8", "utf-8", "latin1"),
  invalidText: fc.constantFrom("replace", "replace", "error"),
  unterminated: fc.constantFrom("line", "line", "drop", "error"),
  onLongLine: fc.constantFrom("close", "close", "discard", "truncate"),
});

/** Returns what the plain data stand for. */
export function framingOf<Part extends Partial<PlainFraming>>(plain: Part): Omit<Part, "lineEnd"> & Partial<Framing> {
  const { lineEnd } = plain;
  if (lineEnd === undefined || typeof lineEnd === "string") return plain as Part & Partial<Framing>;
  return { ...plain, lineEnd: { delimiter: bytesOf(lineEnd.delimiter) } };
}

/** Cuts bytes into segments of the given lengths; the last segment has all bytes that remain. */
export function cut(bytes: Uint8Array, lengths: readonly number[]): Uint8Array[] {
  const segments: Uint8Array[] = [];
  let rest = bytes;
  for (const length of lengths) {
    segments.push(rest.subarray(0, length));
    rest = rest.subarray(length);
  }
  return [...segments, rest].filter((segment) => segment.length > 0);
}
