/**
 * The server: accepts connections, admits them, keeps track of them, and drains them.
 *
 * @module
 */

import { Connection } from "./conn.ts";
import type { Handler, Host } from "./internal/conn/parts.ts";
import { Acceptors } from "./internal/server/acceptors.ts";
import { listenersOf } from "./internal/server/listen.ts";
import { Entrance, type EntranceHost } from "./internal/admission/entrance.ts";
import { Budget } from "./internal/memory/budget.ts";
import { changedBy, checkFunction, exceptOf } from "./internal/api/check.ts";
import { DEFAULT_BUFFERED_BYTES, DEFAULT_KEEP_ALIVE_MS } from "./internal/api/check.ts";
import { Alarms, countWatched } from "./internal/time/alarms.ts";
import { RefClock, SYSTEM_CLOCK } from "./internal/time/clock.ts";
import { harmless, showAs } from "./internal/api/errors.ts";
import type { ConnLimits } from "./internal/api/conn_options.ts";
import { Drain } from "./internal/server/drain.ts";
import { Counters, type ServerStats } from "./internal/server/counters.ts";
import type { ClosedEvent, DrainingEvent, LameDuckEvent, ShutdownReport } from "./internal/api/events.ts";
import type { Conn, ConnHandler, LineHandler } from "./internal/api/handlers.ts";
import { MisdirectedTransport } from "./internal/lines/misdirected.ts";
import { type ResolvedFraming, resolveFraming } from "./internal/api/framing.ts";
import { numberOf } from "./internal/server/numbers.ts";
import type { Server, ServerState } from "./internal/server/running.ts";
import { checkData } from "./internal/lines/text.ts";
import { Reports } from "./internal/server/reports.ts";
import { MemberList } from "./internal/memory/member_list.ts";
import { checkServeOptions, resolveShutdown, shutdownDefaults } from "./internal/api/serve_options.ts";
import type { ServeOptions, ServerLimits, ShutdownDefaults, ShutdownOptions } from "./internal/api/serve_options.ts";
import { shout } from "./internal/lines/shout.ts";
import { round, socketsTurn, socketsTurns } from "./internal/time/event_loop.ts";
import type { Transport } from "./internal/api/transport.ts";

/**
 * A server at work.
 *
 * It owns the acceptor, the rejected connections, and every admitted connection until its `closed` resolves. A shutdown
 * awaits these promises, and then the handlers that are still running.
 */
export class LineServer<Data> implements Server<Data>, Host<Data>, EntranceHost {
  readonly addrs: readonly Deno.Addr[];
  readonly keepAliveMs: number;
  readonly alarms: Alarms;
  readonly handler: Handler<Data>;
  readonly framing: ResolvedFraming;
  readonly makeData: ((conn: Conn<never>) => Data) | undefined;
  readonly #shutdownDefaults: ShutdownDefaults;
  readonly clock: RefClock;
  readonly #acceptors: Acceptors;
  readonly #entrance: Entrance;
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
  /** Aborts when a shutdown begins to drain: after its delay, if it has one. */
  readonly #stopping = new AbortController();
  readonly #drain: Drain;

