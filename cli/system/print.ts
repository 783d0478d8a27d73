/**
 * Writes to stdout and stderr.
 *
 * @module
 */

import { escapeUnsafe } from "../../internal/api/errors.ts";
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

/** Writes a text to stdout, with a line end; returns the exit code. */
export async function say(text: string): Promise<number> {
  await print(new TextEncoder().encode(`${text}\n`));
  return 0;
}

/** Writes an error to stderr. */
export function complain(message: string): void {
  try {
    console.error(`shouty: ${escapeUnsafe(message)}`);
  } catch {
    // Stderr cannot be written. The exit code still tells that the command failed.
  }
}
