/**
 * The completions of zsh.
 *
 * @module
 */

import { type CommandWord, commandWords, type FlagWord, quote, type Value } from "./words.ts";

/** Writes a script that is loaded from `$fpath` as `_shouty`, or sourced. */
export function zshScript(): string {
  const [server, ...subcommands] = commandWords();
  const names = subcommands.map(({ word, summary }) => `${word}\\:${quoted(summary)}`).join(" ");
  return `#compdef shouty
# Completes shouty in zsh. Made by: shouty completions zsh
_shouty() {
  if (( CURRENT > 2 )); then
    case $words[2] in
${subcommands.map(branchOf).join("\n")}
    esac
  fi
  local -a first
  (( CURRENT > 2 )) || first=(${quote(`1:command:((${names}))`)})
  _arguments $first \\
${specsOf(server, "    ")}
}
if [[ $funcstack[1] == _shouty ]]; then _shouty "$@"; else compdef _shouty shouty; fi`;
}

/** The completion of one subcommand, for which its word is taken away. */
function branchOf(command: CommandWord): string {
  return `      ${command.word})
        shift words
        (( CURRENT-- ))
        _arguments \\
${specsOf(command, "          ")}
        return
        ;;`;
}

function specsOf({ flags, operand }: CommandWord, indent: string): string {
  // Without an action, zsh would show the placeholder of the operand in place of completing a flag.
  const operands = operand === undefined ? [] : [`1:${plain(operand.symbol)}:${actionOf(operand) || "{true}"}`];
  return [...operands, ...flags.map(specOf)].map((spec) => indent + quote(spec)).join(" \\\n");
}

function specOf({ name, meaning, value, optional }: FlagWord): string {
  const help = `[${plain(meaning).replaceAll(/[[\]]/g, "\\$&")}]`;
  if (value === undefined) return `--${name}${help}`;
  return `--${name}=${help}:${optional ? ":" : ""}${plain(value.symbol)}:${actionOf(value)}`;
}

function actionOf({ words, files }: Value): string {
  if (files) return "_files";
  return words.length > 0 ? `(${words.join(" ")})` : "";
}

/** Escapes the colon, which separates the parts of a specification. */
function plain(text: string): string {
  return text.replaceAll(":", "\\:");
}

/** A text within the list of commands. */
function quoted(text: string): string {
  return `"${plain(text)}"`;
}
