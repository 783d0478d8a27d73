/**
 * Bytes to text and back, in whole blocks.
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
