/**
 * The server: accepts connections, admits them, keeps track of them, and drains them.
 *
 * @module
 */

import { Connection } from "./conn.ts";
import type { Handler, Host } from "./internal/conn/parts.ts";
import { Acceptors } from "./internal/server/acceptor.ts";
import { Admission, admissionRules, Candidates, type Verdict } from "./internal/admission/admission.ts";
import { Budget } from "./internal/memory/budget.ts";
import { checkFunction, checkOptions, DEFAULT_HOSTNAME, DEFAULT_PORT } from "./internal/api/check.ts";
import { Alarms } from "./internal/time/alarms.ts";
import { RefClock, SYSTEM_CLOCK } from "./internal/time/clock.ts";
import { type ConnLimits, resolveConnOptions } from "./internal/api/conn_options.ts";
import { Drain } from "./internal/server/drain.ts";
import { Counters, type ServerStats } from "./internal/server/counters.ts";
import type { ClosedEvent, ShutdownReport } from "./internal/api/events.ts";
import type { Conn, ConnHandler, LineHandler } from "./internal/api/handlers.ts";
import type { AdmissionRejectReason } from "./internal/api/reasons.ts";
import { MisdirectedTransport } from "./internal/lines/misdirected.ts";
import { type ResolvedFraming, resolveFraming } from "./internal/api/framing.ts";
import type { Server, ServerState } from "./internal/server/running.ts";
import { checkData, encodeLine } from "./internal/lines/text.ts";
import { Reports } from "./internal/server/reports.ts";
import { Rejects } from "./internal/admission/rejects.ts";
import { MemberList } from "./internal/memory/member_list.ts";
import { checkDrain, checkServeOptions } from "./internal/api/serve_options.ts";
import type { Clock, ServeOptions, ShutdownOptions } from "./internal/api/serve_options.ts";
import { shout } from "./internal/lines/shout.ts";
import { round, socketsTurn, socketsTurns } from "./internal/time/turns.ts";
import { closeQuietly, keepAlive, type Transport } from "./internal/api/transport.ts";

/**
 * A server at work.
 *
 * It owns the acceptor, the rejected connections, and every admitted connection until its `closed` resolves. A shutdown
 * awaits these promises, and then the handlers that are still running.
 */
export class LineServer<Data> implements Server<Data>, Host<Data> {
  readonly addrs: readonly Deno.Addr[];
  readonly keepAliveMs: number;
  readonly alarms: Alarms;
  readonly handler: Handler<Data>;
  readonly framing: ResolvedFraming;
  readonly makeData: ((conn: Conn<Data>) => Data) | undefined;
  readonly #limits: ConnLimits;
  readonly #options: ServeOptions<Data>;
  readonly clock: RefClock;
  readonly #time: Clock;
  readonly #acceptors: Acceptors;
  readonly #admission: Admission;
  readonly #rejects: Rejects;
  readonly #candidates: Candidates;
  readonly #conns = new MemberList<Connection<Data>>();
  readonly budget: Budget;
  readonly #counters = new Counters();
  readonly reports: Reports;
  readonly #finished = Promise.withResolvers<void>();
  readonly #report = Promise.withResolvers<ShutdownReport>();
  #state: ServerState = "listening";
  #unref = false;
  #socketsTurn: Promise<void> | undefined;
  /** Handlers that still run although their connections have ended. */
  readonly #orphans = new Set<Promise<void>>();
  /** Aborts when a shutdown begins. */
  readonly #stopping = new AbortController();
  #drain: Drain | undefined;

