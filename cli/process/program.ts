/**
 * This process's own command line, and that of the process that goes on in its place.
 *
 * @module
 */

import { CommandError } from "../system/errors.ts";
import type { SERVE } from "../flags/flags.ts";
import type { Descriptor } from "../flags/descriptors.ts";
import type { Values } from "../line/parse.ts";

/** A command line: a program and its arguments. */
export type CommandLine = readonly [program: string, ...args: string[]];

/**
 * Reads this process's command line, with which a new process is started. Deno's own flags, among them the permissions,
 * are part of it; only the system knows them.
 *
 * @param flags The flags' values.
 * @returns The command line without the command's own arguments; undefined without `--upgrade`.
 * @throws {CommandError} (As a rejection.) If it cannot be read, or no process may be started.
 */
export async function ownProgram(
  { upgrade }: Pick<Values<typeof SERVE.flags>, "upgrade">,
): Promise<CommandLine | undefined> {
  if (upgrade === "off") return undefined;
  const refused = (why: string, exitCode: 1 | 2) => new CommandError(`cannot use --upgrade: ${why}`, exitCode);
  if (Deno.build.os === "windows") throw refused("Windows has no signal for it", 2);
  const { state, partial } = Deno.permissions.querySync({ name: "run" });
  if (state !== "granted" || partial) {
    throw refused("no permission to start the new process, which --allow-run without a list grants", 1);
  }
  const words = await readWords();
  const [program, ...args] = words.slice(0, words.length - Deno.args.length);
  if (program !== undefined) return [program, ...args];
  if (Deno.build.standalone) return [Deno.execPath()];
  throw refused("only Linux tells a process its command line; compile the command, or restart it otherwise", 1);
}

/** The words of this process's command line; none if the system does not tell. */
async function readWords(): Promise<string[]> {
  try {
    // Not read here: Deno gives the files in /proc only to programs that may do everything.
    const args = [`/proc/${Deno.pid}/cmdline`];
    const { stdout } = await new Deno.Command("cat", { args, stdin: "null", stderr: "null" }).output();
    return new TextDecoder().decode(stdout).split("\0").slice(0, -1);
  } catch {
    return [];
  }
}

/**
 * The arguments with which the new process gets the sockets, in place of those that this process has got. They come before
 * a `--`, behind which there are no flags.
 */
export function argsFor(args: readonly string[], descriptors: readonly Descriptor[]): string[] {
  const kept: string[] = [];
  const end = args.includes("--") ? args.indexOf("--") : args.length;
  for (let i = 0; i < end; i++) {
    const [flag] = args[i].split("=", 1);
    if (flag !== "--listen-fd" && flag !== "--upgrade") kept.push(args[i]);
    // The flag's value is the next argument; --upgrade may have none.
    else if (flag === args[i] && (flag === "--listen-fd" || /^(on|off|child)$/.test(args[i + 1] ?? ""))) i++;
  }
  const list = descriptors.map(({ fd, tls }) => `${fd}${tls ? ":tls" : ""}`).join(",");
  return [...kept, `--listen-fd=${list}`, "--upgrade=child", ...args.slice(end)];
}
