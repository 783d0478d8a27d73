/**
 * What a shell can complete, from the tables of the commands.
 *
 * @module
 */

import { COMMANDS, wordOf } from "../flags/commands.ts";
import { type Command, flagName, SWITCHES } from "../flags/flags.ts";
import type { Kind } from "../flags/kinds.ts";

/** A value that can be completed. */
export interface Value {
  /** The placeholder, such as `FILE|off`. */
  readonly symbol: string;
  readonly words: readonly string[];
  readonly files: boolean;
}

/** A flag that can be completed. */
export interface FlagWord {
  /** The flag, without its dashes. */
  readonly name: string;
  readonly meaning: string;
  /** Its value; `undefined` if it takes none. */
  readonly value: Value | undefined;
  /** Whether the value may be missing. */
  readonly optional: boolean;
}

/** A command that can be completed. */
export interface CommandWord {
  /** The word after `shouty`; empty for the server. */
  readonly word: string;
  readonly summary: string;
  readonly operand: Value | undefined;
  readonly flags: readonly FlagWord[];
}

/** Lists all commands with their flags. */
export function commandWords(): CommandWord[] {
  return COMMANDS.map((command) => ({
    word: wordOf(command),
    summary: command.summary,
    operand: command.operand && valueOf(command.operand),
    flags: flagWords(command),
  }));
}

function flagWords({ flags }: Command): FlagWord[] {
  const own = Object.entries(flags).map(([option, { kind, help }]) => (
    { name: flagName(option), meaning: help, value: valueOf(kind), optional: kind.bare !== undefined }
  ));
  const switches = Object.entries(SWITCHES).map(([name, meaning]) => (
    { name, meaning, value: undefined, optional: false }
  ));
  return [...own, ...switches];
}

/** Quotes a text for bash and zsh. */
export function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function valueOf({ symbol, words = [], files = false }: Kind<unknown>): Value {
  return { symbol, words, files };
}
