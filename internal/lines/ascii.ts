/**
 * ASCII in place, four bytes at a time: one at a time takes three times as long. Up to some 4 KiB, to decode and encode
 * it takes longer as well.
 *
 * @module
 */

/** The end of a line. */
export const LF = 10;

/** What may stand before it. */
export const CR = 13;

const A = 97;
const Z = 122;

/** A byte in each of a word's four places is that byte times this. */
const EACH = 0x01010101;
const LOW = 0x7f * EACH;
const TOP = 0x80 * EACH;

/** The words of bytes that do not begin at a multiple of four. */
const NONE = new Int32Array(0);

/**
 * Upper-cases the ASCII letters among bytes, whatever else is among them.
 *
 * @param bytes What to upper-case.
 * @returns Whether all of it is ASCII without CR.
 */
export function upperCase(bytes: Uint8Array): boolean {
  const words = wordsOf(bytes);
  let others = 0;
  for (let at = 0; at < words.length; at++) {
    const word = words[at];
    others |= word | zeros(word ^ CR * EACH);
    // What is added sets the top bit of each byte from `a` on, or beyond `z`, and carries into no other.
    const low = word & LOW;
    const letters = low + (0x80 - A) * EACH & ~(low + (0x7f - Z) * EACH) & ~word & TOP;
    words[at] = word ^ letters >>> 2;
  }
  for (let at = words.length * 4; at < bytes.length; at++) {
    const byte = bytes[at];
    if (byte >= 0x80 || byte === CR) others |= TOP;
    if (byte >= A && byte <= Z) bytes[at] = byte ^ 0x20;
  }
  return (others & TOP) === 0;
}

/**
 * Counts line ends.
 *
 * @param bytes Where they are.
 * @returns How many LFs there are.
 */
export function countLineFeeds(bytes: Uint8Array): number {
  const words = wordsOf(bytes);
  let count = 0;
  for (let at = 0; at < words.length;) {
    // Four sums, one in each byte, as long as they fit.
    let sums = 0;
    const end = Math.min(at + 0xff, words.length);
    for (; at < end; at++) sums = sums + (zeros(words[at] ^ LF * EACH) >>> 7) | 0;
    for (let place = 0; place < 32; place += 8) count += sums >>> place & 0xff;
  }
  for (let at = words.length * 4; at < bytes.length; at++) if (bytes[at] === LF) count++;
  return count;
}

function wordsOf(bytes: Uint8Array): Int32Array {
  return bytes.byteOffset % 4 === 0 ? new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2) : NONE;
}

/** Marks the bytes of a word that are zero by their top bits. */
function zeros(word: number): number {
  return ~((word & LOW) + LOW | word) & TOP;
}
