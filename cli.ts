/**
 * The command's entry point. Only this file and `cli/` use arguments, the environment, signals, standard streams and exit
 * codes.
 *
 * `cli/` holds its parts: the command line (`line/`: commands, flags, their values), the texts that are made of it
 * (`help/`), opening the listeners (`listen.ts`, `tls.ts`), the admin port and the client that asks it (`admin/`), the log
 * (`log/`), this process and those around it (`process/`: signals, permissions, workers, upgrades, systemd), the client
 * (`dial.ts`, `client.ts`), and small files that these share.
 *
 * @module
 */

import { runAdmin } from "./cli/admin/admin.ts";
import { neededToAdmin, openAdminPort } from "./cli/admin/port.ts";
import { talk } from "./cli/connect/client.ts";
import { COMPLETIONS, MAN } from "./cli/flags/commands.ts";
import { completions } from "./cli/help/completions.ts";
import { dial, neededToConnect } from "./cli/connect/dial.ts";
import { CommandError, reasonOf } from "./cli/system/errors.ts";
import { type Command, CONNECT, type Flags, SERVE, TOKEN_VARIABLE } from "./cli/flags/flags.ts";
import { sayAnswer } from "./cli/help/help.ts";
import { endProcess } from "./cli/process/end.ts";
import { Host } from "./cli/process/host.ts";
import { type Shutdown, shutdownOf } from "./cli/process/leaving.ts";
import { openLate } from "./cli/admin/late.ts";
import type { Target, UnixTarget } from "./cli/flags/kinds.ts";
import { type ListenFlags, neededToAccept, neededToListen, type Opened, openListeners } from "./cli/serve/listen.ts";
import { type Log, openLog } from "./cli/log/log.ts";
import { manPage } from "./cli/help/man.ts";
import { isTelemetryOn, measure, type Measured } from "./cli/serve/metrics.ts";
import { formatTarget } from "./cli/system/net.ts";
import { type Given, parse } from "./cli/line/parse.ts";
import { keepOnly, type PermissionName } from "./cli/system/permissions.ts";
import { complain, say } from "./cli/system/print.ts";
import { report, shownOptions } from "./cli/log/report.ts";
import { onOthers, onSignals } from "./cli/process/signals.ts";
import { checkTogether } from "./cli/line/together.ts";
import { warnOfTrace } from "./cli/log/trace.ts";
import type { serveByWorkers, Surroundings } from "./cli/serve/workers.ts";
import type { ServerEvent } from "./internal/api/events.ts";
import type { ServeOptions } from "./internal/api/serve_options.ts";
import type { Server } from "./internal/server/running.ts";
import { shout } from "./internal/lines/shout.ts";
import type { AdminPort } from "./ops/admin/port.ts";
import type { WorkersServer } from "./ops/workers/workers.ts";
import { serve } from "./server.ts";

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

const SERVER: Run = runOf(SERVE, serveUntilStopped);

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

/** Connects to a server, and talks with it to the end. */
async function connectTo(
  { operand: target, values, nameOf }: Given<typeof CONNECT.flags> & { readonly operand: Target | UnixTarget },
): Promise<number> {
  const flags = { ...values, nameOf };
  keepOnly(...neededToConnect(target, flags));
  const conn = await dial(target, flags);
  // What the server sends can make the client do nothing more than it does already.
  keepOnly();
  await talk(conn, formatTarget(target), flags.timeout);
  return 0;
}

/** Serves until a signal comes and the connections have ended after it; returns the exit code. */
async function serveUntilStopped(all: Given<typeof SERVE.flags>): Promise<number> {
  const { values, given, nameOf, ignored } = all;
  const host = new Host(values, readVariable);
  const { logLevel, logFormat, logSample, ...options } = { ...values, listenFd: host.listenFd, nameOf };
  checkTogether({ ...values, ...options }, all);
  // Not among the options, which the log shows.
  const adminToken = readVariable(TOKEN_VARIABLE);
  // First of all: nothing that follows needs another permission.
  keepOnly(...neededToListen(options), ...neededToAdmin(options), ...host.neededToOpen);
  const log = openLog(logLevel, logFormat, Deno.stderr, { most: logSample });
  const stop = new AbortController();
  const begun = Promise.withResolvers<Running>();
  // Before anything is opened: handling signals, and even exiting without having done so, needs a free descriptor.
  let server: Server | WorkersServer | undefined;
  const cut = () => void server?.shutdown({ delay: 0, drainTimeout: 1 });
  watchSignals(log, { stop, cut }, host, options.tlsCert === null ? undefined : begun.promise);
  logStart(log, options, ignored);
  // A drain by the admin port has options of its own: as an end by `stop` it would have the flags'.
  const drained = new AbortController();
  const leaving = AbortSignal.any([stop.signal, drained.signal]);
  let admin: AdminPort | undefined;
  try {
    const measured = await measure(options.admin !== null);
    const openAdmin = () => openAdminPort({ ...options, adminToken }, measured?.metrics, log);
    if (!host.takesOver) admin = await openAdmin();
    await host.open(log);
    const kept = [...neededToAccept(options), ...host.neededToRun, ...host.takesOver ? neededToAdmin(options) : []];
    const running = await serveAs({ ...options, kept }, given, around(log, stop.signal, measured));
    begun.resolve(running);
    server = running.server;
    await host.serving({ ...running, handedOver: () => admin?.close(), stop: leaving, log });
    if (host.takesOver) admin = await openLate(openAdmin, stop.signal, log);
    keepOnly(...neededToAccept(options), ...host.neededToRun);
    attachAdmin(admin, running, drained, log);
    return await exitCodeOf(server, host, log);
  } catch (error) {
    if (error instanceof CommandError && logFormat === "json") logFailure(error, log);
    throw error;
  } finally {
    await admin?.close();
    await log.flush();
  }
}

