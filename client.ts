/**
 * Connections that this side opens: a single one, or a pool that is kept open.
 *
 * @module
 */

import { Connection } from "./conn.ts";
import { type ConnLimits, resolveConnOptions } from "./internal/api/conn_options.ts";
import { checkFunction, DEFAULT_BUFFERED_BYTES, DEFAULT_KEEP_ALIVE_MS } from "./internal/api/check.ts";
import { type ResolvedFraming, resolveFraming } from "./internal/api/framing.ts";
import { harmless, showAs } from "./internal/api/errors.ts";
import type { Conn, ConnHandler } from "./internal/api/handlers.ts";
import { checkServeOptions, type Clock } from "./internal/api/serve_options.ts";
import {
  checkConnectOptions,
  type ConnectOptions,
  type DialOptions,
  dialOptionsOf,
  targetOf,
  tlsOptionsOf,
  withDefaults,
} from "./internal/client/connect_options.ts";
import { dial, type Secure } from "./internal/client/dial.ts";
import { Dialer } from "./internal/client/dialer.ts";
import type { ConnPool, PoolOptions, PoolStats } from "./internal/client/pool_options.ts";
import { resolvePoolOptions } from "./internal/client/pool_options.ts";
import { closeQuietly, type Transport } from "./internal/api/transport.ts";
import type { ConnReports, Host } from "./internal/conn/parts.ts";
import { Budget } from "./internal/memory/budget.ts";
import { Alarms, countWatched } from "./internal/time/alarms.ts";
import { SYSTEM_CLOCK } from "./internal/time/clock.ts";
import { socketsTurns } from "./internal/time/event_loop.ts";
import { LineServer } from "./server.ts";

/** The client's side of TLS, which is loaded only if it is used. */
const loadTls = () => import("./ops/tls/client.ts");

/** Performs a TLS handshake. */
const secure: Secure = async (transport, options) => {
  const { connectTlsOver } = await loadTls();
  return await connectTlsOver(transport, options);
};

/** Checks what only the library for TLS can check, before anything is opened. */
async function checkTls(options: DialOptions): Promise<void> {
  if (options.tls) (await loadTls()).checkClientTls(tlsOptionsOf(options));
}

/** Takes the place of the server for one connection of `connect`. Those on the same clock share its one timer. */
class Caller<Data> implements Host<Data> {
  static readonly #alarms = new WeakMap<Clock, Alarms>();
  readonly handler = { caller: true, outgoing: true } as const;
  readonly framing: ResolvedFraming;
  readonly keepAliveMs: number;
  readonly clock: Clock;
  readonly alarms: Alarms;
  readonly budget: Budget;
  /** The data is made where its error can be thrown to the caller. */
  readonly makeData = undefined;
  /** A server that gets words of the end of a connection would take them for a request. */
  readonly reports: ConnReports = { emit() {}, lastWords: () => null };

  constructor(options: ConnectOptions<Data>) {
    const { keepAliveMs = DEFAULT_KEEP_ALIVE_MS, maxBufferedBytes = DEFAULT_BUFFERED_BYTES } = options;
    const { framing, clock = SYSTEM_CLOCK } = options;
    this.framing = resolveFraming(framing);
    this.budget = new Budget(maxBufferedBytes);
    this.keepAliveMs = keepAliveMs;
    this.clock = clock;
    this.alarms = Caller.#alarms.get(clock) ?? new Alarms(clock);
    Caller.#alarms.set(clock, this.alarms);
  }

  socketsTurn(): Promise<void> {
    return socketsTurns(countWatched());
  }
}

let opened = 0;

/**
 * Connects to a server, and returns the connection: the same reads, writes, limits and clocks as a handler's. It is the
 * caller's until it is closed, or until both sides have ended and everything is read.
 *
 * The clocks and limits hold for the server as they do for a client of `serve`; `idleTimeout` runs while a read waits.
 * What the server has sent before it ended its side waits for as long as the caller likes.
 * At a limit or a clock nothing is sent to the server, unless the caller writes it.
 *
 * Close a connection that is no longer needed: while it is open, it can keep the process from ending, also if nothing is
 * read.
 *
 * @param options Where to connect to, TLS, and the limits of the connection.
 * @returns The open connection. All failures are rejections.
 * @throws {RangeError | TypeError} If an option is wrong.
 * @throws {TlsCredentialsError} If a certificate or a key cannot be used; `@x/shouty/ops` has the class.
 * @throws {Deno.errors.TimedOut} If the connection is not open within `connectTimeout`.
 * @throws {Deno.errors.ConnectionRefused} If nothing listens there.
 * @throws {Deno.errors.InvalidData} If the server's certificate is not valid.
 *
 * @example A client that asks once
 * ```ts
 * import { connect, serve } from "@x/shouty";
 * import { assertEquals } from "@std/assert";
 *
 * await using server = serve({ hostname: "127.0.0.1", port: 0 });
 * const { port } = server.addr;
 *
 * await using conn = await connect({ port, idleTimeout: 5000 });
 * await conn.write("hello\n");
 * assertEquals(await conn.readLine(), "HELLO");
 * ```
 */
