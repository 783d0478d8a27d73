/**
 * Text: from bytes in whole blocks, and with numbers in it.
 *
 * @module
 */

// A BOM is text, not decoration.
const DECODER = new TextDecoder("utf-8", { ignoreBOM: true });

/**
 * Decodes whole lines and drops the one CR before each LF.
 *
 * @param block Whole lines in UTF-8, each with its line end.
 * @returns The same lines, each ended by LF alone; invalid bytes have become U+FFFD.
 */
export function decodeLines(block: Uint8Array): string {
  const text = DECODER.decode(block);
  return text.includes("\r") ? text.replaceAll("\r\n", "\n") : text;
}

/**
 * Counts lines. A search for each is the fastest way there is: a pass over the text took longer than upper-casing it.
 *
 * @param lines Lines, each ended by LF.
 * @returns How many there are.
 */
export function countLines(lines: string): number {
  let count = 0;
  for (let at = lines.indexOf("\n"); at >= 0; at = lines.indexOf("\n", at + 1)) count++;
  return count;
}
