/**
 * The life of the server that the command runs: what it opens, what it tells other processes, and how it ends.
 *
 * @module
 */

import type { Server } from "../../internal/server/running.ts";
import type { AdminPort } from "../../ops/admin/port.ts";
import type { WorkersServer } from "../../ops/workers/workers_server.ts";
import { openLate } from "../admin/late.ts";
import { neededToAdmin, openAdminPort } from "../admin/port.ts";
import { type SERVE, TOKEN_VARIABLE } from "../flags/flags.ts";
import type { Environment } from "../line/environment.ts";
import type { Given } from "../line/parse.ts";
import { checkTogether } from "../line/together.ts";
import { type Log, openLog } from "../log/log.ts";
import { shownOptions } from "../log/report.ts";
import { warnOfTrace } from "../log/trace.ts";
import { Host } from "../process/host.ts";
import { neededToAccept, neededToListen } from "../serve/listen.ts";
import { measure } from "../serve/metrics.ts";
import type { ServeValues } from "../serve/workers.ts";
import { CommandError, reasonOf } from "../system/errors.ts";
import { keepOnly } from "../system/permissions.ts";
import { around, type Running, serveAs } from "./serving.ts";
import { watchSignals } from "./watch.ts";

/**
 * Serves until a signal comes and the connections have ended after it.
 *
 * @param all The flags.
 * @param environment Reads variables.
 * @returns The exit code.
 * @throws {CommandError} (As a rejection.) If the flags contradict each other, or something cannot be opened.
 */
export async function serveUntilStopped(all: Given<typeof SERVE.flags>, environment: Environment): Promise<number> {
  const { values, given, nameOf, ignored } = all;
  const host = new Host(values, environment);
  const { logLevel, logFormat, logSample, ...options } = { ...values, listenFd: host.listenFd, nameOf };
  checkTogether({ ...values, ...options }, all);
  // Not among the options, which the log shows.
  const adminToken = environment(TOKEN_VARIABLE);
  // First of all: nothing that follows needs another permission.
  keepOnly(...neededToListen(options), ...neededToAdmin(options), ...host.neededToOpen);
  const log = openLog(logLevel, logFormat, Deno.stderr, { most: logSample });
  const stop = new AbortController();
  const { promise: running, resolve: begun } = Promise.withResolvers<Running>();
  // Before anything is opened: handling signals, and even exiting without having done so, needs a free descriptor.
  watchSignals({ log, stop, host, running, reloads: options.tlsCert !== null });
  logStart(log, options, ignored);
  try {
    return await run(options, { given, adminToken, host, log, stop: stop.signal, begun });
  } catch (error) {
    if (error instanceof CommandError && logFormat === "json") logFailure(error, log);
    throw error;
  } finally {
    await log.flush();
  }
}

/** What is there before the server is opened. */
interface Start {
  /** The options that the user has set. */
  readonly given: ReadonlySet<string>;
  readonly adminToken: string | undefined;
  readonly host: Host;
  readonly log: Log;
  /** Aborted by the first signal. */
  readonly stop: AbortSignal;
  /** Called when the server serves. */
  readonly begun: (running: Running) => void;
}

/** Opens the server and its admin port, and waits for the end. */
async function run(options: ServeValues, { given, adminToken, host, log, stop, begun }: Start): Promise<number> {
  // A drain by the admin port has options of its own: as an end by `stop` it would have the flags'.
  const drained = new AbortController();
  const leaving = AbortSignal.any([stop, drained.signal]);
  let admin: AdminPort | undefined;
  try {
    const measured = await measure(options.admin !== null);
    const openAdmin = () => openAdminPort({ ...options, adminToken }, measured?.metrics, log);
    if (!host.takesOver) admin = await openAdmin();
    await host.open(log);
    const kept = [...neededToAccept(options), ...host.neededToRun, ...host.takesOver ? neededToAdmin(options) : []];
    const running = await serveAs({ ...options, kept }, given, around(log, stop, measured));
    begun(running);
    await host.serving({ ...running, handedOver: () => admin?.close(), stop: leaving, log });
    if (host.takesOver) admin = await openLate(openAdmin, stop, log);
    keepOnly(...neededToAccept(options), ...host.neededToRun);
    attachAdmin(admin, running, drained, log);
    return await exitCodeOf(running.server, host, log);
  } finally {
    await admin?.close();
  }
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
