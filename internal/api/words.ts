/**
 * How messages are worded.
 *
 * @module
 */

/**
 * Characters that can forge or hide text where they are shown: control characters, line and paragraph separators, marks
 * that turn the direction of writing, and halves of surrogate pairs, which no encoding has.
 */
const UNSAFE = /[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}\p{Cs}]/gu;

/**
 * Quotes text that may be anybody's, such as a peer's, so that it stays on its line and shows all that is in it.
 *
 * @param text The text.
 * @returns The text between quotation marks, as JSON has it, with every unsafe character as an escape sequence.
 */
export function quote(text: string): string {
  return escapeUnsafe(JSON.stringify(text));
}

/**
 * Replaces unsafe characters by escape sequences such as `\u009b`, which JSON takes for the same characters.
 *
 * @param text The text.
 * @returns The text in one safe line.
 */
export function escapeUnsafe(text: string): string {
  return text.replace(UNSAFE, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/**
 * A number of things, such as `1 line` and `2 lines`.
 *
 * @param number How many there are.
 * @param noun What one of them is called.
 * @returns Both, with the plural where it belongs.
 */
export function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}
