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

/** The values of flags that name files, by the flags' names; `null` for no file. */
type FileFlags<Flag extends string> = Readonly<Record<Flag, string | null>> & { nameOf(flag: string): string };

/**
 * Reads the files of several options of the library, one after the other: if several cannot be read, the error always
 * names the first.
 *
 * @param names The flag that names the file of each option.
 * @param flags The flags' values.
 * @returns The files' texts, by option; an option without a file is left out.
 * @throws {CommandError} (As a rejection.) If one of them cannot be read.
 */
export async function readFiles<Option extends string, Flag extends string>(
  names: Readonly<Record<Option, Flag>>,
  flags: FileFlags<Flag>,
): Promise<Partial<Record<Option, string>>> {
  const texts: Partial<Record<Option, string>> = {};
  for (const [option, flag] of Object.entries(names) as [Option, Flag][]) {
    const path = flags[flag];
    if (path !== null) texts[option] = await readFile(flags.nameOf(flag), path);
  }
  return texts;
}

/** Words that a file cannot be used: the library knows only options and texts, and no flags and files. */
export function cannotUse<Flag extends string>(
  names: Readonly<Record<string, Flag>>,
  flags: FileFlags<Flag>,
  { option, problem }: { readonly option: string; readonly problem: string },
): CommandError {
  const file = `${flags.nameOf(names[option])} ${quote(String(flags[names[option]]))}`;
  return new CommandError(`cannot use ${file}: ${problem}`, 2);
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
