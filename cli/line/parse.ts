/**
 * Parses the command line and the environment variables, and refuses anything that is not in the tables of flags.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { quote } from "../../internal/api/errors.ts";
import { closest } from "./closest.ts";
import { COMMANDS, wordOf } from "../flags/commands.ts";
import { type Environment, type Ignored, Variables } from "./environment.ts";
import { CommandError } from "../system/errors.ts";
import { type Command, type Flag, flagName, type Flags, SWITCHES } from "../flags/flags.ts";
import type { Kind } from "../flags/kinds.ts";

/** The values of flags, by the names of their options. */
export type Values<F extends Flags> = { -readonly [Name in keyof F]: F[Name] extends Flag<infer T> ? T : never };

/** What was given to a command. */
export interface Given<F extends Flags> {
  readonly values: Values<F>;
  /** The options whose values are not defaults: flags or variables set them. */
  readonly given: ReadonlySet<string>;
  /** The options that flags set: what a user has just written, and means. */
  readonly written: ReadonlySet<string>;
  /** Names an option as it was set: by its variable if that has set it, else by its flag. */
  readonly nameOf: Naming;
  /** What was ignored. */
  readonly ignored: readonly Ignored[];
}

/** Names an option, for errors. */
export type Naming = (option: string) => string;

/** A parsed command line: a switch, which overrides everything else, or values. */
export type Parsed<F extends Flags, Operand> =
  | { readonly ask: keyof typeof SWITCHES }
  | Given<F> & { readonly ask?: undefined; readonly operand: Operand };

/**
 * Parses a command line.
 *
 * @param command The command, with its flags.
 * @param args The arguments.
 * @param environment Looks up the command's environment variables; a flag overrides its variable.
 * @param names The names of all environment variables; empty if the command may not list them.
 * @returns The switch or the values.
 * @throws {CommandError} If an argument or variable is wrong, in one line that names it and what is allowed.
 */
export function parse<F extends Flags, Operand = undefined>(
  command: Command<F, Operand>,
  args: readonly string[],
  environment: Environment = () => undefined,
  names: readonly string[] = [],
): Parsed<F, Operand> {
  const kinds = kindsOf(command);
  const { given, unknown, operands } = split(args, kinds);
  for (const ask of ["help", "version"] as const) if (given(ask).length > 0) return { ask };
  if (unknown !== undefined) throw unknownFlag(unknown, command, kinds);
  const variables = new Variables(command as Command, environment);
  const read = readFlags(command, given, variables);
  return { ...read, operand: readOperand(command, operands), ignored: variables.ignored(names) };
}

/** The error for a flag that the command does not have. Its value may be secret, so the error has only its name. */
function unknownFlag(arg: string, { name }: Pick<Command, "name">, kinds: Kinds): CommandError {
  const [flag] = arg.split("=");
  const [, negated = ""] = /^--no-(.+)/.exec(flag) ?? [];
  const meant = kinds.get(negated)?.bare === undefined ? closest(flag, [...kinds.keys()]) : `${negated} off`;
  const hint = meant === undefined ? `see ${name} --help` : `did you mean --${meant}?`;
  return new CommandError(`unknown flag ${quote(flag)}: ${hint}`, 2);
}

/** The parts of a command line. */
interface Words {
  /** The values that were given for a flag; a missing value is an empty string. */
  given(name: string): string[];
  /** The first flag that the command does not have. */
  readonly unknown: string | undefined;
  readonly operands: string[];
}

/** Flags that parseArgs misreads: `--no-port=1` as `--port=1`, and a flag `_` as its own list of operands. */
const MISTAKEN = /^--no-|^--_|^-[^-]*_/;

/** The kind of each flag's value; the switches that every command takes have none. */
type Kinds = ReadonlyMap<string, Kind<unknown> | undefined>;

function kindsOf({ flags }: Command): Kinds {
  const own = Object.entries(flags).map(([option, { kind }]) => [flagName(option), kind] as const);
  return new Map([...own, ...Object.keys(SWITCHES).map((name) => [name, undefined] as const)]);
}