  constructor(options: ServeOptions<Data>, handler: Handler<Data>) {
    const { hostname = DEFAULT_HOSTNAME, port = DEFAULT_PORT, clock = SYSTEM_CLOCK, signal } = options;
    this.#limits = resolveConnOptions(options);
    this.framing = resolveFraming(options.framing);
    this.makeData = options.data;
    this.keepAliveMs = options.keepAliveMs ?? 15_000;
    this.#admission = new Admission(admissionRules(options), () => clock.now());
    this.handler = handler;
    this.#options = options;
    this.reports = new Reports(options, this.#counters);
    this.#time = clock;
    this.clock = new RefClock(clock);
    this.budget = new Budget(options.maxBufferedBytes ?? 128 * 1024 * 1024);
    this.alarms = new Alarms(clock);
    this.#rejects = new Rejects(clock);
    this.#candidates = new Candidates(clock, options.admitTimeout ?? 5000, this.#limits);
    const listeners = [options.listener ?? Deno.listen({ hostname, port })].flat();
    this.#acceptors = new Acceptors(listeners, this.clock, {
      delay: () => this.#admission.delay(),
      failed: (error, retryMs) => this.reports.acceptFailed(error, retryMs),
      accepted: (transport) => this.#enter(transport),
    });
    this.addrs = this.#acceptors.addrs;
    for (const addr of this.addrs) this.reports.listening(addr);
    this.#stopping.signal.addEventListener("abort", () => this.#close().then(this.#report.resolve));
    this.#acceptors.run().catch((error) => this.#fail(error));
    if (signal !== undefined) this.#obey(signal);
  }

  get addr(): Deno.Addr {
    return this.addrs[0];
  }

  get state(): ServerState {
    return this.#state;
  }

  get finished(): Promise<void> {
    return this.#finished.promise;
  }

  get connections(): Iterable<Conn<Data>> {
    const conns = this.#conns;
    return { [Symbol.iterator]: () => Iterator.from(conns).map((conn) => conn.handle) };
  }

  broadcast(data: string | Uint8Array, { except }: { except?: Conn<Data> | undefined } = {}): void {
    checkData(data);
    for (const conn of this.connections) if (conn !== except) conn.write(data);
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
      // Set before any hook is called: a hook may call this method again.
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
    this.#acceptors.ref();
    this.clock.ref();
    for (const conn of this.#conns) conn.ref();
  }

  unref(): void {
    this.#unref = true;
    this.#acceptors.unref();
    this.clock.unref();
    for (const conn of this.#conns) conn.unref();
  }

  socketsTurn(): Promise<void> {
    // All connections share one turn of the sockets, which may have begun before this call.
    const shared = () => this.#socketsTurn ??= socketsTurn().then(() => this.#socketsTurn = undefined);
    return socketsTurns(this.active, shared);
  }

  readonly #ended = (event: ClosedEvent): void => {
    const conn = event.conn as Connection<Data>;
    const { handled } = conn;
    if (handled !== undefined) {
      this.#orphans.add(handled);
      handled.then(() => this.#orphans.delete(handled));
    }
    this.#conns.delete(conn);
    this.#admission.leave(conn.remoteAddr);
    this.#counters.ended(event, event);
    this.reports.emit(event);
    // Last, as the next connection can be admitted within this call: its event comes after that of this one.
    this.#acceptors.hurry();
  };

  #obey(signal: AbortSignal): void {
    const stop = () => this.shutdown();
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop);
    this.#report.promise.then(() => signal.removeEventListener("abort", stop));
  }

  /** Stops, because a listener cannot accept any more. */
  #fail(error: unknown): void {
    // Awaiting `finished` is optional: its rejection must not end the process as unhandled.
    this.#finished.promise.catch(() => {});
    this.#finished.reject(error);
    this.shutdown();
  }

  /** Admits or rejects a connection. If its address cannot be read, it alone is closed, and accepting goes on. */
  #enter(transport: Transport): void {
    try {
      this.#admit(transport);
    } catch (error) {
      closeQuietly(transport);
      this.reports.acceptFailed(error, 0);
    }
  }

  #admit(transport: Transport): void {
    // If a shutdown has begun since this was accepted, its list of connections is complete already.
    if (this.#state !== "listening") return closeQuietly(transport);
    const { remoteAddr } = transport;
    const decision = this.#admission.enter(remoteAddr);
    if (decision.kind === "reject") return this.#reject(transport, decision.reason, decision.limit);
    const { admit } = this.#options;
    if (admit === undefined) return this.#serve(transport, this.#limits);
    const { localAddr } = transport;
    const verdict = this.#candidates.ask(() => admit({ remoteAddr, localAddr }));
    verdict.then((verdict) => this.#decided(transport, remoteAddr, verdict));
  }

  /** Serves or rejects a connection about which the hook `admit` has decided. */
  #decided(transport: Transport, remoteAddr: Deno.Addr, { limits, error }: Verdict): void {
    if (this.#state === "listening" && limits !== undefined) return this.#serve(transport, limits);
    if (error !== undefined) this.#counters.hookErrors++;
    this.#admission.leave(remoteAddr);
    if (this.#state === "listening") this.#reject(transport, "refused", undefined, error);
    else closeQuietly(transport);
    this.#acceptors.hurry();
  }

  #serve(transport: Transport, limits: ConnLimits): void {
    // With a shorter `idleTimeout`, the server notices a vanished peer before keep-alive would.
    if (this.keepAliveMs < limits.idleTimeout) keepAlive(transport);
    const seen = limits.answerMisdirected ? new MisdirectedTransport(transport) : transport;
    const conn = new Connection<Data>(this.#counters.accepted + 1, seen, this, limits);
    this.#counters.accepted++;
    this.#conns.add(conn);
    if (this.#unref) conn.unref();
    this.reports.emit({ type: "accepted", conn });
    conn.closed.then(this.#ended);
    conn.serve();
  }

  #reject(transport: Transport, reason: AdmissionRejectReason, limit?: number, error?: unknown): void {
    this.reports.rejected({ remoteAddr: transport.remoteAddr, reason, limit: limit!, error });
    if (reason === "accept-rate-per-ip") return closeQuietly(transport);
    const word = this.reports.lastWords(reason, limit ?? 0);
    this.#rejects.add(transport, word === null ? "" : encodeLine(word, this.framing, true));
  }

  /**
   * Waits for the handlers that still run although their connections have ended.
   *
   * @param deadline Settles when the wait is over at the latest.
   * @returns How many handlers still run.
   */
  async #handlersSettle(deadline: Promise<void>): Promise<number> {
    await Promise.race([deadline, Promise.all(this.#orphans)]);
    // A handler that was woken by the end of its connection may still have to run its `finally`.
    if (this.#orphans.size > 0) await round();
    return this.#orphans.size;
  }

  async #close(): Promise<ShutdownReport> {
    const since = this.clock.now();
    const before = { ...this.#counters.closed };
    // With `#time`, not `clock`: unref() must not stop the timer of a shutdown that the caller awaits.
    const drain = this.#drain = new Drain(this.#conns, this.#time, () => {
      this.reports.emit({ type: "waiting", active: this.active });
    });
    this.reports.emit({ type: "draining", active: this.active });
    const released = this.#acceptors.close();
    this.#rejects.close();
    this.#candidates.close();
    await Promise.all([released, ...Array.from(this.#conns, (conn) => conn.closed)]);
    const handlersLeft = await this.#handlersSettle(drain.over);
    drain.stop();
    this.#drain = undefined;
    this.#state = "closed";
    const report = { closed: this.#counters.closedSince(before), handlersLeft, durationMs: this.clock.now() - since };
    this.reports.emit({ type: "stopped", report });
    this.#finished.resolve();
    return report;
  }
}

/**
 * Serves lines: the handler gets each line that a client sends, and what it returns is sent back as the reply. When
 * this function returns, the port is bound.
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
export function serve<Data = undefined>(
  options: ServeOptions<Data> = {},
  handler: LineHandler<NoInfer<Data>> = shout,
): Server<Data> {
  checkFunction("handler", handler);
  checkFunction("handler.block", handler.block, true);
  checkServeOptions(options);
  return new LineServer(options, { lines: handler });
}

/**
 * Serves conversations: the handler is called once per connection; it reads lines and writes whatever it likes.
 *
 * @param options Where to listen, the limits, and the hooks.
 * @param handler Talks with one client; when it returns, the connection closes gracefully.
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
export function serveConnections<Data = undefined>(
  options: ServeOptions<Data>,
  handler: ConnHandler<NoInfer<Data>>,
): Server<Data> {
  checkFunction("handler", handler);
  checkServeOptions(options);
  return new LineServer(options, { conversation: handler });
}