/** Logs and counts the events of a server. */
function around(log: Log, signal: AbortSignal, { metrics, traceOf }: Partial<Measured> = {}): Surroundings {
  const secure = new Set<string>();
  const onEvent = (event: ServerEvent) => {
    metrics?.onEvent(event);
    report(log, event, { secure, traceOf });
  };
  return { log, signal, metrics, secure, onEvent };
}

/** A server, and what was opened for it here; the listeners of workers are theirs. */
interface Running extends Pick<Opened, "bound" | "reload"> {
  readonly server: Server | WorkersServer;
  /** Begins its end. */
  readonly shutdown: Shutdown;
}

/** Serves in this isolate or in workers. */
async function serveAs(
  options: Parameters<typeof serveAlone>[0] & Parameters<typeof serveByWorkers>[0],
  given: ReadonlySet<string>,
  around: Surroundings,
): Promise<Running> {
  const running = await (options.workers === null ? serveAlone : serveApart)(options, given, around);
  around.metrics?.watch(running.server);
  return running;
}

/** Serves in workers. */
async function serveApart(...args: Parameters<typeof serveByWorkers>): Promise<Running> {
  const { serveByWorkers } = await import("./cli/serve/workers.ts");
  const { server, reload } = await serveByWorkers(...args);
  return { server, bound: [], reload, shutdown: (options) => server.shutdown(options) };
}

/** Serves in this isolate. */
async function serveAlone(
  options: ListenFlags & Omit<ServeOptions, "listener"> & { readonly kept: readonly PermissionName[] },
  given: ReadonlySet<string>,
  { log, signal, metrics, secure, onEvent }: Surroundings,
): Promise<Running> {
  const flags = { ...options, onHandshake: metrics?.onHandshake };
  const { bound, listeners, secure: encrypted, reload } = await openListeners(flags, given, log);
  for (const addr of encrypted) secure.add(addr);
  const server = serve({ ...options, listener: listeners, onEvent }, metrics?.timed(shout));
  const shutdown = shutdownOf(server, bound, options);
  if (signal.aborted) shutdown();
  else signal.addEventListener("abort", () => shutdown());
  return { server, bound, reload, shutdown };
}

/** Logs what holds from the start on. */
function logStart(log: Log, options: { trace: boolean }, ignored: Given<typeof SERVE.flags>["ignored"]): void {
  if (options.trace) warnOfTrace(log);
  for (const { variables, text } of ignored) log.write("warn", "ignored-variable", () => text, () => ({ variables }));
  const text = () => `options are ${JSON.stringify(shownOptions(options))}`;
  log.write("debug", "options", text, () => ({ options: shownOptions(options) }));
}

/** Logs that the server cannot start, for a machine that reads the log. */
function logFailure(error: CommandError, log: Log): void {
  const { message } = error;
  log.write("error", "failed", () => message, () => ({ error: message }));
  error.logged = true;
}

/** Has the admin port show the server, and steer it. */
function attachAdmin(
  admin: AdminPort | undefined,
  { server, shutdown }: Running,
  drained: AbortController,
  log: Log,
): void {
  admin?.attach(server, (options) => {
    log.write("debug", "admin-drain", () => "received POST /drain");
    const stopped = shutdown(options);
    drained.abort();
    return stopped;
  });
}

/** Waits until the server has stopped, and no other process depends on this one; returns the exit code. */
async function exitCodeOf(server: Server | WorkersServer, host: Host, log: Log): Promise<number> {
  try {
    await server.finished;
    await host.over();
    return 0;
  } catch (error) {
    const reason = reasonOf(error);
    log.write("error", "failed", () => `cannot accept any more: ${reason}`, () => ({ error: reason }));
    await server.shutdown();
    return 1;
  }
}

/**
 * Handles signals from now on. SIGHUP reloads the certificate of `reloadable`, once that serves; without it, nothing.
 * SIGUSR2 has another process take over.
 */
function watchSignals(
  log: Log,
  { stop, cut }: { stop: AbortController; cut: () => void },
  host: Host,
  reloadable: Promise<Running> | undefined,
): void {
  onSignals((signal) => {
    log.write("debug", "signal", () => `received ${signal}`, () => ({ signal }));
    stop.abort();
  }, async (signal, after, exitCode) => {
    const afterMs = Math.ceil(after);
    const text = `ending at once: ${signal}, ${afterMs} ms after the first signal`;
    log.write("warn", "ending", () => text, () => ({ signal, afterMs, exitCode }));
    await log.flush();
    // Connections keep the process alive. While telemetry is on, it has to end by itself all the same.
    if (isTelemetryOn()) cut();
    endProcess(exitCode);
  });
  onOthers(async () => {
    // SIGHUP may come while the listener is being opened. The files may have been read already, so they are read again.
    if (reloadable !== undefined) return await (await reloadable).reload?.();
    const text = "ignored SIGHUP: there is no certificate to read again";
    log.write("info", "ignored-signal", () => text, () => ({ signal: "SIGHUP" }));
  }, () => host.upgrade());
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