export async function connect<Data = undefined>(options: ConnectOptions<Data>): Promise<Conn<NoInfer<Data>>> {
  checkConnectOptions(options);
  const { halfCloseTimeout = Infinity } = options;
  const limits = resolveConnOptions({ ...withDefaults(options), halfCloseTimeout });
  const host = new Caller(options);
  const { signal, data } = options;
  await checkTls(options);
  const transport = await dial(options, secure, signal);
  const conn = connectionOver(transport, host, limits, signal);
  // The server must not take what it has got so far for everything.
  const abort = () => conn.abort("closed", signal!.reason, true);
  signal?.addEventListener("abort", abort);
  conn.closed.then(() => signal?.removeEventListener("abort", abort));
  conn.serve();
  const { handle } = conn;
  try {
    if (data !== undefined) handle.data = data(handle as Conn<unknown> as Conn<never>);
    if (handle.data instanceof Promise) harmless(handle.data);
    return handle;
  } catch (error) {
    conn.abort("handler-error", error);
    throw error;
  }
}

/** Makes a connection of a transport; if that fails, it closes the transport, which has no other owner. */
function connectionOver<Data>(
  transport: Transport,
  host: Caller<Data>,
  limits: ConnLimits,
  signal: AbortSignal | undefined,
): Connection<Data> {
  try {
    // It may have aborted since the end of the attempt, which heard it until then.
    signal?.throwIfAborted();
    return new Connection<Data>(++opened, transport, host, limits);
  } catch (error) {
    closeQuietly(transport);
    throw error;
  }
}

/** Stands for the address of a pool whose target only the option `dial` knows. No event and no property shows it. */
const NOWHERE: Deno.Addr = { transport: "tcp", hostname: "", port: 0 };

/** A server whose connections this side opens. */
class Pool<Data> extends LineServer<Data> implements ConnPool<Data> {
  readonly #dialer: Dialer;

  constructor(
    options: PoolOptions<Data>,
    resolved: ReturnType<typeof resolvePoolOptions>,
    handler: ConnHandler<Data>,
  ) {
    const target = dialOptionsOf(options);
    const { onEvent, hostname: _hostname, port: _port, ...limits } = options;
    const addr = targetOf(options);
    const dialer = new Dialer({
      ...resolved,
      clock: options.clock ?? SYSTEM_CLOCK,
      addr: addr ?? NOWHERE,
      dial: (signal) => checkTls(target).then(() => dial(target, secure, signal)),
      failed: (error, retryMs) => {
        const event = { type: "connect-error", error, retryMs, ...(addr && { addr }) } as const;
        this.reports.guard(onEvent, event);
      },
    });
    super({
      ...withDefaults(limits),
      listener: dialer,
      maxConnections: resolved.size,
      atCapacity: "wait",
      lastWords: () => null,
      onEvent: (event) => event.type === "listening" ? undefined : onEvent?.(event),
    }, { conversation: handler, outgoing: true });
    this.#dialer = dialer;
  }

  override pause(): void {
    super.pause();
    // A pool that is being shut down has nothing to pause.
    this.#dialer.paused = this.paused;
  }

  override resume(): void {
    super.resume();
    this.#dialer.paused = this.paused;
  }

  override stats(): PoolStats {
    const { connecting, errors } = this.#dialer;
    return { ...super.stats(), connecting, connectErrors: errors };
  }
}

showAs<Pool<unknown>>(Pool, "ConnPool", ["state", "active", "paused"]);

/**
 * Keeps a number of connections to a server open. The handler is called once for each connection; when it returns, or the
 * connection ends, another connection is opened, after a pause that grows while connections fail or end within a second.
 * An attempt that fails is an event, `connect-error`, and is repeated; so is one whose certificate, key or `serverName` in
 * `tls` cannot be used, before it opens anything.
 *
 * With `drain: "finish"`, `maxAge` or `maxLines`, wait for answers with `readLine({ boundary: false })`: while no byte of a
 * line has come, any other wait in `readLine`, `lines` or `batches` is a place where such an end may come, and the answer
 * would be lost. And ask for nothing more once `conn.finishing` has aborted: 10 s after `maxAge`, and at the deadline of a
 * shutdown, a handler that still works loses its connection, and the answer that it waits for.
 *
 * @param options Where to connect to, how many connections, and their limits.
 * @param handler Uses one connection; when it returns, the connection closes gracefully.
 * @returns The running pool. It can be shut down like a server.
 * @throws {RangeError | TypeError} If an option is wrong.
 *
 * @example Jobs for an upstream, over two connections
 * ```ts
 * import { connectPool, serve } from "@x/shouty";
 * import { assertEquals } from "@std/assert";
 *
 * await using upstream = serve({ hostname: "127.0.0.1", port: 0 });
 * const { port } = upstream.addr;
 *
 * const jobs = ["one", "two", "three"];
 * const results: (string | null)[] = [];
 * const done = Promise.withResolvers<void>();
 * await using _pool = connectPool({ port, size: 2 }, async (conn) => {
 *   for (let job = jobs.shift(); job !== undefined; job = jobs.shift()) {
 *     await conn.write(`${job}\n`);
 *     results.push(await conn.readLine());
 *   }
 *   if (results.length === 3) done.resolve();
 * });
 * await done.promise;
 * assertEquals(results.toSorted(), ["ONE", "THREE", "TWO"]);
 * ```
 */
export function connectPool<Data = undefined>(
  options: PoolOptions<Data>,
  handler: ConnHandler<NoInfer<Data>>,
): ConnPool<NoInfer<Data>> {
  const resolved = resolvePoolOptions(options);
  checkConnectOptions(options);
  checkServeOptions(options as Omit<PoolOptions, "onEvent">);
  checkFunction("handler", handler);
  return new Pool(options, resolved, handler);
}
