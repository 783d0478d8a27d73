/**
 * The files of `deploy/`, as their tests read them.
 *
 * @module
 */

import { CommandError } from "../../../cli/system/errors.ts";
import { SERVE } from "../../../cli/flags/flags.ts";
import { parse, type Values } from "../../../cli/line/parse.ts";

/** The project's folder. */
export const PROJECT: string = `${import.meta.dirname}/../../..`;

/** Reads a file of `deploy/`. */
export function shipped(path: string): string {
  return Deno.readTextFileSync(`${PROJECT}/deploy/${path}`);
}

/**
 * Replaces a part of a shipped file, such as an address; it must be there.
 *
 * @param text The file's text.
 * @param replacements The parts, and what takes the place of each.
 */
export function adapted(text: string, replacements: Readonly<Record<string, string>>): string {
  for (const [part, other] of Object.entries(replacements)) {
    if (!text.includes(part)) throw new Error(`There is no ${JSON.stringify(part)} to adapt`);
    text = text.replaceAll(part, other);
  }
  return text;
}

/** What a program has said: everything that it wrote, and its exit code. */
export interface Said {
  readonly code: number;
  readonly text: string;
}

/** Runs a program to its end. */
export async function ask(program: string, args: string[], options: Deno.CommandOptions = {}): Promise<Said> {
  const command = new Deno.Command(program, {
    ...options,
    args,
    stdin: "null",
    env: { NO_COLOR: "1", ...options.env },
  });
  const { code, stdout, stderr } = await command.output();
  const decoder = new TextDecoder();
  return { code, text: decoder.decode(stdout) + decoder.decode(stderr) };
}

/** Makes a folder that is removed at the end of a block. */
export async function makeFolder(): Promise<{ path: string } & AsyncDisposable> {
  const path = await Deno.makeTempDir({ prefix: "shouty_deploy_" });
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}

/** The values of a command line's flags, read as the command reads them. */
export function flagsOf(args: readonly string[], variables: Readonly<Record<string, string>> = {}): Flags {
  const parsed = parse(SERVE, args, (name) => variables[name]);
  if (parsed.ask !== undefined) throw new CommandError("a command line that serves nobody", 2);
  return parsed.values;
}

/** The values of all flags of the server. */
export type Flags = Values<typeof SERVE.flags>;

/** Milliseconds of a time such as `10s`, `500ms` or `1m`, as HAProxy, systemd, Docker and Prometheus write it. */
export function milliseconds(text: string): number {
  const [, digits, unit] = /^(\d+)(ms|s|m)$/.exec(text) ?? [];
  if (digits === undefined) throw new Error(`${text} is no time`);
  return Number(digits) * { ms: 1, s: 1000, m: 60_000 }[unit as "ms" | "s" | "m"];
}

/** The words of the first line of a text that begins with these, without them. */
export function wordsAfter(text: string, beginning: string): string[] {
  const line = text.split("\n").map((line) => line.trim()).find((line) => line.startsWith(beginning));
  if (line === undefined) throw new Error(`No line begins with ${beginning}`);
  return line.slice(beginning.length).trim().split(/\s+/);
}
