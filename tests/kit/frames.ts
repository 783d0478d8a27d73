/**
 * A second implementation of the framing rules, written from their description: it says which lines a whole input has.
 *
 * @module
 */

import type { Framing } from "@x/shouty";
import { delimiterOf } from "./framing_oracle.ts";
import { find } from "./reads.ts";

/** What a handler is to see: a line and how it ended, or what `lastWords` is asked for. */
export type Seen = readonly [line: string, lineEnd: string | undefined] | string;

/** What a handler is to see of an input, the close reason, and `lastLineEnd` after that. */
export interface Framed {
  readonly seen: Seen[];
  readonly reason: string;
  readonly lastLineEnd: string | undefined;
}

/** Cuts a whole input into lines. */
export function frame(input: Uint8Array, framing: Framing, maxLineBytes: number): Framed {
  const delimiter = delimiterOf(framing);
  const seen: Seen[] = [];
  let lastLineEnd: string | undefined;
  const over = (reason: string): Framed => ({ seen: reason === "end" ? seen : [...seen, reason], reason, lastLineEnd });
  for (let rest = input; rest.length > 0;) {
    const found = find(rest, delimiter);
    let line = found < 0 ? rest : rest.subarray(0, found);
    rest = found < 0 ? rest.subarray(rest.length) : rest.subarray(found + delimiter.length);
    const withCr = framing.lineEnd === "any" && line.at(-1) === 13;
    if (withCr) line = line.subarray(0, -1);
    const tooLong = line.length > maxLineBytes;
    if (tooLong && framing.onLongLine === "close") return over("line-too-long");
    if (tooLong && framing.onLongLine === "discard") seen.push("line-too-long");
    if (tooLong && framing.onLongLine === "truncate") line = truncate(line, framing, maxLineBytes);
    const text = textOf(line, framing);
    const given = !(tooLong && framing.onLongLine === "discard");
    if (given && tooLong && text === undefined) return over("invalid-text");
    if (found < 0) {
      lastLineEnd = "none";
      if (framing.unterminated === "error") return over("unterminated");
      if (framing.unterminated === "drop") return over("end");
    }
    if (given && text === undefined) return over("invalid-text");
    if (found >= 0 && given) lastLineEnd = nameOf(framing.lineEnd, withCr);
    if (given) seen.push([text!, lastLineEnd]);
  }
  return over("end");
}

function nameOf(lineEnd: Framing["lineEnd"], withCr: boolean): string {
  if (typeof lineEnd === "object") return "delimiter";
  return withCr || lineEnd === "crlf" ? "crlf" : "lf";
}

function textOf(line: Uint8Array, { encoding, invalidText }: Framing): string | undefined {
  if (encoding === "latin1") return String.fromCharCode(...line);
  try {
    return new TextDecoder("utf-8", { ignoreBOM: true, fatal: invalidText === "error" }).decode(line);
  } catch {
    return undefined;
  }
}

/** Leaves out a character of which the maximum has only a part. */
export function truncate(line: Uint8Array, { encoding }: Framing, most: number): Uint8Array {
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
