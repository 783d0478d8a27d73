/**
 * The texts of `--help` and `--version`.
 *
 * @module
 */

import manifest from "../deno.json" with { type: "json" };
import { type Command, CONNECT, type Flag, flagName, SERVE, SWITCHES, variableName } from "./flags.ts";

/** The text that a switch asks for. */
export function answer(ask: keyof typeof SWITCHES, command: Command): string {
  return ask === "version" ? `shouty ${manifest.version}` : help(command);
}

function help(command: Command): string {
  return [`${command.name} ${command.summary}.`, usage(command), table(command), notes(command)].join("\n\n");
}

/** How to call the command, and how to get the help of the other. */
function usage(command: Command): string {
  const words = [command.name, command.operand?.symbol ?? [], "[FLAG...]"].flat();
  const others = [SERVE, CONNECT].filter(({ name }) => name !== command.name).map(({ name }) => `${name} --help`);
  return `Usage: ${words.join(" ")}\n       ${others}`;
}

/** One row per flag: its form, its default, its meaning. */
function table(command: Command): string {
  const rows = [["Flag", "Default", "Meaning"]];
  for (const [option, flag] of Object.entries(command.flags)) {
    rows.push([`--${flagName(option)} ${flag.kind.symbol}`, standard(flag), flag.help]);
  }
  for (const [name, meaning] of Object.entries(SWITCHES)) {
    rows.push([name === "help" ? "-h, --help" : `--${name}`, "", meaning]);
  }
  const widths = [0, 1].map((column) => Math.max(...rows.map((row) => row[column].length)) + 2);
  return rows.map((row) => row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("").trimEnd()).join("\n");
}

function standard(flag: Flag<unknown>): string {
  if (typeof flag.default === "string") return flag.default;
  return "as" in flag.default ? `as --${flagName(flag.default.as)}` : flag.default.says;
}

/** How to write the values, and which environment variables set them. */
function notes({ flags, variables }: Command): string {
  const lines = [...new Set(Object.values(flags).flatMap(({ kind }) => kind.legend ?? []))];
  if (variables !== undefined) {
    const [option] = Object.keys(flags);
    const example = `${variableName(variables, option)} for --${flagName(option)}`;
    lines.push(`Each flag has an environment variable, ${example}; the flag wins.`);
    lines.push(`Deno lets the command read them with --allow-env=${variables}*`);
  }
  return lines.join("\n");
}
