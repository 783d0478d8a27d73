/**
 * The counters of a server.
 *
 * @module
 */

import type { ClosedEvent, Traffic } from "../api/events.ts";
import { CLOSE_REASONS, type CloseReason } from "../api/reasons.ts";

/** Maximum number of details that are counted by themselves: a handler could make them of what its peer sends. */
const MAX_DETAILS = 100;

/** Maximum length of such a detail, in characters: it is kept until the server's end, and each status has it. */
const MAX_DETAIL_LENGTH = 100;

/** The counters of a server since its start. `accepted` is always `active` plus the sum of `closed`. */
export interface ServerStats extends Traffic {
  /** The number of connections accepted and served. */
  readonly accepted: number;
  /** The number of them that are open now. */
  readonly active: number;
  /**
   * The number of connections that have left the kernel's backlog and do not count as accepted yet. They wait in their
   * listener for a TLS handshake or a PROXY header; for the decision of the hook `admit`; or, at most one for each
   * listener, until there is room or a pause ends.
   */
  readonly queued: number;
  /** The number of accepted connections that have ended, by reason. */
  readonly closed: Readonly<Record<CloseReason, number>>;
  /**
   * The number of them that have ended with a detail of the handler's own, by detail: the first 100 details of at
   * most 100 characters, and `other` for the rest.
   */
  readonly details: Readonly<Record<string, number>>;
  /** The number of connections rejected by the server or its listener. */
  readonly rejected: number;
  /**
   * The number of connections whose peers left before they were served, which count neither as accepted nor as
   * rejected; see {@linkcode GoneEvent}.
   */
  readonly gone: number;
  /**
   * The number of handlers at work: conversation handlers that have not settled, and line handlers whose promise has
   * not. Handlers whose connections have ended are included.
   */
  readonly handlers: number;
  /**
   * How many times a hook such as `onEvent`, `lastWords` or `admit` threw, or returned what it must not. What `data` throws
   * is a handler's error.
   */
  readonly hookErrors: number;
}

/** An open connection. */
interface ActiveConn {
  readonly totals: Traffic;
  /** Settles when its handler has settled; undefined if no handler is at work. */
  readonly handled: Promise<void> | undefined;
}

/** The counters behind {@linkcode ServerStats}. */
export class Counters {
  accepted = 0;
  rejected = 0;
  gone = 0;
  hookErrors = 0;
  readonly closed = Object.fromEntries(CLOSE_REASONS.map((reason) => [reason, 0])) as Record<CloseReason, number>;
  readonly #details = new Map<string, number>();
  readonly #traffic = { lines: 0, bytesIn: 0, bytesOut: 0 };

  /** Counts a connection that has ended. */
  ended(event: ClosedEvent): void {
    const { reason, detail } = event;
    this.closed[reason]++;
    addTo(this.#traffic, event);
    if (detail === undefined) return;
    const fits = detail.length <= MAX_DETAIL_LENGTH && this.#details.size < MAX_DETAILS;
    const name = fits || this.#details.has(detail) ? detail : "other";
    this.#details.set(name, (this.#details.get(name) ?? 0) + 1);
  }

  /** Returns how many connections have ended since `before`, by reason; a reason with none is left out. */
  closedSince(before: Readonly<Record<CloseReason, number>>): Partial<Record<CloseReason, number>> {
    const ended = CLOSE_REASONS.map((reason) => [reason, this.closed[reason] - before[reason]] as const);
    return Object.fromEntries(ended.filter(([, count]) => count > 0));
  }

  /** Returns the counters, including the input and output of the open connections. */
  snapshot(active: Iterable<ActiveConn>, queued: number, orphans: number): ServerStats {
    const traffic = { ...this.#traffic };
    let count = 0;
    let handlers = orphans;
    for (const { totals, handled } of active) {
      addTo(traffic, totals);
      count++;
      if (handled !== undefined) handlers++;
    }
    const { accepted, rejected, gone, hookErrors } = this;
    const details = Object.fromEntries(this.#details);
    const counts = { accepted, active: count, queued, closed: { ...this.closed }, details, rejected, gone, handlers };
    return { ...counts, hookErrors, ...traffic };
  }
}

/** Adds the input and output of connections to that of others. */
export function addTraffic(some: Traffic, more: Traffic): Traffic {
  const { lines, bytesIn, bytesOut } = some;
  const sum = { lines, bytesIn, bytesOut };
  addTo(sum, more);
  return sum;
}

function addTo(sum: { -readonly [Name in keyof Traffic]: number }, more: Traffic): void {
  sum.lines += more.lines;
  sum.bytesIn += more.bytesIn;
  sum.bytesOut += more.bytesOut;
}
