/**
 * The completions of bash.
 *
 * @module
 */

import { type CommandWord, commandWords, quote } from "./words.ts";

/** Writes a script for bash 3.2 (that of macOS) and newer. It needs no package of completions. */
export function bashScript(): string {
  const commands = commandWords();
  const subcommands = commands.map(({ word }) => word).filter(Boolean);
  return `# Completes shouty in bash. Made by: shouty completions bash
_shouty() {
  local IFS=$' \\t\\n' word=\${COMP_WORDS[COMP_CWORD]} flag=\${COMP_WORDS[COMP_CWORD-1]} command= names= words= files=
  # Bash splits --flag=value at its "=".
  if [[ $word == = ]]; then word=; elif [[ $flag == = ]]; then flag=\${COMP_WORDS[COMP_CWORD-2]}; fi
  if (( COMP_CWORD > 1 )); then
    case \${COMP_WORDS[1]} in ${subcommands.join("|")}) command=\${COMP_WORDS[1]} ;; esac
  fi
  case $command in
${commands.map((command) => `    ${quote(command.word)}) names=${quote(namesOf(command))} ;;`).join("\n")}
  esac
  (( COMP_CWORD > 1 )) || names="$names ${subcommands.join(" ")}"
  case $command$flag in
${commands.flatMap(casesOf).join("\n")}
    *) words=$names ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  if [[ -n $files ]]; then
    compopt -o filenames 2>/dev/null
    IFS=$'\\n'
    COMPREPLY+=($(compgen -f -- "$word"))
  fi
}
complete -F _shouty shouty`;
}

/** What follows each flag of a command. */
function casesOf(command: CommandWord): string[] {
  return command.flags.flatMap(({ name, value, optional }) => {
    if (value === undefined) return [];
    const words = quote(value.words.join(" "));
    // A switch without a value may be followed by anything.
    const set = `words=${optional ? `${words}" $names"` : words}${value.files ? " files=1" : ""}`;
    return `    ${quote(`${command.word}--${name}`)}) ${set} ;;`;
  });
}

function namesOf({ flags, operand }: CommandWord): string {
  return [...operand?.words ?? [], ...flags.map(({ name }) => `--${name}`)].join(" ");
}
