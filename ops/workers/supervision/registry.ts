/**
 * The connections of all workers, and what is known of them.
 *
 * @module
 */

import type { ClosedEvent, ConnInfo, ServerEvent } from "../../../internal/api/events.ts";
import type { ResolvedFraming } from "../../../internal/api/framing.ts";
import type { CloseOptions, ConnStats } from "../../../internal/api/handlers.ts";
import { Counters, type ServerStats } from "../../../internal/server/counters.ts";
import { formatAddr } from "../../../internal/api/transport.ts";
import { ClearingMap } from "../../../internal/memory/clearing_map.ts";
import { encodeLine } from "../../../internal/lines/text.ts";
import { RemoteConn } from "./remote_conn.ts";
import type { Supervisor } from "./supervisor.ts";

/** The functions that the registry calls. */
interface RegistryHooks {
  /** A connection that was admitted has ended, or was not accepted after all. */
  left(addr: Deno.Addr): void;
  emit(event: ServerEvent): void;
}

/** A connection that was admitted, and of which its worker has told nothing yet. */
interface Expected {
  readonly supervisor: Supervisor;
  readonly addr: Deno.Addr;
}

/** Counts connections, from their admission to their end. */
export class Registry {
  readonly counters: Counters = new Counters();
  readonly #open = new ClearingMap<number, RemoteConn>();
  readonly #expected = new ClearingMap<number, Expected>();
  readonly #hooks: RegistryHooks;
  readonly #now: () => number;
  readonly #framing: ResolvedFraming;
  #lastId = 0;

  /**
   * @param hooks The functions that it calls.
   * @param now Returns the time, in milliseconds.
   * @param framing The framing of the connections, as far as their handlers do not change it.
   */
  constructor(hooks: RegistryHooks, now: () => number, framing: ResolvedFraming) {
    this.#hooks = hooks;
    this.#now = now;
    this.#framing = framing;
  }

  get open(): ClearingMap<number, RemoteConn> {
    return this.#open;
  }

  /** The addresses of the connections that count in the limits. */
  *addrs(): Iterable<Deno.Addr> {
    for (const { addr } of this.#expected.values()) yield addr;
    for (const { remoteAddr } of this.#open.values()) yield remoteAddr;
  }

  /** A connection was admitted; returns its number. */
  expect(supervisor: Supervisor, addr: Deno.Addr): number {
    const id = ++this.#lastId;
    this.#expected.set(id, { supervisor, addr });
    return id;
  }

  /** Its worker serves it. */
  accepted(supervisor: Supervisor, conn: ConnInfo): void {
    this.#expected.delete(conn.id);
    const { id } = conn;
    const close = ({ lastWord, detail }: CloseOptions) => {
      if (lastWord !== undefined) encodeLine(lastWord, this.#framing);
      supervisor.send({ type: "close", id, options: { lastWord, detail } });
    };
    this.#open.set(id, new RemoteConn(conn, supervisor.index, close, this.#now));
    supervisor.accepted++;
    supervisor.active++;
    this.counters.accepted++;
    this.#hooks.emit({ type: "accepted", conn });
  }

  /** It has ended. */
  closed(supervisor: Supervisor, event: ClosedEvent): void {
    supervisor.count(event);
    this.#end(supervisor, event);
  }

  #end(supervisor: Supervisor, event: ClosedEvent): void {
    if (!this.#open.delete(event.conn.id)) return;
    supervisor.active--;
    this.counters.ended(event);
    this.#hooks.emit(event);
    this.#hooks.left(event.conn.remoteAddr);
  }

  /**
   * Its worker has refused it after it was admitted. If several connections have this address, any of them may be
   * removed.
   */
  refused(supervisor: Supervisor, addr: Deno.Addr): void {
    const text = formatAddr(addr);
    for (const [id, expected] of this.#expected.entries()) {
      if (expected.supervisor !== supervisor || formatAddr(expected.addr) !== text) continue;
      this.#expected.delete(id);
      return this.#hooks.left(addr);
    }
  }

  /** A worker has ended, and its connections with it. Returns how many it had. */
  lost(supervisor: Supervisor, error: Error): number {
    for (const [id, expected] of this.#expected.entries()) {
      if (expected.supervisor !== supervisor) continue;
      this.#expected.delete(id);
      this.#hooks.left(expected.addr);
    }
    const lost = Array.from(this.#open.values()).filter((conn) => conn.worker === supervisor.index);
    for (const conn of lost) {
      const { id, remoteAddr, localAddr, ageMs: durationMs, totals } = conn;
      const info = { id, remoteAddr, localAddr };
      this.#end(supervisor, { type: "closed", conn: info, reason: "transport-error", error, ...totals, durationMs });
    }
    return lost.length;
  }

  /** A worker has told of its connections. */
  told(conns: readonly (readonly [number, ConnStats])[]): void {
    for (const [id, stats] of conns) this.#open.get(id)?.tell(stats);
  }

  /** Returns the counters of all workers together. */
  stats(supervisors: readonly Supervisor[]): ServerStats {
    const totals = supervisors.map((supervisor) => supervisor.totals);
    const sum = (name: keyof typeof totals[number]) => totals.reduce((sum, each) => sum + each[name], 0);
    return {
      ...this.counters.snapshot(this.#open.values(), sum("queued"), sum("handlers")),
      hookErrors: this.counters.hookErrors + sum("hookErrors"),
      ...{ lines: sum("lines"), bytesIn: sum("bytesIn"), bytesOut: sum("bytesOut") },
    };
  }
}
