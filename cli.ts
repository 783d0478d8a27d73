/**
 * The command's entry point. Only this file and `cli/` use arguments, the environment, signals, standard streams and exit
 * codes.
 *
 * `cli/` holds its parts: flags and their values (`flags.ts`, `kinds.ts`, `parse.ts`, `help.ts`), opening the listeners
 * (`listen.ts`, `tls.ts`), the log (`log.ts`, `log_handler.ts`, `report.ts`), the client (`dial.ts`, `client.ts`), and
 * small files that these share.
 *
 * @module
 */

import { talk } from "./cli/client.ts";
import { dial, neededToConnect } from "./cli/dial.ts";
import { CommandError, reasonOf } from "./cli/errors.ts";
import { CONNECT, SERVE } from "./cli/flags.ts";
import { answer } from "./cli/help.ts";
import type { Target, UnixTarget } from "./cli/kinds.ts";
import { neededToListen, type Opened, openListeners } from "./cli/listen.ts";
import { type Log, openLog } from "./cli/log.ts";
import { measure } from "./cli/metrics.ts";
import { formatTarget } from "./cli/net.ts";
import { type Given, parse, type Values } from "./cli/parse.ts";
import { keepOnly } from "./cli/permissions.ts";
import { print } from "./cli/print.ts";
import { report } from "./cli/report.ts";
import { onHangup, onSignals } from "./cli/signals.ts";
import { warnOfTrace } from "./cli/trace.ts";
import { escapeUnsafe } from "./internal/api/errors.ts";
import type { ServerEvent } from "./internal/api/events.ts";
import type { Server } from "./internal/server/running.ts";
import { shout } from "./internal/lines/shout.ts";
import { serve } from "./server.ts";

/**
 * Runs the command and ends the process.
 *
 * @param args The command line: flags of the server, or `connect` and the client's arguments.
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
  const parsed = parse(CONNECT, args);
  if (parsed.ask === undefined) await connectTo(parsed.operand, parsed.values);
  else await say(answer(parsed.ask, CONNECT));
  return 0;
}

/** Connects to a server, and talks with it to the end. */
async function connectTo(target: Target | UnixTarget, flags: Values<typeof CONNECT.flags>): Promise<void> {
  keepOnly(...neededToConnect(target, flags));
  const conn = await dial(target, flags);
  // What the server sends can make the client do nothing more than it does already.
  keepOnly();
  await talk(conn, formatTarget(target), flags.timeout);
}

async function runServer(args: string[]): Promise<number> {
  const parsed = parse(SERVE, args, readVariable);
  if (parsed.ask === undefined) return await serveUntilStopped(parsed);
  await say(answer(parsed.ask, SERVE));
  return 0;
}

async function say(text: string): Promise<void> {
  await print(new TextEncoder().encode(`${text}\n`));
}

/** Writes an error to stderr. */
function complain(message: string): void {
  try {
    console.error(`shouty: ${escapeUnsafe(message)}`);
  } catch {
    // Stderr cannot be written. The exit code still tells that the command failed.
  }
}

/** Serves until a signal comes and the connections have ended after it; returns the exit code. */
async function serveUntilStopped({ values, given, ignored }: Given<typeof SERVE.flags>): Promise<number> {
  const { logLevel, logFormat, logSample, ...options } = values;
  // First of all: nothing that follows needs another permission.
  keepOnly(...neededToListen(options));
  const log = openLog(logLevel, logFormat, Deno.stderr, { most: logSample });
  const stop = new AbortController();
  const opened = Promise.withResolvers<Opened>();
  // Before anything is opened: handling signals, and even exiting without having done so, needs a free descriptor.
  watchSignals(log, stop, options.tlsCert === null ? undefined : opened.promise);
  if (options.trace) warnOfTrace(log);
  for (const { variables, text } of ignored) log.write("warn", "ignored-variable", () => text, () => ({ variables }));
  const shown = () => JSON.stringify(options, (_, value) => value === Infinity ? "off" : value);
  log.write("debug", "options", () => `options are ${shown()}`, () => ({ options: JSON.parse(shown()) }));
  try {
    const { metrics, traceOf } = await measure() ?? {};
    opened.resolve(await openListeners({ ...options, onHandshake: metrics?.onHandshake }, given, log));
    const { listeners: listener, secure } = await opened.promise;
    const onEvent = (event: ServerEvent) => {
      metrics?.onEvent(event);
      report(log, event, { secure, traceOf });
    };
    const server = serve({ ...options, listener, signal: stop.signal, onEvent }, metrics?.timed(shout));
    metrics?.watch(server, ...listener);
    return await exitCodeOf(server, log);
  } finally {
    await log.flush();
  }
}

/** Waits until the server has stopped; returns the exit code. */
async function exitCodeOf(server: Server, log: Log): Promise<number> {
  try {
    await server.finished;
    return 0;
  } catch (error) {
    const reason = reasonOf(error);
    log.write("error", "failed", () => `cannot accept any more: ${reason}`, () => ({ error: reason }));
    await server.shutdown();
    return 1;
  }
}

/** Handles signals from now on. SIGHUP reloads the certificate of `reloadable`, once that is open; without it, nothing. */
function watchSignals(log: Log, stop: AbortController, reloadable: Promise<Opened> | undefined): void {
  onSignals((signal) => {
    log.write("debug", "signal", () => `received ${signal}`, () => ({ signal }));
    stop.abort();
  }, async (signal, after, exitCode) => {
    const afterMs = Math.ceil(after);
    const text = `ending at once: ${signal}, ${afterMs} ms after the first signal`;
    log.write("warn", "ending", () => text, () => ({ signal, afterMs, exitCode }));
    await log.flush();
    Deno.exit(exitCode);
  });
  onHangup(async () => {
    if (reloadable === undefined) {
      log.write(
        "info",
        "ignored-signal",
        () => "ignored SIGHUP: there is no certificate to read again",
        () => ({ signal: "SIGHUP" }),
      );
    } // SIGHUP may come while the listener is being opened. The files may have been read already, so they are read again.
    else await (await reloadable).reload?.();
  });
}

/** Reads an environment variable if the permission is granted; without it, Deno would prompt on a terminal. */
function readVariable(variable: string): string | undefined {
  const { state } = Deno.permissions.querySync({ name: "env", variable });
  return state === "granted" ? Deno.env.get(variable) : undefined;
}