  constructor(options: ServeOptions<Data>, handler: Handler<Data>) {
    const { clock = SYSTEM_CLOCK, signal } = options;
    this.clock = new RefClock(clock);
    this.framing = resolveFraming(options.framing);
    this.reports = new Reports(options, this.#counters);
    this.#entrance = new Entrance(options, this.clock, this);
    this.makeData = options.data;
    this.keepAliveMs = options.keepAliveMs ?? DEFAULT_KEEP_ALIVE_MS;
    this.handler = handler;
    this.#shutdownDefaults = shutdownDefaults(options);
    this.budget = new Budget(options.maxBufferedBytes ?? DEFAULT_BUFFERED_BYTES);
    this.alarms = new Alarms(clock);
    // Not with `this.clock`: unref() must not stop the timer of a shutdown that the caller awaits.
    this.#drain = new Drain(this.#conns, clock, {
      delayed: (delayMs) => {
        this.#enterState({ type: "lame-duck", delayMs });
        this.resume();
      },
      begin: () => this.#stopping.abort(),
      waiting: () => this.reports.emit({ type: "waiting", active: this.active }),
    });
    this.#acceptors = new Acceptors(listenersOf(options), this.clock, this.#entrance);
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
    const made = ({ hasData }: Connection<Data>) => hasData;
    // A loop that waits may outlast connections, which change their places in the list.
    return { [Symbol.iterator]: () => Array.from(conns).filter(made).map(({ handle }) => handle).values() };
  }

  broadcast(data: string | Uint8Array, options: { except?: Conn<Data> | undefined } = {}): void {
    checkData(data);
    const except = exceptOf(options);
    for (const { handle } of this.#conns) if (handle !== except) handle.write(data);
  }

  get active(): number {
    return this.#conns.size;
  }

  get paused(): boolean {
    return this.#entrance.paused;
  }

  get limits(): Readonly<ServerLimits> {
    return this.#entrance.limits;
  }

  get open(): Iterable<Connection<Data>> {
    return this.#conns;
  }

  stats(): ServerStats {
    const queued = this.#entrance.queued + this.#acceptors.queued;
    return this.#counters.snapshot(this.#conns, queued, this.#orphans.size);
  }

  pause(): void {
    if (!this.paused && this.#accepts) this.#setPaused(true);
  }

  resume(): void {
    if (this.paused && this.#accepts) this.#setPaused(false);
  }

  #setPaused(paused: boolean): void {
    this.#entrance.paused = paused;
    this.reports.emit({ type: paused ? "paused" : "resumed" });
    this.madeRoom();
  }

  get #accepts(): boolean {
    return this.#state === "listening" || this.#state === "lame-duck";
  }

  setLimits(limits: ServerLimits): void {
    this.#entrance.setLimits(limits);
    this.reports.emit({ type: "limits-changed", limits: changedBy(limits, this.limits) });
    this.madeRoom();
  }

  madeRoom(): void {
    this.#acceptors.hurry();
  }

  shutdown(options: ShutdownOptions = {}): Promise<ShutdownReport> {
    const resolved = resolveShutdown(options, this.#shutdownDefaults, this.#state === "listening");
    if (this.#state !== "closed") this.#drain.start(resolved);
    return this.#report.promise;
  }

  #enterState(event: LameDuckEvent | DrainingEvent): void {
    // Set before any hook is called: a hook may call `shutdown` again.
    this.#state = event.type;
    this.reports.emit(event);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.shutdown();
  }

  ref(): void {
    this.#unref = false;
    this.#acceptors.ref();
    this.clock.ref();
    for (const conn of this.#conns) conn.setRef(true);
  }

  unref(): void {
    this.#unref = true;
    this.#acceptors.unref();
    this.clock.unref();
    for (const conn of this.#conns) conn.setRef(false);
  }

  socketsTurn(): Promise<void> {
    // All connections share one turn of the sockets, which may have begun before this call.
    const shared = () => this.#socketsTurn ??= socketsTurn().then(() => this.#socketsTurn = undefined);
    // The loop reads from the sockets of others, too, in its own order.
    return socketsTurns(Math.max(this.active, countWatched()), shared);
  }

  readonly #ended = (event: ClosedEvent): void => {
    const conn = event.conn as Connection<Data>;
    const { handled } = conn;
    if (handled !== undefined) {
      this.#orphans.add(handled);
      handled.then(() => this.#orphans.delete(handled));
    }
    this.#conns.delete(conn);
    this.#entrance.leave(conn.remoteAddr);
    this.#counters.ended(event);
    this.reports.emit(event);
    // Called last: it may admit the next connection at once, whose `accepted` event must follow this `closed` event.
    this.madeRoom();
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
    harmless(this.#finished.promise);
    this.#finished.reject(error);
    this.shutdown({ delay: 0 });
  }

  serve(transport: Transport, limits: ConnLimits): void {
    const seen = limits.answerMisdirected ? new MisdirectedTransport(transport) : transport;
    const id = numberOf(transport) ?? this.#counters.accepted + 1;
    const conn = new Connection<Data>(id, seen, this, limits);
    this.#counters.accepted++;
    this.#conns.add(conn);
    if (this.#unref) conn.setRef(false);
    this.reports.emit({ type: "accepted", conn });
    conn.closed.then(this.#ended);
    conn.serve();
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
    this.#enterState({ type: "draining", active: this.active });
    const released = this.#acceptors.close(this.#drain.late);
    this.#entrance.paused = false;
    this.#entrance.close();
    const [left] = await Promise.all([released, ...Array.from(this.#conns, (conn) => conn.closed)]);
    const handlersLeft = await this.#handlersSettle(this.#drain.over);
    this.#drain.stop();
    this.#state = "closed";
    const [closed, durationMs] = [this.#counters.closedSince(before), this.clock.now() - since];
    const report = { closed, handlersLeft, ...(left > 0 && { listenersLeft: left }), durationMs };
    this.reports.emit({ type: "stopped", report });
    this.#finished.resolve();
    return report;
  }
}

showAs<LineServer<unknown>>(LineServer, "Server", ["state", "addrs", "active", "paused"]);

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
 * const { port } = server.addr;
 * using conn = await Deno.connect({ port });
 * await conn.write(new TextEncoder().encode("Ada\n"));
 * await conn.closeWrite();
 * assertEquals(await new Response(conn.readable).text(), "Hello, Ada!\n");
 * ```
 */
export function serve<Data = undefined>(
  options?: ServeOptions<Data> & { listener?: undefined },
  handler?: LineHandler<NoInfer<Data>>,
): Server<NoInfer<Data>, Deno.NetAddr>;
/**
 * Serves lines on listeners of your own, whose addresses may be of any kind.
 *
 * @param options The listeners, the limits, and the hooks.
 * @param handler Answers a line; without one, the server shouts.
 * @returns The running server.
 * @throws {RangeError | TypeError} If an option is wrong.
 */
export function serve<Data = undefined>(
  options: ServeOptions<Data>,
  handler?: LineHandler<NoInfer<Data>>,
): Server<NoInfer<Data>>;
export function serve<Data>(options: ServeOptions<Data> = {}, handler: LineHandler<Data> = shout): Server<Data> {
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
 * const { port } = server.addr;
 * using conn = await Deno.connect({ port });
 * await conn.write(new TextEncoder().encode("one\ntwo\n"));
 * await conn.closeWrite();
 * assertEquals(await new Response(conn.readable).text(), "Welcome\n1: one\n2: two\n");
 * ```
 */
export function serveConnections<Data = undefined>(
  options: ServeOptions<Data> & { listener?: undefined },
  handler: ConnHandler<NoInfer<Data>>,
): Server<NoInfer<Data>, Deno.NetAddr>;
/**
 * Serves conversations on listeners of your own, whose addresses may be of any kind.
 *
 * @param options The listeners, the limits, and the hooks.
 * @param handler Talks with one client; when it returns, the connection closes gracefully.
 * @returns The running server.
 * @throws {RangeError | TypeError} If an option is wrong.
 */
export function serveConnections<Data = undefined>(
  options: ServeOptions<Data>,
  handler: ConnHandler<NoInfer<Data>>,
): Server<NoInfer<Data>>;
export function serveConnections<Data>(options: ServeOptions<Data>, handler: ConnHandler<Data>): Server<Data> {
  checkServeOptions(options);
  checkFunction("handler", handler);
  return new LineServer(options, { conversation: handler });
}
