/**
 * The texts of `--help` and `--version`.
 *
 * @module
 */

import manifest from "../../deno.json" with { type: "json" };
import { COMMANDS } from "../flags/commands.ts";
import { type Command, type Flag, flagName, SWITCHES, variableName } from "../flags/flags.ts";
import { say } from "../system/print.ts";

/**
 * The text that a switch asks for.
 *
 * @param ask The switch.
 * @param command The command whose switch it is.
 * @param colour Whether it is shown on a terminal with colours.
 */
export function answer(ask: keyof typeof SWITCHES, command: Command, colour = false): string {
  return ask === "version" ? `shouty ${manifest.version}` : help(command, colour);
}

/** Writes the text that a switch asks for to stdout; returns the exit code. */
export async function sayAnswer(ask: keyof typeof SWITCHES, command: Command): Promise<number> {
  return await say(answer(ask, command, Deno.stdout.isTerminal() && !Deno.noColor));
}

/** One flag, as `--help` and the manual page show it. */
export interface Row {
  /** The flag, without the placeholder of its value. */
  readonly name: string;
  /** The placeholder of its value; empty for a switch that takes none. */
  readonly symbol: string;
  /** Its default; empty if it has none. */
  readonly standard: string;
  readonly meaning: string;
}

/** Flags under one heading. */
export interface Group {
  /** The heading; empty for flags that have none. */
  readonly title: string;
  readonly rows: readonly Row[];
}

/** The flags of a command by their headings. The last group has the switches that every command takes. */
export function groupsOf({ flags, groups = {} }: Command): Group[] {
  const found: { title: string; rows: Row[] }[] = [];
  const switches = Object.entries(SWITCHES).map(([name, meaning]) => (
    { name: name === "help" ? "-h, --help" : `--${name}`, symbol: "", standard: "", meaning }
  ));
  for (const [option, flag] of Object.entries(flags)) {
    const title = groups[option];
    if (title !== undefined || found.length === 0) found.push({ title: title ?? "", rows: [] });
    const { kind: { symbol }, help: meaning } = flag;
    found.at(-1)!.rows.push({ name: `--${flagName(option)}`, symbol, standard: standard(flag), meaning });
  }
  // Below no other heading, the switches need none either.
  if (found.at(-1)?.title === "") found.at(-1)!.rows.push(...switches);
  else found.push({ title: found.length > 0 ? "Help" : "", rows: switches });
  return found;
}

/** How to write the values of a command's flags, and which environment variables set them. */
export function notesOf({ flags, variables, variablesOf, notes = [] }: Command): string[] {
  const lines = [...new Set(Object.values(flags).flatMap(({ kind }) => kind.legend ?? []))];
  if (variables !== undefined) {
    const standsFor = (option: string) => `${variableName(variables, option)} for --${flagName(option)}`;
    lines.push(
      variablesOf === undefined
        ? `Each flag has an environment variable, ${standsFor(Object.keys(flags)[0])}; the flag wins.`
        : `Environment variables are ${variablesOf.map(standsFor).join(" and ")}; the flag wins.`,
    );
    lines.push(`Deno lets the command read them with --allow-env=${variables}*`);
  }
  return [...lines, ...notes];
}

function help(command: Command, colour: boolean): string {
  const bold = (text: string) => colour ? `\x1b[1m${text}\x1b[22m` : text;
  const cyan = (text: string) => colour ? `\x1b[36m${text}\x1b[39m` : text;
  const groups = groupsOf(command);
  const cells = ({ name, symbol, standard }: Row) => [`${name} ${symbol}`.trim(), standard];
  const head = ["Flag", "Default"];
  const widths = [0, 1].map((column) => {
    const texts = groups.flatMap(({ rows }) => rows.map((row) => cells(row)[column]));
    return Math.max(head[column].length, ...texts.map(({ length }) => length)) + 2;
  });
  const pad = (texts: string[]) => texts.map((text, column) => text.padEnd(widths[column]));
  const tables = groups.map(({ title, rows }) => {
    const lines = rows.map((row) => {
      const [form, standard] = pad(cells(row));
      return form.replace(row.name, cyan(row.name)) + standard + row.meaning;
    });
    return [...(title === "" ? [] : [bold(title)]), ...lines].join("\n");
  });
  const table = [bold(`${pad(head).join("")}Meaning`), ...tables].join(tables.length > 1 ? "\n\n" : "\n");
  const notes = notesOf(command).join("\n");
  return [`${bold(command.name)} ${command.summary}.`, usage(command), table, notes].filter(Boolean).join("\n\n");
}

/** How to call the command, and how to get the help of the others. */
function usage(command: Command): string {
  const others = COMMANDS.filter(({ name }) => name !== command.name).map(({ name }) => `${name} --help`);
  return [`Usage: ${callOf(command)}`, ...others].join("\n       ");
}

/** The form of a command line, such as `shouty connect HOST:PORT [FLAG...]`. */
export function callOf({ name, operand }: Command): string {
  return [name, operand?.symbol ?? [], "[FLAG...]"].flat().join(" ");
}

function standard(flag: Flag<unknown>): string {
  if (typeof flag.default === "string") return flag.default;
  return "as" in flag.default ? `as --${flagName(flag.default.as)}` : flag.default.says;
}
