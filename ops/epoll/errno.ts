/**
 * The errors of the C library, as those of Deno's own sockets.
 *
 * @module
 */

import { getSystemErrorMap } from "node:util";
import { CLASSES } from "../sockets/socket_errors.ts";

export const EAGAIN = -11;

/** Turns a negative result into the error that Deno's own sockets would throw. */
export function errorOf(result: number): Error {
  const [code, text] = getSystemErrorMap().get(result) ?? ["UNKNOWN", "unknown error"];
  const message = `${text[0].toUpperCase()}${text.slice(1)} (os error ${-result})`;
  return Object.assign(new (CLASSES[code] ?? Error)(message), { code });
}

/** Returns a result that is no error; throws otherwise. */
export function checked(result: number): number {
  if (result < 0) throw errorOf(result);
  return result;
}
