/**
 * The files that flags name.
 *
 * @module
 */

import { quote } from "../internal/api/errors.ts";
import { CommandError, reasonOf } from "./errors.ts";

/** What can be done with a file, as Deno's permissions have it. */
type Access = "read" | "write";

/**
 * Refuses to go on without a permission, instead of having Deno ask for it on the terminal.
 *
 * @param action What is to be done, to be read after "cannot".
 * @param path The file.
 * @param accesses What that takes.
 * @throws {CommandError} If it is not granted.
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
 * @returns What is in it.
 * @throws {CommandError} (As a rejection.) If that cannot be had.
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
