/**
 * Writes to stdout.
 *
 * @module
 */

import { CommandError, reasonOf } from "./errors.ts";

/**
 * Writes to stdout.
 *
 * @param bytes What to write.
 * @returns Whether stdout is still being read: `shouty connect … | head -1` is not an error.
 * @throws {CommandError} (As a rejection.) If it cannot be written, as on a full disk.
 */
export async function print(bytes: Uint8Array): Promise<boolean> {
  try {
    for (let sent = 0; sent < bytes.length;) sent += await Deno.stdout.write(bytes.subarray(sent));
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.BrokenPipe) return false;
    throw new CommandError(`cannot write to stdout: ${reasonOf(error)}`, 1);
  }
}
