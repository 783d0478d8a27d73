/**
 * Upper-cases and counts ASCII bytes in place, four bytes at a time: byte by byte takes three times as long. To decode
 * and encode text and to count its lines takes longer, too, up to about 4 KiB, and for more than that in short lines.
 *
 * @module
 */

/** The byte that ends a line. */
export const LF = 10;

/** The byte that may stand before the LF as a part of the line end. */
export const CR = 13;

const A = 97;
const Z = 122;

/** A byte times this is a word of four bytes, each of which is that byte. */
const EACH = 0x01010101;
const LOW = 0x7f * EACH;
const TOP = 0x80 * EACH;

/** Minimum number of bytes that are handled as words: for fewer, it takes longer to make words of them. */
const MIN_BYTES = 24;

/** No words: few bytes, and those whose offset is not a multiple of four, are handled one by one. */
const NONE = new Int32Array(0);

/**
 * Upper-cases the ASCII letters among bytes, and leaves all other bytes as they are.
 *
 * @param bytes The bytes, which are changed in place.
 * @returns Whether all bytes are ASCII, and none is a CR.
 */
export function upperCase(bytes: Uint8Array): boolean {
  const words = wordsOf(bytes);
  let others = 0;
  for (let at = 0; at < words.length; at++) {
    const word = words[at];
    if ((word & TOP) === 0) {
      // A word of ASCII, as nearly all are: the sum sets the top bit of all bytes but CR.
      others |= ~((word ^ CR * EACH) + LOW);
      words[at] = word ^ lowerCase(word) >>> 2;
    } else {
      others = TOP;
      words[at] = word ^ (lowerCase(word & LOW) & ~word) >>> 2;
    }
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
 * @param bytes The bytes.
 * @returns The number of LFs.
 */
export function countLineFeeds(bytes: Uint8Array): number {
  const words = wordsOf(bytes);
  let count = 0;
  for (let at = 0; at < words.length;) {
    // Four sums, one in each byte of a word; each can count to 255.
    let sums = 0;
    const end = Math.min(at + 0xff, words.length);
    for (; at < end; at++) sums = sums + (zeros(words[at] ^ LF * EACH) >>> 7) | 0;
    for (let place = 0; place < 32; place += 8) count += sums >>> place & 0xff;
  }
  for (let at = words.length * 4; at < bytes.length; at++) if (bytes[at] === LF) count++;
  return count;
}

function wordsOf(bytes: Uint8Array): Int32Array {
  return bytes.byteOffset % 4 === 0 && bytes.length >= MIN_BYTES
    ? new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2)
    : NONE;
}

/** Returns a word that has the top bit set in each byte in which the given word, all ASCII, has a lower-case letter. */
function lowerCase(word: number): number {
  // The sums set the top bit of the bytes from `a` on, and of those above `z`; no byte carries into the next.
  return (word + (0x80 - A) * EACH ^ word + (0x7f - Z) * EACH) & TOP;
}

/** Returns a word that has the top bit set in each byte in which the given word has a zero byte. */
function zeros(word: number): number {
  return ~((word & LOW) + LOW | word) & TOP;
}
