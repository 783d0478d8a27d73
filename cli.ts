/**
 * The command's entry point. Only this file and `cli/` use arguments, the environment, signals, standard streams and exit
 * codes.
 *
 * `cli/` holds its parts: the commands and flags (`flags/`), reading a command line with them (`line/`), the texts that
 * are made of them (`help/`), the log (`log/`), opening listeners, here or in workers (`serve/`), this process and those
 * around it (`process/`: signals, upgrades, systemd), the life of the server (`run/`), the client (`connect/`), the admin
 * port and the client that asks it (`admin/`), and what meets the system (`system/`: files, addresses, permissions,
 * streams).
 *
 * @module
 */

import { runAdmin } from "./cli/admin/admin.ts";
import { connectTo } from "./cli/connect/connect.ts";
import { COMPLETIONS, MAN } from "./cli/flags/commands.ts";
import { type Command, CONNECT, type Flags, SERVE } from "./cli/flags/flags.ts";
import { completions } from "./cli/help/completions.ts";
import { sayAnswer } from "./cli/help/help.ts";
import { manPage } from "./cli/help/man.ts";
import { type Given, parse } from "./cli/line/parse.ts";
import { endProcess } from "./cli/process/end.ts";
import { serveUntilStopped } from "./cli/run/run.ts";
import { CommandError } from "./cli/system/errors.ts";
import { complain, say } from "./cli/system/print.ts";

/**
 * Runs the command and ends the process.
 *
 * @param args The command line: flags of the server, or a subcommand and its arguments.
 */
export async function main(args: string[]): Promise<void> {
  let exitCode: number;
  try {
    const [word, ...rest] = args;
    const subcommand = Object.hasOwn(SUBCOMMANDS, word ?? "") ? SUBCOMMANDS[word] : undefined;
    exitCode = await (subcommand === undefined ? SERVER(args) : subcommand(rest));
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    exitCode = error.exitCode;
    if (!error.logged) complain(error.message);
  }
  endProcess(exitCode);
}

/** Runs a command with the arguments behind its name; returns the exit code. */
type Run = (args: string[]) => Promise<number>;

const SERVER: Run = runOf(SERVE, (given) => serveUntilStopped(given, readVariable));

/** The subcommands, by the words that call them. */
const SUBCOMMANDS: Readonly<Record<string, Run>> = {
  connect: runOf(CONNECT, connectTo),
  admin: (args) => runAdmin(args, readVariable),
  completions: runOf(COMPLETIONS, ({ operand }) => say(completions(operand))),
  man: runOf(MAN, () => say(manPage())),
};

/** Makes what parses a command's arguments, and then answers a switch or does the command's work. */
function runOf<F extends Flags, Operand>(
  command: Command<F, Operand>,
  work: (given: Given<F> & { readonly operand: Operand }) => Promise<number>,
): Run {
  return async (args) => {
    const parsed = parse(command, args, readVariable, namesOfVariables());
    if (parsed.ask === undefined) return await work(parsed);
    return await sayAnswer(parsed.ask, command as Command);
  };
}

/** The names of all environment variables, if the command may list them: `--allow-env=SHOUTY_*` does not suffice. */
function namesOfVariables(): string[] {
  const { state } = Deno.permissions.querySync({ name: "env" });
  return state === "granted" ? Object.keys(Deno.env.toObject()) : [];
}

/** Reads an environment variable if the permission is granted; without it, Deno would prompt on a terminal. */
function readVariable(variable: string): string | undefined {
  const { state } = Deno.permissions.querySync({ name: "env", variable });
  if (state !== "granted") return undefined;
  try {
    return Deno.env.get(variable);
  } catch (error) {
    if (!(error instanceof Deno.errors.InvalidData)) throw error;
    // Deno's message has the value, which may be secret.
    throw new CommandError(`cannot use ${variable}: expected text in UTF-8`, 2);
  }
}
