/**
 * Reads the files that flags name.
 *
 * @module
 */

import { quote } from "../internal/api/errors.ts";
import { CommandError, reasonOf } from "./errors.ts";

/** Deno's permissions for a file. */
type Access = "read" | "write";

/**
 * Throws if a permission is not granted, so that Deno does not prompt for it on the terminal.
 *
 * @param action What needs the permissions, to be read after "cannot".
 * @param path The file.
 * @param accesses The permissions that are needed.
 * @throws {CommandError} If one of them is not granted.
 */
export function requireFile(action: string, path: string, accesses: readonly Access[]): void {
  const missing = accesses.filter((name) => Deno.permissions.querySync({ name, path }).state !== "granted");
  if (missing.length === 0) return;
  const flags = missing.map((name) => `--allow-${name}=${path}`).join(" ");
  throw new CommandError(`cannot ${action}: no permission to ${missing.join(" and ")} it, which ${flags} grants`, 1);
}

/**
 * Reads a file that a flag names.
 *
 * @param flag The flag.
 * @param path The file.
 * @returns The file's text.
 * @throws {CommandError} (As a rejection.) If the file cannot be read.
 */
export async function readFile(flag: string, path: string): Promise<string> {
  const action = `read ${flag} ${quote(path)}`;
  requireFile(action, path, ["read"]);
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    const reason = reasonOf(error).replace(/: (readfile|open) '.*'$/, "");
    throw new CommandError(`cannot ${action}: ${reason}`, 1);
  }
}
