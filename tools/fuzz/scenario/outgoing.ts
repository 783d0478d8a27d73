/**
 * Connections that this side opens, in place of a server's: those of `connect` and of `connectPool`.
 *
 * @module
 */

import { assert } from "@std/assert";
import {
  type ClosedEvent,
  type CloseReason,
  type Conn,
  connect,
  ConnectionClosedError,
  type ConnectOptions,
  connectPool,
  type ConnHandler,
  type ConnInfo,
  type Listener,
  type PoolOptions,
  type ServeOptions,
  type Server,
  type ServerEvent,
  type ServerState,
  type ServerStats,
  type ShutdownReport,
  type Transport,
} from "@x/shouty";
import { closeQuietly } from "../../../internal/api/transport.ts";
import type { Start } from "../../../tests/kit/server.ts";

/** How connections are opened: one by one, each by a call of `connect`, or by a pool. */
export const OUTGOING = ["call", "pool"] as const;

/** See {@linkcode OUTGOING}. */
export type Outgoing = typeof OUTGOING[number];

/** Opens connections to clients of a case, which play the servers. */
export function startOutgoing(kind: Outgoing, handler: ConnHandler): Start {
  return (options) => {
    const { listener, onEvent, hostname: _hostname, port: _port, ...rest } = options;
    onEvent?.({ type: "listening", addr: (listener as Listener).addr });
    if (kind === "call") return new Calls(listener as Listener, options, handler) as unknown as Server;
    const dial = oneByOne(listener as Listener);
    const pool = connectPool({ ...rest, onEvent, dial, size: 3 } as PoolOptions, handler);
    return pool as unknown as Server;
  };
}

/** Returns a function that accepts; a listener has at most one call outstanding, which the next ones wait for. */
function oneByOne(listener: Listener): () => Promise<Transport> {
  let before: Promise<unknown> = Promise.resolve();
  return () => {
    const next = before.then(() => listener.accept());
    before = next.catch(() => {});
    return next;
  };
}

/** Calls `connect` for each client, has the handler use the connection, and counts as a server does. */
class Calls {
  readonly #listener: Listener;
  readonly #options: ServeOptions;
  readonly #handler: ConnHandler;
  readonly #stop = new AbortController();
  readonly #conns = new Set<Conn>();
  readonly #closed: Partial<Record<CloseReason, number>> = { end: 0 };
  readonly #totals = { accepted: 0, opening: 0, lines: 0, bytesIn: 0, bytesOut: 0 };
  readonly #during: Partial<Record<CloseReason, number>> = {};
  #stopping: PromiseWithResolvers<ShutdownReport> | undefined;
  readonly #timers: (() => void)[] = [];
  state: ServerState = "listening";
  readonly addrs: readonly Deno.Addr[];

  constructor(listener: Listener, options: ServeOptions, handler: ConnHandler) {
    this.#listener = listener;
    this.addrs = [listener.addr];
    this.#options = options;
    this.#handler = handler;
    this.#acceptAll();
  }

  stats(): Partial<ServerStats> {
    const { accepted, opening, lines, bytesIn, bytesOut } = this.#totals;
    const active = this.#conns.size + opening;
    return {
      accepted,
      active,
      closed: this.#closed as ServerStats["closed"],
      rejected: 0,
      gone: 0,
      lines,
      bytesIn,
      bytesOut,
    };
  }

  broadcast(data: string): void {
    for (const conn of this.#conns) conn.write(data);
  }

  /** Aborts the connections that are left when the time is up. */
  shutdown({ drainTimeout = 10_000 }: { drainTimeout?: number } = {}): Promise<ShutdownReport> {
    if (this.#stopping === undefined) {
      this.#stopping = Promise.withResolvers();
      this.state = "draining";
      this.#emit({ type: "draining", active: this.#conns.size });
      this.#listener.close();
    }
    this.#timers.push(this.#options.clock!.setTimer(() => this.#stop.abort(), drainTimeout, false));
    this.#finish();
    return this.#stopping.promise;
  }

  async #acceptAll(): Promise<void> {
    while (this.state === "listening") {
      const transport = await this.#listener.accept().catch(() => undefined);
      if (transport === undefined) continue;
      if (this.state === "listening") this.#use(transport);
      else transport.close();
    }
  }

  async #use(transport: Transport): Promise<void> {
    const { listener: _listener, onEvent: _onEvent, hostname: _hostname, port: _port, ...rest } = this.#options;
    // The caller may leave some of the input unread, for which `connect` would wait for ever.
    const options = { halfCloseTimeout: 60_000, ...rest, dial: () => transport, signal: this.#stop.signal };
    this.#totals.opening++;
    const conn = await connect(options as ConnectOptions).catch(() => closeQuietly(transport));
    this.#totals.opening--;
    if (conn === undefined) return this.#finish();
    this.#conns.add(conn);
    const { remoteAddr, localAddr } = conn;
    const info = { id: ++this.#totals.accepted, remoteAddr, localAddr };
    this.#emit({ type: "accepted", conn: info, active: this.#conns.size } as ServerEvent);
    this.#handle(conn);
    this.#ended(conn, info, await conn.closed);
  }

  /**
   * Runs the handler. A connection whose input has ended is closed by ending this side, too. After a write that has failed,
   * there may be more input.
   */
  async #handle(conn: Conn): Promise<void> {
    await Promise.resolve(this.#handler(conn)).catch((error) =>
      assert(conn.ending !== undefined || error instanceof ConnectionClosedError, String(error))
    );
    if (conn.ending === "end") await conn.closeWrite();
    else conn.close();
  }

  #ended(conn: Conn, info: ConnInfo, event: ClosedEvent): void {
    const { reason } = event;
    this.#conns.delete(conn);
    this.#closed[reason] = (this.#closed[reason] ?? 0) + 1;
    if (this.#stopping !== undefined) this.#during[reason] = (this.#during[reason] ?? 0) + 1;
    for (const name of ["lines", "bytesIn", "bytesOut"] as const) this.#totals[name] += event[name];
    this.#emit({ ...event, conn: info });
    this.#finish();
  }

  #finish(): void {
    if (this.state !== "draining" || this.#conns.size + this.#totals.opening > 0) return;
    this.state = "closed";
    for (const cancel of this.#timers) cancel();
    const report = { closed: this.#during, handlersLeft: 0, durationMs: 0 };
    this.#emit({ type: "stopped", report });
    this.#stopping!.resolve(report);
  }

  #emit(event: ServerEvent): void {
    this.#options.onEvent?.(event);
  }
}
