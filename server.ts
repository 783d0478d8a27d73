/**
 * The server: accepts connections, admits them, keeps track of them, and drains them.
 *
 * @module
 */

import { Connection, type Handler, type Host } from "./conn.ts";
import { Acceptor } from "./internal/server/acceptor.ts";
import { Gate } from "./internal/server/admission.ts";
import { Budget } from "./internal/memory/budget.ts";
import { checkFunction, checkOptions, DEFAULT_HOSTNAME, DEFAULT_PORT } from "./internal/api/check.ts";
import { Alarms } from "./internal/time/alarms.ts";
import type { Clock } from "./internal/api/clock.ts";
import { SYSTEM_CLOCK } from "./internal/time/clock.ts";
import { type ConnLimits, resolveConnOptions } from "./internal/api/conn_options.ts";
import { Drain } from "./internal/server/drain.ts";
import { Counters, type ServerStats } from "./internal/server/counters.ts";
import { AcceptRejection } from "./internal/api/errors.ts";
import type { ClosedEvent, GoneEvent, ServerEvent, ShutdownReport } from "./internal/api/events.ts";
import type { ConnHandler, LineHandler } from "./internal/api/handlers.ts";
import type { AdmissionRejectReason, ErrorLineReason } from "./internal/api/reasons.ts";
import { MisdirectedTransport } from "./internal/lines/misdirected_transport.ts";
import { RefClock } from "./internal/time/clock.ts";
import { Rejects } from "./internal/server/rejects.ts";
import { MemberList } from "./internal/memory/member_list.ts";
import { admissionRules } from "./internal/server/admission.ts";
import { checkDrain, checkServeOptions, defaultErrorLine } from "./internal/api/serve_options.ts";
import type { ServeOptions, ShutdownOptions } from "./internal/api/serve_options.ts";
import { shout } from "./internal/lines/shout.ts";
import { round, socketsTurn, socketsTurns } from "./internal/time/turns.ts";
import { closeQuietly, isReset, keepAlive, type Listener, type Transport } from "./internal/api/transport.ts";

/** Where a server is in its life; it goes one way. */
export type ServerState = "listening" | "draining" | "closed";

/** A running server. */
export interface Server extends AsyncDisposable {
  /** Where it listens, with the real port. */
  readonly addr: Deno.Addr;
  /** Where it is in its life. */
  readonly state: ServerState;
  /** Settles when the server is closed; rejects if its listener failed for good. */
  readonly finished: Promise<void>;
  /** What it has done so far. */
  stats(): ServerStats;
  /**
   * Stops accepting at once and ends what is there. A later call can only hurry the first: turn `linger` into
   * `finish`, or bring the deadline forward. A handler may call it, but not wait for it.
   *
   * @param options How.
   * @returns How the connections ended; the port is free again then.
   * @throws {RangeError | TypeError} If an option is wrong.
   */
  shutdown(options?: ShutdownOptions): Promise<ShutdownReport>;
  /** Keeps the process alive as long as the server runs, which is the default. */
  ref(): void;
  /** Lets the process end although the server runs. */
  unref(): void;
}

/**
 * A server at work.
 *
 * It owns the acceptor, the rejected connections, and every admitted one until its `closed` settles; a shutdown awaits
 * these promises, and those of the handlers that are still at work behind them.
 */
class LineServer implements Server, Host {
  readonly addr: Deno.Addr;
  readonly limits: ConnLimits;
  readonly keepAliveMs: number;
  readonly alarms: Alarms;
  readonly handler: Handler;
  readonly #options: ServeOptions;
  readonly clock: RefClock;
  readonly #time: Clock;
  readonly #listener: Listener;
  readonly #acceptor: Acceptor;
  readonly #gate: Gate;
  readonly #rejects: Rejects;
  readonly #conns = new MemberList<Connection>();
  readonly budget: Budget;
  readonly #counters = new Counters();
  readonly #accepting: Promise<void>;
  readonly #finished = Promise.withResolvers<void>();
  readonly #report = Promise.withResolvers<ShutdownReport>();
  #state: ServerState = "listening";
  #unref = false;
  #socketsTurn: Promise<void> | undefined;
  /** Handlers at work whose connections have ended. */
  readonly #orphans = new Set<Promise<void>>();
  /** Aborts when a shutdown begins. */
  readonly #stopping = new AbortController();
  #drain: Drain | undefined;

