/**
 * What the server does with lines if nothing else is said.
 *
 * @module
 */

import { ANSWER_BYTES } from "../api/handlers.ts";
import { upperCase } from "./ascii.ts";

/**
 * Upper-cases a line, with Unicode's full mapping, whatever the locale (`ß` becomes `SS`).
 *
 * @param line The line, without its end.
 * @returns The line in upper case.
 *
 * @example
 * ```ts
 * import { shout } from "@x/shouty";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(shout("Hello. How are you?"), "HELLO. HOW ARE YOU?");
 * ```
 */
export const shout: {
  (line: string): string;
  /** Upper-cases many lines at once: LF has no upper case, so they stay apart. */
  block(lines: string): string;
} = Object.assign(function shout(line: string): string {
  return line.toUpperCase();
}, {
  block: (lines: string): string => lines.toUpperCase(),
  /** Upper-cases ASCII where it lies; what is upper-case already stays so when the rest needs more. */
  [ANSWER_BYTES]: (lines: Uint8Array): Uint8Array | undefined => upperCase(lines) ? lines : undefined,
});
