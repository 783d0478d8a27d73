/**
 * All commands: the server, and the subcommands.
 *
 * @module
 */

import { ADMIN_COMMAND } from "./admin_flags.ts";
import { type Command, CONNECT, type Flags, SERVE } from "./flags.ts";
import { oneOf } from "./kinds.ts";

/** The shells for which there are completions. */
export type Shell = "bash" | "zsh" | "fish";

/** Writes a shell's completions. */
export const COMPLETIONS: Command<Flags, Shell> = {
  name: "shouty completions",
  summary: "writes a script with which a shell completes commands and flags",
  operand: oneOf("bash", "zsh", "fish"),
  flags: {},
  notes: [
    'bash: put eval "$(shouty completions bash)" into ~/.bashrc',
    "zsh: write it to a file _shouty in a folder of $fpath",
    "fish: write it to ~/.config/fish/completions/shouty.fish",
  ],
};

/** Writes the manual page. */
export const MAN: Command<Flags, undefined> = {
  name: "shouty man",
  summary: "writes the manual page",
  flags: {},
  notes: ["shouty man | man -l - shows it; in a folder such as /usr/local/share/man/man1, as shouty.1, man finds it."],
};

/** The server, and then the subcommands. */
export const COMMANDS: readonly Command[] = [SERVE, CONNECT, ADMIN_COMMAND, COMPLETIONS, MAN] as readonly Command[];

/** The word after `shouty` that calls a command; empty for the server. */
export function wordOf({ name }: Command): string {
  return name.split(" ")[1] ?? "";
}
