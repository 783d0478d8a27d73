/**
 * Turns bytes into text and back.
 *
 * @module
 */

import { show } from "../api/check.ts";
import { type Framing, latin1Of, type ResolvedFraming } from "../api/framing.ts";

// A BOM is kept as text.
const DECODER = new TextDecoder("utf-8", { ignoreBOM: true });
const ENCODER = new TextEncoder();
const FATAL = new TextDecoder("utf-8", { ignoreBOM: true, fatal: true });

/**
 * Decodes whole lines and, if asked to, drops the one CR before each LF.
 *
 * @param block Whole lines in UTF-8, each with its line end.
 * @param dropsCr Whether a CR before LF belongs to the line end.
 * @returns The same lines, each ended by LF alone; invalid bytes are replaced by U+FFFD.
 */
export function decodeLines(block: Uint8Array, dropsCr = true): string {
  const text = DECODER.decode(block);
  return dropsCr && text.includes("\r") ? text.replaceAll("\r\n", "\n") : text;
}

/**
 * Decodes bytes.
 *
 * @param bytes The bytes.
 * @param framing The encoding, and what invalid bytes do.
 * @returns The text; `undefined` if it is invalid and invalid text is an error.
 */
export function decode(bytes: Uint8Array<ArrayBuffer>, framing: Readonly<Framing>): string | undefined {
  if (framing.encoding === "latin1") {
    return fromLatin1(bytes);
  }
  if (framing.invalidText === "replace") return DECODER.decode(bytes);
  try {
    return FATAL.decode(bytes);
  } catch {
    return undefined;
  }
}

/** Maximum number of bytes that {@linkcode decodeShort} decodes. */
const SHORT_BYTES = 16;

/**
 * Decodes a few bytes, in a third of the time that the decoder takes.
 *
 * @returns The text; `undefined` if the bytes are many, or not all ASCII.
 */
export function decodeShort(bytes: Uint8Array, start: number, end: number): string | undefined {
  if (end - start > SHORT_BYTES) return undefined;
  for (let at = start; at < end; at++) if (bytes[at] >= 0x80) return undefined;
  const [a, b, c, d] = [bytes[start], bytes[start + 1], bytes[start + 2], bytes[start + 3]];
  const [e, f, g, h] = [bytes[start + 4], bytes[start + 5], bytes[start + 6], bytes[start + 7]];
  const [i, j, k, l] = [bytes[start + 8], bytes[start + 9], bytes[start + 10], bytes[start + 11]];
  const [m, n, o, p] = [bytes[start + 12], bytes[start + 13], bytes[start + 14], bytes[start + 15]];
  // Made in one piece, of which the rest is cut off again: text made of pieces takes up to seven times the memory. Of 13
  // to 15 characters V8 keeps all 16, which takes 64 bytes in place of 32.
  return String.fromCharCode(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p).slice(0, end - start);
}

/** Maximum number of arguments of one call: engines limit it. */
const MAX_ARGUMENTS = 4096;

/** Each byte is the character of the same number. The decoder for "latin1" would follow Windows-1252 instead. */
function fromLatin1(bytes: Uint8Array): string {
  // ASCII is the same in UTF-8, whose decoder takes a tenth of the time or less. Only ASCII has one character per byte
  // and no U+FFFD.
  const ascii = DECODER.decode(bytes);
  if (ascii.length === bytes.length && !ascii.includes("\uFFFD")) return ascii;
  let text = "";
  for (let at = 0; at < bytes.length; at += MAX_ARGUMENTS) {
    // `apply` takes bytes as they are: to spread them would take eight times as long.
    text += String.fromCharCode.apply(null, bytes.subarray(at, at + MAX_ARGUMENTS) as unknown as number[]);
  }
  return text;
}

/**
 * Returns how many of the last bytes in [start, end) belong to a character of UTF-8 that goes on behind them.
 *
 * @param bytes The bytes, of which there is at least one behind `end`.
 * @param start The index at which to stop looking.
 * @param end The index at which text is to be cut.
 * @returns A number from 0 to 3.
 */
export function begunCharacter(bytes: Uint8Array, start: number, end: number): number {
  let count = 0;
  // The bytes of a character but for the first begin with the bits 10.
  while (count < 3 && count < end - start && bytes[end - count] >> 6 === 2) count++;
  const first = bytes[end - count];
  const size = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc0 ? 2 : 1;
  return size > count ? count : 0;
}

/**
 * Encodes text for a connection.
 *
 * @param text The text.
 * @param encoding The encoding of the connection.
 * @returns Bytes; or the text itself where UTF-8 is the same, which is encoded when it is written.
 * @throws {TypeError} If the encoding does not have a character of the text.
 */
export function encode(text: string, encoding: Framing["encoding"]): string | Uint8Array {
  if (encoding === "utf-8") return text;
  if (!/[^\0-\x7f]/.test(text)) return text;
  return latin1Of("write", text);
}

/**
 * Checks what a caller wants to write.
 *
 * @throws {TypeError} If it is neither text nor bytes.
 */
export function checkData<T>(data: T): T {
  if (typeof data === "string" || data instanceof Uint8Array) return data;
  throw new TypeError(`Cannot write: expected a string or a Uint8Array, got ${show(data)}`);
}

/**
 * Encodes a line that the server adds, with its end.
 *
 * @param text The line, without its end.
 * @param framing The encoding, and what ends a line.
 * @param lossy Whether a character that the encoding does not have becomes `?` in place of an error.
 * @returns Bytes, or text, as in {@linkcode encode}.
 * @throws {TypeError} If the encoding does not have a character of the line.
 */
export function encodeLine(text: string, { encoding, ending }: ResolvedFraming, lossy = false): string | Uint8Array {
  const known = lossy && encoding === "latin1" ? text.replaceAll(/[^\0-\xff]/gu, "?") : text;
  if (typeof ending === "string") return encode(known + ending, encoding);
  const encoded = encode(known, encoding);
  const line = typeof encoded === "string" ? ENCODER.encode(encoded) : encoded;
  const bytes = new Uint8Array(line.length + ending.length);
  bytes.set(line);
  bytes.set(ending, line.length);
  return bytes;
}

/**
 * Returns a string that has memory of its own. A slice of a longer string keeps all of that in memory.
 *
 * @param slice The string.
 * @returns The same text.
 */
export function independent(slice: string): string {
  // The engine copies the two parts into one string, of which the result is a slice.
  return (" " + slice).slice(1);
}

/**
 * Counts lines. `indexOf` is the fastest way: a loop over the characters took longer than upper-casing the text.
 *
 * @param lines Lines, each ended by LF.
 * @returns The number of lines.
 */
export function countLines(lines: string): number {
  let count = 0;
  for (let at = lines.indexOf("\n"); at >= 0; at = lines.indexOf("\n", at + 1)) count++;
  return count;
}
