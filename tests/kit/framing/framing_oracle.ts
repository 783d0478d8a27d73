/**
 * A second implementation of framing, written from its description and not from the code: it says which lines a whole
 * input has, however that was cut on its way.
 *
 * @module
 */

import type { Framing, LineEnd } from "../../../internal/api/framing.ts";

/** How lines are cut. */
export interface Rules {
  framing: Framing;
  maxLineBytes: number;
}

/** What the input has next. */
export interface Next {
  /** A line; the input's `end`, if it has ended; `more` if the rest has not come; or what is wrong with it. */
  kind: "line" | "end" | "more" | "line-too-long" | "unterminated" | "invalid-text";
  /** The line. */
  text: string;
  /** How the line ended, or what was dropped at the end of input; undefined if nothing was. */
  lineEnd: LineEnd | undefined;
  /** How many lines before it were too long and are discarded, the one that has begun included. */
  discarded: number;
  /** The position behind it; for `more`, the position at which the unfinished line begins. */
  to: number;
}

const LF = 10;
const CR = 13;

/** Returns the bytes that end a line. */
export function delimiterOf({ lineEnd, encoding }: Pick<Framing, "lineEnd" | "encoding">): Uint8Array {
  if (typeof lineEnd === "string") return lineEnd === "crlf" ? Uint8Array.of(CR, LF) : Uint8Array.of(LF);
  const { delimiter } = lineEnd;
  if (typeof delimiter !== "string") return delimiter;
  return encoding === "latin1"
    ? Uint8Array.from(delimiter, (character) => character.charCodeAt(0))
    : new TextEncoder().encode(delimiter);
}

/**
 * Looks at one byte after another. A line is too long as soon as its length, without what may belong to its end, is
 * above the maximum.
 *
 * @param input All bytes that have come.
 * @param from Where the line begins.
 * @param rules How lines are cut.
 * @param ended Whether the input has ended.
 */
export function nextLine(input: Uint8Array, from: number, rules: Rules, ended: boolean): Next {
  const { framing, maxLineBytes } = rules;
  const delimiter = delimiterOf(framing);
  let discarded = 0;
  let start = from;
  /** What is handed out of a line that is too long; undefined while the line is not. */
  let long: string | undefined;
  const result = (kind: Next["kind"], to: number, text = "", lineEnd?: LineEnd): Next => {
    return { kind, text, lineEnd, discarded, to };
  };
  const tooLong = (): Next | undefined => {
    if (framing.onLongLine === "close") return result("line-too-long", start);
    if (framing.onLongLine === "discard") discarded++;
    const kept = framing.onLongLine === "discard"
      ? ""
      : decode(truncate(input.subarray(start), framing, maxLineBytes), framing);
    if (kept === undefined) return result("invalid-text", start);
    long = kept;
  };
  for (let at = start + 1; at <= input.length; at++) {
    const whole = isSuffix(input, start, at, delimiter);
    const crBefore = framing.lineEnd === "any" && at - start > 1 && input[at - 2] === CR;
    const to = whole ? at - delimiter.length - (crBefore ? 1 : 0) : at - uncertain(input, start, at, framing);
    if (long === undefined && to - start > maxLineBytes) {
      const wrong = tooLong();
      if (wrong !== undefined) return wrong;
    }
    if (!whole) continue;
    if (long === undefined || framing.onLongLine === "truncate") {
      const text = long ?? decode(input.subarray(start, to), framing);
      return text === undefined ? result("invalid-text", start) : result("line", at, text, endOf(framing, crBefore));
    }
    start = at;
    long = undefined;
  }
  if (!ended) return result("more", start);
  if (start === input.length) return result("end", start);
  const dropsCr = framing.lineEnd === "any" && input.at(-1) === CR;
  const last = input.subarray(start, input.length - (dropsCr ? 1 : 0));
  if (long === undefined && last.length > maxLineBytes) {
    const wrong = tooLong();
    if (wrong !== undefined) return wrong;
  }
  const { unterminated } = framing;
  if (unterminated !== "line") {
    return result(unterminated === "drop" ? "end" : "unterminated", input.length, "", "none");
  }
  if (long !== undefined && framing.onLongLine === "discard") return result("end", input.length, "", "none");
  const text = long ?? decode(last, framing);
  return text === undefined ? result("invalid-text", start, "", "none") : result("line", input.length, text, "none");
}

/** What an input consists of: lines, and `null` for each that is too long and discarded. */
export interface Cut {
  lines: ({ text: string; lineEnd: LineEnd } | null)[];
  reason: "end" | "more" | "line-too-long" | "unterminated" | "invalid-text" | "byte-limit";
  /** Whether something unfinished is left. */
  unfinished: boolean;
}

/** Cuts a whole input, of which only the first `maxConnectionBytes` count. */
export function cutAll(input: Uint8Array, rules: Rules, maxConnectionBytes: number, ended: boolean): Cut {
  const within = input.subarray(0, Math.min(input.length, maxConnectionBytes));
  const isOver = within.length < input.length;
  const lines: Cut["lines"] = [];
  for (let at = 0;;) {
    const next = nextLine(within, at, rules, ended && !isOver);
    for (let i = 0; i < next.discarded; i++) lines.push(null);
    if (next.kind !== "line") {
      const reason = next.kind === "more" && isOver ? "byte-limit" : next.kind;
      return { lines, reason, unfinished: next.to < within.length };
    }
    lines.push({ text: next.text, lineEnd: next.lineEnd! });
    at = next.to;
  }
}

/** Decodes bytes; undefined if they are invalid and that is an error. */
function decode(bytes: Uint8Array, { encoding, invalidText }: Framing): string | undefined {
  if (encoding === "latin1") return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
  if (invalidText === "replace") return text;
  const again = new TextEncoder().encode(text);
  return again.length === bytes.length && again.every((byte, i) => byte === bytes[i]) ? text : undefined;
}

/** Leaves out a character of which the maximum has only a part. */
function truncate(line: Uint8Array, { encoding }: Framing, most: number): Uint8Array {
  if (encoding === "latin1") return line.subarray(0, most);
  for (let size = 2; size <= 4; size++) {
    for (let start = Math.max(0, most - size + 1); start < most; start++) {
      const isLead = line[start] >= [0, 0, 0xc0, 0xe0, 0xf0][size] && line[start] < [0, 0, 0xe0, 0xf0, 0x100][size];
      const goesOn = line.subarray(start + 1, most + 1).every((byte) => byte >> 6 === 2);
      if (isLead && goesOn) return line.subarray(0, start);
    }
  }
  return line.subarray(0, most);
}

function isSuffix(input: Uint8Array, start: number, end: number, delimiter: Uint8Array): boolean {
  const from = end - delimiter.length;
  return from >= start && delimiter.every((byte, i) => input[from + i] === byte);
}

/** How many of the last bytes of an unfinished line may belong to its end. */
function uncertain(input: Uint8Array, start: number, end: number, framing: Framing): number {
  if (framing.lineEnd === "any") return input[end - 1] === CR ? 1 : 0;
  const delimiter = delimiterOf(framing);
  for (let count = delimiter.length - 1; count > 0; count--) {
    if (isSuffix(input, start, end, delimiter.subarray(0, count))) return count;
  }
  return 0;
}

function endOf({ lineEnd }: Framing, crBefore: boolean): LineEnd {
  if (lineEnd === "any") return crBefore ? "crlf" : "lf";
  return typeof lineEnd === "string" ? lineEnd : "delimiter";
}
