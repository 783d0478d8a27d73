/**
 * The command. It and `cli/` alone touch arguments, environment, signals, standard streams and exit codes.
 *
 * @module
 */

import { connect } from "./cli/client.ts";
import { CommandError, reasonOf } from "./cli/errors.ts";
import { CONNECT, SERVE } from "./cli/flags.ts";
import { answer } from "./cli/help.ts";
import { neededToListen, type Opened, openListener } from "./cli/listen.ts";
import { type Log, openLog } from "./cli/log.ts";
import { parse, type Values } from "./cli/parse.ts";
import { keepOnly } from "./cli/permissions.ts";
import { print } from "./cli/print.ts";
import { report } from "./cli/report.ts";
import { onHangup, onSignals } from "./cli/signals.ts";
import { escapeUnsafe } from "./internal/api/errors.ts";
import { serve, type Server } from "./server.ts";

/**
 * Runs the command, and ends the process.
 *
 * @param args The arguments: flags, or `connect` and its own.
 */
export async function main(args: string[]): Promise<void> {
  let exitCode: number;
  try {
    exitCode = args[0] === "connect" ? await runClient(args.slice(1)) : await runServer(args);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    exitCode = error.exitCode;
    complain(error.message);
  }
  Deno.exit(exitCode);
}

async function runClient(args: string[]): Promise<number> {
  keepOnly("net");
  const said = parse(CONNECT, args);
  if (said.ask === undefined) await connect(said.operand, said.values);
  else await say(answer(said.ask, CONNECT));
  return 0;
}

async function runServer(args: string[]): Promise<number> {
  const said = parse(SERVE, args, readVariable);
  if (said.ask === undefined) return await serveUntilStopped(said.values, said.ignored);
  await say(answer(said.ask, SERVE));
  return 0;
}

async function say(text: string): Promise<void> {
  await print(new TextEncoder().encode(`${text}\n`));
}

/** Where stderr takes nothing, the exit code alone tells what was wrong. */
function complain(message: string): void {
  try {
    console.error(`shouty: ${escapeUnsafe(message)}`);
  } catch {
    // There is nobody to tell.
  }
}

/** Serves until a signal, and until the connections have ended after that; returns the exit code. */
async function serveUntilStopped(values: Values<typeof SERVE.flags>, ignored: readonly string[]): Promise<number> {
  const { logLevel, logFormat, ...options } = values;
  // First of all: nothing that follows takes more than this.
  keepOnly(...neededToListen(options));
  const log = openLog(logLevel, logFormat);
  const stop = new AbortController();
  const opened = Promise.withResolvers<Opened>();
  // Before anything is opened: setting them up, and even exiting without them, takes a free descriptor.
  watchSignals(log, stop, options.tlsCert === null ? undefined : opened.promise);
  for (const line of ignored) log.write("warn", () => line);
  log.write("debug", () => `options are ${JSON.stringify(options, (_, value) => value === Infinity ? "off" : value)}`);
  try {
    opened.resolve(await openListener(options, log));
    const { listener } = await opened.promise;
    const server = serve({ ...options, listener, signal: stop.signal, onEvent: (event) => report(log, event) });
    return await exitCodeOf(server, log);
  } finally {
    await log.flush();
  }
}

/** Waits for the server's end. */
async function exitCodeOf(server: Server, log: Log): Promise<number> {
  try {
    await server.finished;
    return 0;
  } catch (error) {
    log.write("error", () => `cannot accept any more: ${reasonOf(error)}`);
    await server.shutdown();
    return 1;
  }
}

/** Obeys signals from now on; `reloadable` is what SIGHUP has read again, if anything, once it is open. */
function watchSignals(log: Log, stop: AbortController, reloadable: Promise<Opened> | undefined): void {
  onSignals((signal) => {
    log.write("debug", () => `received ${signal}`);
    stop.abort();
  }, async (signal, after, exitCode) => {
    log.write("warn", () => `ending at once: ${signal}, ${Math.ceil(after)} ms after the first signal`);
    await log.flush();
    Deno.exit(exitCode);
  });
  onHangup(async () => {
    if (reloadable === undefined) log.write("info", () => "ignored SIGHUP: there is no certificate to read again");
    // It may come before there is anything to reload: the files may have been read by then, and are read once more.
    else await (await reloadable).reload?.();
  });
}

/** Reads a variable where that is allowed already: Deno would ask on a terminal. */
function readVariable(variable: string): string | undefined {
  const { state } = Deno.permissions.querySync({ name: "env", variable });
  return state === "granted" ? Deno.env.get(variable) : undefined;
}
