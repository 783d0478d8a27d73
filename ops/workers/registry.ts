/**
 * The connections of all workers, and what is known of them.
 *
 * @module
 */

import type { ClosedEvent, ConnInfo, ServerEvent } from "../../internal/api/events.ts";
import type { ConnStats } from "../../internal/api/handlers.ts";
import { Counters, type ServerStats } from "../../internal/server/counters.ts";
import { formatAddr } from "../../internal/api/transport.ts";
import { RemoteConn } from "./remote_conn.ts";
import type { Slot } from "./supervisor.ts";

/** The functions that the census calls. */
export interface CensusHooks {
  /** A connection that was admitted has ended, or was not accepted after all. */
  left(addr: Deno.Addr): void;
  emit(event: ServerEvent): void;
}

/** A connection that was admitted, and of which its worker has told nothing yet. */
interface Expected {
  readonly slot: Slot;
  readonly addr: Deno.Addr;
}

/** Counts connections, from their admission to their end. */
export class Census {
  readonly counters: Counters = new Counters();
  readonly #open = new Map<number, RemoteConn>();
  readonly #expected = new Map<number, Expected>();
  readonly #hooks: CensusHooks;
  readonly #now: () => number;
  #lastId = 0;

  /**
   * @param hooks The functions that it calls.
   * @param now Returns the time, in milliseconds.
   */
  constructor(hooks: CensusHooks, now: () => number) {
    this.#hooks = hooks;
    this.#now = now;
  }

  get open(): ReadonlyMap<number, RemoteConn> {
    return this.#open;
  }

  /** The addresses of the connections that count in the limits. */
  *addrs(): Iterable<Deno.Addr> {
    for (const { addr } of this.#expected.values()) yield addr;
    for (const { remoteAddr } of this.#open.values()) yield remoteAddr;
  }

  /** A connection was admitted; returns its number. */
  expect(slot: Slot, addr: Deno.Addr): number {
    const id = ++this.#lastId;
    this.#expected.set(id, { slot, addr });
    slot.load++;
    return id;
  }

  /** Its worker serves it. */
  accepted(slot: Slot, conn: ConnInfo): void {
    this.#expected.delete(conn.id);
    const { id } = conn;
    const close = (options: object) => slot.send({ type: "close", id, options });
    this.#open.set(id, new RemoteConn(conn, slot.index, close, this.#now));
    slot.accepted++;
    slot.active++;
    this.counters.accepted++;
    this.#hooks.emit({ type: "accepted", conn });
  }

  /** It has ended. */
  closed(slot: Slot, event: ClosedEvent): void {
    slot.count(event);
    this.#end(slot, event);
  }

  #left(slot: Slot, addr: Deno.Addr): void {
    slot.load--;
    this.#hooks.left(addr);
  }

  #end(slot: Slot, event: ClosedEvent): void {
    if (!this.#open.delete(event.conn.id)) return;
    slot.active--;
    this.counters.ended(event, event);
    this.#hooks.emit(event);
    this.#left(slot, event.conn.remoteAddr);
  }

  /** Its worker has refused it after it was admitted. Which of several from one address that was makes no difference. */
  refused(slot: Slot, addr: Deno.Addr): void {
    const text = formatAddr(addr);
    for (const [id, expected] of this.#expected) {
      if (expected.slot !== slot || formatAddr(expected.addr) !== text) continue;
      this.#expected.delete(id);
      return this.#left(slot, addr);
    }
  }

  /** A worker has ended, and its connections with it. Returns how many it had. */
  lost(slot: Slot, error: Error): number {
    for (const [id, expected] of this.#expected) {
      if (expected.slot !== slot) continue;
      this.#expected.delete(id);
      this.#left(slot, expected.addr);
    }
    const lost = Array.from(this.#open.values()).filter((conn) => conn.worker === slot.index);
    for (const conn of lost) {
      const { id, remoteAddr, localAddr, ageMs: durationMs, totals } = conn;
      const info = { id, remoteAddr, localAddr };
      this.#end(slot, { type: "closed", conn: info, reason: "transport-error", error, ...totals, durationMs });
    }
    return lost.length;
  }

  /** A worker has told of its connections. */
  told(conns: readonly (readonly [number, ConnStats])[]): void {
    for (const [id, stats] of conns) this.#open.get(id)?.tell(stats);
  }

  /** Returns the counters of all workers together. */
  stats(slots: readonly Slot[]): ServerStats {
    const totals = slots.map((slot) => slot.totals);
    const sum = (name: keyof typeof totals[number]) => totals.reduce((sum, each) => sum + each[name], 0);
    return {
      ...this.counters.snapshot(this.#open.values(), sum("queued"), sum("handlers")),
      hookErrors: this.counters.hookErrors + sum("hookErrors"),
      ...{ lines: sum("lines"), bytesIn: sum("bytesIn"), bytesOut: sum("bytesOut") },
    };
  }
}
