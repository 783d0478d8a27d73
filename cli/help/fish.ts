/**
 * The completions of fish.
 *
 * @module
 */

import { type CommandWord, commandWords, type FlagWord } from "./words.ts";

/** Writes a script that is sourced, or loaded from the folder of completions. */
export function fishScript(): string {
  const [server, ...subcommands] = commandWords();
  const names = subcommands.map(({ word }) => word).join(" ");
  const none = `not __fish_seen_subcommand_from ${names}`;
  return [
    "# Completes shouty in fish. Made by: shouty completions fish",
    "complete -c shouty -f",
    ...subcommands.map(({ word, summary }) =>
      `complete -c shouty -n 'test (count (commandline -opc)) -eq 1' -a ${word} -d ${quote(summary)}`
    ),
    ...linesOf(server, none),
    ...subcommands.flatMap((command) => linesOf(command, `__fish_seen_subcommand_from ${command.word}`)),
  ].join("\n");
}

function linesOf({ flags, operand }: CommandWord, condition: string): string[] {
  const begin = `complete -c shouty -n ${quote(condition)}`;
  const operands = operand === undefined || operand.words.length === 0
    ? []
    : [`${begin} -a ${quote(operand.words.join(" "))}`];
  return [...operands, ...flags.map((flag) => `${begin} ${lineOf(flag)}`)];
}

function lineOf({ name, meaning, value, optional }: FlagWord): string {
  const words = value === undefined || value.words.length === 0 ? "" : ` -a ${quote(value.words.join(" "))}`;
  const needs = value === undefined || optional ? "" : value.files ? " -r -F" : " -x";
  return `-l ${name}${needs}${words} -d ${quote(meaning)}`;
}

function quote(text: string): string {
  return `'${text.replaceAll(/['\\]/g, "\\$&")}'`;
}
