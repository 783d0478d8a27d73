/**
 * Programs and npm packages that tests use as clients, where they are installed.
 *
 * @module
 */

import { Subprocess } from "../command.ts";

/**
 * Looks for a program.
 *
 * @param name The program.
 * @param args Arguments with which it ends at once.
 * @returns Why tests that need it are skipped, for their names; empty if it is installed.
 */
export async function missingProgram(name: string, ...args: string[]): Promise<string> {
  try {
    await new Deno.Command(name, { args, stdin: "null", stdout: "null", stderr: "null" }).output();
    return "";
  } catch {
    return ` (skipped: ${name} is missing)`;
  }
}

/**
 * Looks for a package of npm.
 *
 * @param name The name and the exact version, such as `ioredis@5.8.2`.
 * @returns Why tests that need it are skipped, for their names; empty if it can be loaded.
 */
export async function missingPackage(name: string): Promise<string> {
  try {
    await import(`npm:${name}`);
    return "";
  } catch {
    return ` (skipped: npm's ${name} cannot be loaded)`;
  }
}

/**
 * Starts a script of this folder that uses a package of npm, in a process of its own: such a package may need flags, and
 * may leave timers behind.
 *
 * @param script The name of the file.
 * @param port The port of the server, which the script gets as its argument.
 * @param flags Flags for Deno.
 */
export function runClient(script: string, port: number, ...flags: string[]): Subprocess {
  const args = ["run", "--no-check", "--allow-all", ...flags, `${import.meta.dirname}/${script}`, `${port}`];
  return new Subprocess(Deno.execPath(), args, { input: "" });
}
