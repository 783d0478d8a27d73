/**
 * Parses the command line and the environment variables, and refuses anything that is not in the tables of flags.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { quote } from "../internal/api/errors.ts";
import { CommandError } from "./errors.ts";
import { type Command, type Flag, flagName, type Flags, SWITCHES, variableName } from "./flags.ts";
import type { Kind } from "./kinds.ts";

/** The values of flags, by the names of their options. */
export type Values<F extends Flags> = { -readonly [Name in keyof F]: F[Name] extends Flag<infer T> ? T : never };

/** What was given to a command. */
export interface Given<F extends Flags> {
  readonly values: Values<F>;
  /** The options whose values are not defaults: flags or variables set them. */
  readonly given: ReadonlySet<string>;
  /** What was ignored. */
  readonly ignored: readonly Ignored[];
}

/** Environment variables that set nothing, and the line that says so. */
export interface Ignored {
  readonly variables: readonly string[];
  readonly text: string;
}

/** A parsed command line: a switch, which overrides everything else, or values. */
export type Parsed<F extends Flags, Operand> =
  | { readonly ask: keyof typeof SWITCHES }
  | Given<F> & { readonly ask?: undefined; readonly operand: Operand };

/** Looks up an environment variable. */
export type Environment = (name: string) => string | undefined;

/**
 * Parses a command line.
 *
 * @param command The command, with its flags.
 * @param args The arguments.
 * @param environment Looks up the command's environment variables; a flag overrides its variable.
 * @returns The switch or the values.
 * @throws {CommandError} If an argument or variable is wrong, in one line that names it and what is allowed.
 */
export function parse<F extends Flags, Operand = undefined>(
  command: Command<F, Operand>,
  args: readonly string[],
  environment: Environment = () => undefined,
): Parsed<F, Operand> {
  const kinds = kindsOf(command);
  const names = [...kinds.keys()];
  const { given, unknown, operands } = split(args, kinds);
  for (const ask of ["help", "version"] as const) if (given(ask).length > 0) return { ask };
  if (unknown !== undefined) {
    const flags = names.map((name) => `--${name}`).join(", ");
    throw new CommandError(`unknown flag ${quote(unknown)}: expected one of ${flags}`, 2);
  }
  const ignored: Ignored[] = [];
  const variables = withoutKubernetes(environment, ignored);
  return { ...readFlags(command, given, variables), operand: readOperand(command, operands), ignored };
}

/** Values that Kubernetes sets for each Service in every pod: `SHOUTY_PORT=tcp://10.96.0.12:8080` for one named `shouty`. */
const SERVICE_ADDRESS = /^(tcp|udp|sctp):\/\//;

/** Ignores the variables that hold the address of a Kubernetes Service, and adds a line about each to `ignored`. */
function withoutKubernetes(environment: Environment, ignored: Ignored[]): Environment {
  return (name) => {
    const text = environment(name);
    if (text === undefined || !SERVICE_ADDRESS.test(text)) return text;
    const said = `ignored ${name} ${quote(text)}: Kubernetes sets it to the address of a Service`;
    ignored.push({ variables: [name], text: said });
  };
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
    const allowed = operand === undefined ? "only flags" : `only one ${operand.symbol}`;
    throw new CommandError(`cannot use argument ${quote(stray)}: expected ${allowed}`, 2);
  }
  if (operand === undefined) return undefined as Operand;
  if (first === undefined) {
    throw new CommandError(`cannot use ${name} without ${operand.symbol}: expected ${operand.allowed}`, 2);
  }
  return read(operand, first, "argument");
}

function readFlags<F extends Flags>(
  { flags, variables }: Command<F>,
  given: Words["given"],
  environment: Environment,
): { values: Values<F>; given: ReadonlySet<string> } {
  const values: Record<string, unknown> = {};
  const set = new Set<string>();
  for (const [option, flag] of Object.entries(flags)) {
    const name = `--${flagName(option)}`;
    const [text, again] = given(flagName(option));
    if (again !== undefined) {
      throw new CommandError(`cannot use ${name} twice, with ${quote(text)} and ${quote(again)}: expected it once`, 2);
    }
    const variable = variables === undefined ? "" : variableName(variables, option);
    const inherited = text === undefined && variable !== "" ? environment(variable) : undefined;
    if (text !== undefined || inherited !== undefined) set.add(option);
    if (text !== undefined) values[option] = read(flag.kind, text, name);
    else if (inherited !== undefined) values[option] = read(flag.kind, inherited, variable);
    else if (typeof flag.default === "string") values[option] = flag.kind.read(flag.default);
    else if ("as" in flag.default) values[option] = values[flag.default.as];
  }
  return { values: values as Values<F>, given: set };
}

function read<T>(kind: Kind<T>, text: string, name: string): T {
  const value = kind.read(text);
  if (value !== undefined) return value;
  const what = text === "" ? `${name} without a value` : `${name} ${quote(text)}`;
  throw new CommandError(`cannot use ${what}: expected ${kind.allowed}`, 2);
}
