/**
 * The default line handler.
 *
 * @module
 */

import { ANSWER_BYTES } from "../api/handlers.ts";
import { upperCase } from "./ascii.ts";

/**
 * Upper-cases a line, with Unicode's full mapping, whatever the locale (`ß` becomes `SS`). The upper case of two letters of
 * Latin-1, `µ` and `ÿ`, is not in Latin-1: a server with `framing: { encoding: "latin1" }` needs a handler of its own.
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
  /** Upper-cases many lines at once. LF has no upper case, so the line ends stay as they are. */
  block(lines: string): string;
} = Object.assign(function shout(line: string): string {
  return line.toUpperCase();
}, {
  block: (lines: string): string => lines.toUpperCase(),
  /**
   * Upper-cases ASCII in place. For other text it returns `undefined`, and the lines are answered as text; letters that
   * are upper-case already do no harm then.
   */
  [ANSWER_BYTES]: (lines: Uint8Array): Uint8Array | undefined => upperCase(lines) ? lines : undefined,
});
