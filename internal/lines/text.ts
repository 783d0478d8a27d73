/**
 * Decodes and counts whole lines.
 *
 * @module
 */

// A BOM is kept as text.
const DECODER = new TextDecoder("utf-8", { ignoreBOM: true });

/**
 * Decodes whole lines and drops the one CR before each LF.
 *
 * @param block Whole lines in UTF-8, each with its line end.
 * @returns The same lines, each ended by LF alone; invalid bytes are replaced by U+FFFD.
 */
export function decodeLines(block: Uint8Array): string {
  const text = DECODER.decode(block);
  return text.includes("\r") ? text.replaceAll("\r\n", "\n") : text;
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