  constructor(options: ServeOptions, handler: Handler) {
    const { hostname = DEFAULT_HOSTNAME, port = DEFAULT_PORT, clock = SYSTEM_CLOCK, signal } = options;
    this.limits = resolveConnOptions(options);
    this.keepAliveMs = options.keepAliveMs ?? 15_000;
    this.#gate = new Gate(admissionRules(options), () => clock.now());
    this.handler = handler;
    this.#options = options;
    this.#time = clock;
    this.clock = new RefClock(clock);
    this.budget = new Budget(options.maxBufferedBytes ?? 128 * 1024 * 1024);
    this.alarms = new Alarms(clock);
    this.#rejects = new Rejects(clock);
    this.#listener = options.listener ?? Deno.listen({ hostname, port });
    this.#acceptor = new Acceptor(this.#listener, this.clock, {
      delay: () => this.#gate.delay(),
      failed: (error, retryMs) => this.#failed(error, retryMs),
    });
    this.addr = this.#listener.addr;
    this.#guard(() => options.onListen?.(this.addr));
    this.emit({ type: "listening", addr: this.addr });
    this.#stopping.signal.addEventListener("abort", () => this.#close().then(this.#report.resolve));
    this.#accepting = this.#accept();
    if (signal !== undefined) this.#obey(signal);
  }

  get state(): ServerState {
    return this.#state;
  }

  get finished(): Promise<void> {
    return this.#finished.promise;
  }

  get active(): number {
    return this.#conns.size;
  }

  stats(): ServerStats {
    return this.#counters.snapshot(this.#conns, this.#orphans.size);
  }

  shutdown(options: ShutdownOptions = {}): Promise<ShutdownReport> {
    checkOptions("shutdown options", options);
    const { drain = this.#options.drain ?? "linger", drainTimeout = this.#options.drainTimeout ?? 10_000 } = options;
    checkDrain(drain, drainTimeout);
    if (this.#state === "listening") {
      // Before any hook is called, which may call this again.
      this.#state = "draining";
      this.#stopping.abort();
    }
    this.#drain?.hurry(drain, drainTimeout);
    return this.#report.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.shutdown();
  }

  ref(): void {
    this.#unref = false;
    this.#listener.ref?.();
    this.clock.ref();
    for (const conn of this.#conns) conn.ref();
  }

  unref(): void {
    this.#unref = true;
    this.#listener.unref?.();
    this.clock.unref();
    for (const conn of this.#conns) conn.unref();
  }

  socketsTurn(): Promise<void> {
    // All connections share a turn, which may have begun before now.
    const shared = () => this.#socketsTurn ??= socketsTurn().then(() => this.#socketsTurn = undefined);
    return socketsTurns(this.active, shared);
  }

  emit(event: ServerEvent): void {
    // A handler whose connection was aborted may throw later, but nothing comes after the last event.
    if (this.#state === "closed" && event.type !== "stopped") return;
    if (this.#options.onEvent !== undefined) this.#guard(() => this.#options.onEvent!(event));
  }

  errorLine(reason: ErrorLineReason, limit: number): string {
    const { errorLine = defaultErrorLine } = this.#options;
    const line = this.#guard(() => errorLine(reason, limit));
    return typeof line === "string" ? `${line}\n` : "";
  }

  #ended(conn: Connection, event: ClosedEvent): void {
    const { handled } = conn;
    if (handled !== undefined) {
      this.#orphans.add(handled);
      handled.then(() => this.#orphans.delete(handled));
    }
    this.#conns.delete(conn);
    this.#gate.leave(conn.remoteAddr);
    this.#acceptor.hurry();
    this.#counters.ended(event.reason, event);
    this.emit(event);
  }

  /** Calls a caller's function, which is not allowed to hurt the server. */
  #guard<T>(call: () => T): T | undefined {
    const failed = () => void this.#counters.hookErrors++;
    try {
      const result = call();
      // Nobody else looks at the promise of an asynchronous hook, whose rejection would end the process.
      if (result instanceof Promise) result.catch(failed);
      return result;
    } catch {
      failed();
    }
  }

  #obey(signal: AbortSignal): void {
    const stop = () => this.shutdown();
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop);
    this.#report.promise.then(() => signal.removeEventListener("abort", stop));
  }

  async #accept(): Promise<void> {
    try {
      for await (const transport of this.#acceptor) this.#enter(transport);
    } catch (error) {
      // Whoever asks is told; that nobody does is no reason to end the process.
      this.#finished.promise.catch(() => {});
      this.#finished.reject(error);
      this.shutdown();
    }
  }

  /** One that cannot even say where it comes from is no reason to accept no others. */
  #enter(transport: Transport): void {
    try {
      this.#admit(transport);
    } catch (error) {
      closeQuietly(transport);
      this.#failed(error, 0);
    }
  }

  #admit(transport: Transport): void {
    // A shutdown may have begun since it was accepted, and has counted its connections.
    if (this.#state !== "listening") return closeQuietly(transport);
    const decision = this.#gate.enter(transport.remoteAddr);
    if (decision.kind === "reject") return this.#reject(transport, decision.reason, decision.limit);
    const { idleTimeout, answerMisdirected } = this.limits;
    // A peer that the server waits for is found out by `idleTimeout` before that.
    if (this.keepAliveMs < idleTimeout) keepAlive(transport);
    const seen = answerMisdirected ? new MisdirectedTransport(transport) : transport;
    const conn = new Connection(++this.#counters.accepted, seen, this);
    this.#conns.add(conn);
    if (this.#unref) conn.unref();
    this.emit({ type: "accepted", conn });
    conn.closed.then((event) => this.#ended(conn, event));
    conn.serve();
  }

  #reject(transport: Transport, reason: AdmissionRejectReason, limit?: number): void {
    this.#counters.rejected++;
    this.emit({ type: "rejected", remoteAddr: transport.remoteAddr, reason, ...(limit !== undefined && { limit }) });
    if (reason === "accept-rate-per-ip") closeQuietly(transport);
    else this.#rejects.add(transport, this.errorLine(reason, limit ?? 0));
  }

  /** Nothing was accepted. A listener that turned a connection away has closed it: there is nobody to tell. */
  #failed(error: unknown, retryMs: number): void {
    if (error instanceof AcceptRejection) {
      const { remoteAddr, reason, cause } = error;
      if (reason === "gone") return this.#gone({ remoteAddr, error: cause });
      this.#counters.rejected++;
      this.emit({ type: "rejected", remoteAddr, reason, error: cause });
    } else if (isReset(error)) this.#gone({ error });
    else this.emit({ type: "accept-error", error, retryMs });
  }

  #gone(left: Omit<GoneEvent, "type">): void {
    this.#counters.gone++;
    this.emit({ type: "gone", ...left });
  }

  /**
   * Waits for the handlers whose connections have ended.
   *
   * @param deadline Settles when they are no longer waited for.
   * @returns How many are still at work.
   */
  async #handlersSettle(deadline: Promise<void>): Promise<number> {
    await Promise.race([deadline, Promise.all(this.#orphans)]);
    // A handler that its connection's end has woken up may have a `finally` to go through.
    if (this.#orphans.size > 0) await round();
    return this.#orphans.size;
  }

  async #close(): Promise<ShutdownReport> {
    const since = this.clock.now();
    const before = { ...this.#counters.closed };
    // Not with `clock`, which unref() reaches: who shuts a server down waits for it.
    const drain = this.#drain = new Drain(this.#conns, this.#time, () => {
      this.emit({ type: "waiting", active: this.active });
    });
    this.emit({ type: "draining", active: this.active });
    this.#acceptor.close();
    this.#rejects.close();
    // The port is free only when the outstanding accept() has settled.
    await Promise.all([this.#accepting, ...Array.from(this.#conns, (conn) => conn.closed)]);
    const handlersLeft = await this.#handlersSettle(drain.over);
    drain.stop();
    this.#drain = undefined;
    this.#state = "closed";
    const closed = this.#counters.closedSince(before);
    const report = { closed, handlersLeft, durationMs: this.clock.now() - since };
    this.emit({ type: "stopped", report });
    this.#finished.resolve();
    return report;
  }
}

/**
 * Serves lines: each line that a client sends goes to the handler, and what that returns goes back. The port is bound
 * when it returns.
 *
 * @param options Where to listen, the limits, and the hooks.
 * @param handler Answers a line; without one, the server shouts.
 * @returns The running server.
 * @throws {RangeError | TypeError} If an option is wrong; nothing is bound then.
 * @throws {Deno.errors.AddrInUse} If the port is taken.
 *
 * @example A server that greets
 * ```ts
 * import { serve } from "@x/shouty";
 * import { assertEquals } from "@std/assert";
 *
 * await using server = serve({ hostname: "127.0.0.1", port: 0 }, (name) => `Hello, ${name}!`);
 *
 * const { port } = server.addr as Deno.NetAddr;
 * using conn = await Deno.connect({ port });
 * await conn.write(new TextEncoder().encode("Ada\n"));
 * await conn.closeWrite();
 * assertEquals(await new Response(conn.readable).text(), "Hello, Ada!\n");
 * ```
 */
export function serve(options: ServeOptions = {}, handler: LineHandler = shout): Server {
  checkFunction("handler", handler);
  checkFunction("handler.block", handler.block, true);
  checkServeOptions(options);
  return new LineServer(options, { lines: handler });
}

/**
 * Serves conversations: each client goes to the handler once, which reads its lines and writes what it likes.
 *
 * @param options Where to listen, the limits, and the hooks.
 * @param handler Talks with one client; when it returns, the connection closes politely.
 * @returns The running server.
 * @throws {RangeError | TypeError} If an option is wrong; nothing is bound then.
 * @throws {Deno.errors.AddrInUse} If the port is taken.
 *
 * @example A server that counts
 * ```ts
 * import { serveConnections } from "@x/shouty";
 * import { assertEquals } from "@std/assert";
 *
 * await using server = serveConnections({ hostname: "127.0.0.1", port: 0 }, async (conn) => {
 *   await conn.write("Welcome\n");
 *   let count = 0;
 *   for await (const line of conn.lines) await conn.write(`${++count}: ${line}\n`);
 * });
 *
 * const { port } = server.addr as Deno.NetAddr;
 * using conn = await Deno.connect({ port });
 * await conn.write(new TextEncoder().encode("one\ntwo\n"));
 * await conn.closeWrite();
 * assertEquals(await new Response(conn.readable).text(), "Welcome\n1: one\n2: two\n");
 * ```
 */
export function serveConnections(options: ServeOptions, handler: ConnHandler): Server {
  checkFunction("handler", handler);
  checkServeOptions(options);
  return new LineServer(options, { conversation: handler });
}
