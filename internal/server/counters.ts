/**
 * What a server has counted.
 *
 * @module
 */

import { CLOSE_REASONS, type CloseReason } from "../api/reasons.ts";

/** What has gone through one connection or many. */
export interface Traffic {
  /** Whole lines that came. */
  readonly lines: number;
  /** Bytes that came. */
  readonly bytesIn: number;
  /** Bytes that left. */
  readonly bytesOut: number;
}

/** What a server has done so far. `accepted` is always `active` plus the sum of `closed`. */
export interface ServerStats extends Traffic {
  /** Connections that were admitted. */
  readonly accepted: number;
  /** Those of them that are there now. */
  readonly active: number;
  /** Those that have ended, by reason. */
  readonly closed: Readonly<Record<CloseReason, number>>;
  /** Connections that were turned away. */
  readonly rejected: number;
  /** Peers that left before they were served, which are neither accepted nor rejected; see the event `gone`. */
  readonly gone: number;
  /**
   * Handlers that are at work: conversation handlers that have not settled, and line handlers whose promise has not,
   * those included whose connections have ended.
   */
  readonly handlers: number;
  /** How often a function among the options threw. */
  readonly hookErrors: number;
}

/** A connection that is there. */
interface ActiveConn {
  readonly totals: Traffic;
  /** Settles when its handler has; undefined if no handler is at work. */
  readonly handled: Promise<void> | undefined;
}

/** The counters behind {@linkcode ServerStats}. */
export class Counters {
  accepted = 0;
  rejected = 0;
  gone = 0;
  hookErrors = 0;
  readonly closed = Object.fromEntries(CLOSE_REASONS.map((reason) => [reason, 0])) as Record<CloseReason, number>;
  readonly #traffic = { lines: 0, bytesIn: 0, bytesOut: 0 };

  /** A connection has ended. */
  ended(reason: CloseReason, traffic: Traffic): void {
    this.closed[reason]++;
    addTo(this.#traffic, traffic);
  }

  /** How many connections have ended since then, by reason; a reason without any is left out. */
  closedSince(before: Readonly<Record<CloseReason, number>>): Partial<Record<CloseReason, number>> {
    const ended = CLOSE_REASONS.map((reason) => [reason, this.closed[reason] - before[reason]] as const);
    return Object.fromEntries(ended.filter(([, count]) => count > 0));
  }

  /** The counters now, with what the connections that are there have done so far. */
  snapshot(active: Iterable<ActiveConn>, orphans: number): ServerStats {
    const traffic = { ...this.#traffic };
    let count = 0;
    let handlers = orphans;
    for (const { totals, handled } of active) {
      addTo(traffic, totals);
      count++;
      if (handled !== undefined) handlers++;
    }
    const { accepted, rejected, gone, hookErrors } = this;
    const counts = { accepted, active: count, closed: { ...this.closed }, rejected, gone, handlers, hookErrors };
    return { ...counts, ...traffic };
  }
}

function addTo(sum: { -readonly [Name in keyof Traffic]: number }, more: Traffic): void {
  sum.lines += more.lines;
  sum.bytesIn += more.bytesIn;
  sum.bytesOut += more.bytesOut;
}
