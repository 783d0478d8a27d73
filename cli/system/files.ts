/**
 * Reads the files that flags name.
 *
 * @module
 */

import { quote } from "../../internal/api/errors.ts";
import { CommandError, reasonOf } from "./errors.ts";

/** Maximum size in bytes of a file that is read: what never ends, such as `/dev/zero`, must not fill the memory. */
const MAX_BYTES = 4 * 1024 * 1024;

/**
 * What Deno says about a file such as `/dev/stdin`, or one in `/proc`. It asks for the flag `--allow-all` also if that
 * was given: the command has given up other permissions before.
 */
const NEEDS_ALL = /^requires all access to .*/;

const NOT_OPENED = "Deno opens it only for programs that keep all permissions, and the command gives them up";

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
 * @throws {CommandError} (As a rejection.) If the file cannot be read, or is larger than 4 MiB.
 */
export async function readFile(flag: string, path: string): Promise<string> {
  const action = `read ${flag} ${quote(path)}`;
  requireFile(action, path, ["read"]);
  try {
    return await readText(path);
  } catch (error) {
    const reason = reasonOf(error).replace(/: (readfile|open) '.*'$/, "").replace(NEEDS_ALL, NOT_OPENED);
    throw new CommandError(`cannot ${action}: ${reason}`, 1);
  }
}

async function readText(path: string): Promise<string> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let size = 0;
  for await (const part of (await Deno.open(path)).readable) {
    size += part.length;
    if (size > MAX_BYTES) throw new RangeError(`it is larger than ${MAX_BYTES / 1024 / 1024} MiB`);
    parts.push(part);
  }
  return await new Blob(parts).text();
}