function split(args: readonly string[], kinds: Kinds): Words {
  const { flags, rest } = attachValues(args, kinds);
  const names = [...kinds.keys()];
  let unknown = flags.find((arg) => MISTAKEN.test(arg));
  const found: Record<string, unknown> = parseArgs(flags.filter((arg) => !MISTAKEN.test(arg)), {
    string: [...names, "_"],
    collect: names,
    alias: { h: "help" },
    unknown(arg, key) {
      if (key !== undefined) unknown ??= arg;
      return key === undefined;
    },
  });
  return { given: (name) => found[name] as string[], unknown, operands: [...found._ as string[], ...rest] };
}

/**
 * Joins each flag and its value, `--flag=value`, up to the `--` that ends the flags: parseArgs reads the value of
 * `--port -1` as another flag, and that of `--port ""` as an operand. A switch takes the next argument only if that is
 * a value of it: `--tls localhost:8080` is `--tls=on` and an operand.
 */
function attachValues(args: readonly string[], kinds: Kinds): { flags: string[]; rest: readonly string[] } {
  const flags: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const [arg, next] = args.slice(i, i + 2);
    if (arg === "--") return { flags, rest: args.slice(i + 1) };
    const name = arg.startsWith("--") ? arg.slice(2) : "";
    const kind = kinds.get(name);
    const takesNext = next !== undefined &&
      (kind?.bare === undefined
        ? kinds.has(name) && !/^-[^\d]/.test(next)
        : next === "" || kind.read(next) !== undefined);
    if (takesNext) flags.push(`${arg}=${next}`), i++;
    else flags.push(kind?.bare === undefined ? arg : `${arg}=${kind.bare}`);
  }
  return { flags, rest: [] };
}

function readOperand<Operand>({ name, operand }: Command<Flags, Operand>, given: string[]): Operand {
  const [first, second] = given;
  const stray = operand === undefined ? first : second;
  if (stray !== undefined) {
    const meant = operand === undefined ? meantBy(stray) : undefined;
    const allowed = operand === undefined ? "only flags" : `only one ${operand.symbol}`;
    const hint = meant === undefined ? `expected ${allowed}` : `did you mean ${meant}?`;
    throw new CommandError(`cannot use argument ${quote(stray)}: ${hint}`, 2);
  }
  if (operand === undefined) return undefined as Operand;
  if (first === undefined) {
    throw new CommandError(`cannot use ${name} without ${operand.symbol}: expected ${operand.allowed}`, 2);
  }
  return read(operand, first, "argument");
}

/** The subcommand that a word was meant to be, if it is close to one. */
function meantBy(word: string): string | undefined {
  const name = closest(word, COMMANDS.map(wordOf).filter(Boolean));
  return name === undefined ? undefined : `shouty ${name}`;
}

function readFlags<F extends Flags>(
  { flags }: Command<F>,
  given: Words["given"],
  variables: Variables,
): Pick<Given<F>, "values" | "given" | "written" | "nameOf"> {
  const values: Record<string, unknown> = {};
  /** What has set each option: its flag, or its variable. */
  const setBy = new Map<string, string>();
  const written = new Set<string>();
  for (const [option, flag] of Object.entries(flags)) {
    const name = `--${flagName(option)}`;
    const [text, again] = given(flagName(option));
    if (again !== undefined) {
      throw new CommandError(`cannot use ${name} twice, with ${quote(text)} and ${quote(again)}: expected it once`, 2);
    }
    if (text !== undefined) written.add(option);
    const source = text === undefined ? variables.read(option) : { name, text };
    if (source.text !== undefined) {
      setBy.set(option, source.name);
      values[option] = read(flag.kind, source.text, source.name);
    } else if (typeof flag.default === "string") values[option] = flag.kind.read(flag.default);
    else if ("as" in flag.default) values[option] = values[flag.default.as];
  }
  const nameOf = (option: string) => setBy.get(option) ?? `--${flagName(option)}`;
  return { values: values as Values<F>, given: new Set(setBy.keys()), written, nameOf };
}

function read<T>(kind: Kind<T>, text: string, name: string): T {
  const value = kind.read(text);
  if (value !== undefined) return value;
  const what = text === "" ? `${name} without a value` : `${name} ${quote(text)}`;
  throw new CommandError(`cannot use ${what}: expected ${kind.allowed}`, 2);
}
