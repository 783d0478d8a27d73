/**
 * A pool of connections that this side opens: its options, its counters and its events.
 *
 * @module
 */

import { checkOptions, checkTimeout, checkWhole } from "../api/check.ts";
import type { ListeningEvent, ServerEvent } from "../api/events.ts";
import type { ServeOptions } from "../api/serve_options.ts";
import type { ServerStats } from "../server/counters.ts";
import type { Server } from "../server/running.ts";
import type { ConnectOptions } from "./connect_options.ts";
import type { DialerOptions } from "./dialer.ts";

/** Options of {@linkcode connectPool}: those of its connections, and those of the pool. */
export interface PoolOptions<Data = undefined>
  extends ConnectOptions<Data>, Pick<ServeOptions<Data>, "drain" | "drainTimeout"> {
  /**
   * The number of connections that are kept open.
   *
   * @default {1}
   */
  size?: number | undefined;
  /**
   * The first pause before a connection that has ended is opened again, in milliseconds; up to half of each pause is
   * taken off at random. The pause doubles each time, and starts anew when a connection has lived for a second.
   *
   * @default {100}
   */
  minBackoff?: number | undefined;
  /**
   * The longest pause, in milliseconds.
   *
   * @default {10_000}
   */
  maxBackoff?: number | undefined;
  /**
   * Maximum time that a handler takes between two reads or writes after the server has ended its side, in milliseconds.
   * When the time is up, the connection is closed, with reason `handler-timeout`, and another is opened. `Infinity`
   * switches it off.
   *
   * @default {60_000}
   */
  halfCloseTimeout?: number | undefined;
  /**
   * Maximum memory, in bytes, that all connections of the pool together may hold, as in `connect`. Above it, the one that
   * holds the most is closed, with reason `memory`. `Infinity` switches it off.
   *
   * @default {134_217_728}
   */
  maxBufferedBytes?: number | undefined;
  /** A signal that starts a shutdown when it aborts, as {@linkcode ConnPool.shutdown} does. */
  signal?: AbortSignal | undefined;
  /** Called with each event. What it throws is ignored; {@linkcode ServerStats.hookErrors} counts it. */
  onEvent?: ((event: PoolEvent) => void) | undefined;
}

/** A connection could not be opened. The pool tries again. */
export interface ConnectErrorEvent {
  /** The kind of event. */
  readonly type: "connect-error";
  /** The address that could not be reached; absent with the option `dial`. */
  readonly addr?: Deno.Addr;
  /** Why. */
  readonly error: unknown;
  /** The time until the next attempt, in milliseconds. */
  readonly retryMs: number;
}

/** Any event of a pool; its `type` tells which. `accepted` reports a connection that was opened. */
export type PoolEvent = Exclude<ServerEvent, ListeningEvent> | ConnectErrorEvent;

/** The counters of a pool since its start; `accepted` counts the connections that were opened. */
export interface PoolStats extends ServerStats {
  /** The number of connections that are being opened. */
  readonly connecting: number;
  /** How many times a connection could not be opened. */
  readonly connectErrors: number;
}

/**
 * A pool of connections: a running server whose connections this side opens. `setLimits` is for the limits of its next
 * connections; those of admission are for clients, and no call makes a pool larger than `size`.
 */
export interface ConnPool<Data = undefined> extends Omit<Server<Data>, "addr" | "addrs" | "stats"> {
  /** Returns the counters so far. */
  stats(): PoolStats;
}

/**
 * Checks the options of a pool that no other part checks, and fills in their defaults.
 *
 * @throws {RangeError | TypeError} If an option is wrong.
 */
export function resolvePoolOptions<Data>(
  options: PoolOptions<Data>,
): Pick<DialerOptions, "size" | "minBackoff" | "maxBackoff"> {
  checkOptions("connectPool options", options);
  const { size = 1, minBackoff = 100 } = options;
  checkWhole("size", size, 1, 10_000);
  checkPause("minBackoff", minBackoff);
  const { maxBackoff = Math.max(minBackoff, 10_000) } = options;
  checkPause("maxBackoff", maxBackoff);
  if (maxBackoff >= minBackoff) return { size, minBackoff, maxBackoff };
  throw new RangeError(`Cannot use maxBackoff ${maxBackoff}: expected at least minBackoff, which is ${minBackoff} ms`);
}

function checkPause(name: string, value: number): void {
  checkTimeout(name, value);
  if (value === Infinity) throw new RangeError(`Cannot use ${name} Infinity: expected a number of milliseconds`);
}
