/**
 * The options of a server: their meaning, defaults and allowed values.
 *
 * @module
 */

import {
  checkClock,
  checkDelay,
  checkFunction,
  checkHostname,
  checkKeepAlive,
  checkListeners,
  checkOptions,
  checkSignal,
  checkTimeout,
  checkWhole,
  checkWord,
  DEFAULT_ADMIT_TIMEOUT,
  DEFAULT_BUFFERED_BYTES,
  DEFAULT_DRAIN,
  DEFAULT_DRAIN_TIMEOUT,
  DEFAULT_KEEP_ALIVE_MS,
  DEFAULT_PORT,
} from "./check.ts";
import type { ConnOptions } from "./conn_options.ts";
import type { ServerEvent } from "./events.ts";
import type { Framing } from "./framing.ts";
import type { Conn } from "./handlers.ts";
import type { AdmissionRejectReason, CloseReason } from "./reasons.ts";
import type { Listener } from "./transport.ts";
import { count } from "./errors.ts";

/**
 * What a shutdown does with the open connections:
 *
 * - `linger`: each goes on until its peer leaves, one of its own limits ends it, or `drainTimeout` has passed
 * - `finish`: each is closed at a line boundary, as soon as everything that its peer has sent is answered; the server
 *   waits for a conversation handler until it asks for its next line, or `drainTimeout` has passed
 */
export type DrainMode = "linger" | "finish";

/**
 * Options of {@linkcode serve} and {@linkcode serveConnections}. A value that is wrong is refused before anything is bound;
 * a property that is no option is ignored, so the object may have others.
 */
export interface ServeOptions<Data = undefined> extends ConnOptions {
  /**
   * The address or host name to listen on.
   *
   * @default {"0.0.0.0"}
   */
  hostname?: string | undefined;
  /**
   * The port to listen on. With 0 the system picks a free port; {@linkcode Server.addr} has it.
   *
   * @default {8080}
   */
  port?: number | undefined;
  /**
   * The listener to accept connections from, or several, such as one with TLS and one without: they share all limits, the
   * counters and the shutdown. They take the place of `hostname` and `port`, which are ignored then. The server closes
   * them, also when one of them fails and cannot recover; if `serve` throws, they stay open, and stay the caller's. A
   * listener from which another server accepts is refused.
   */
  listener?: Listener | readonly Listener[] | undefined;
  /** A signal that starts a shutdown when it aborts, as {@linkcode Server.shutdown} does. */
  signal?: AbortSignal | undefined;
  /**
   * Called once with each address of the server, before the first connection is accepted. What it throws is ignored, and
   * counted in `hookErrors`.
   */
  onListen?: ((addr: Deno.Addr) => void) | undefined;
  /** Called with each event. What it throws is ignored; {@linkcode ServerStats.hookErrors} counts it. */
  onEvent?: ((event: ServerEvent) => void) | undefined;
  /**
   * Maximum number of open connections. `atCapacity` says what happens to a further one.
   *
   * @default {10_000}
   */
  maxConnections?: number | undefined;
  /**
   * What happens to a connection above `maxConnections`: `reject` sends it an error line and closes it, `wait` leaves
   * it in the kernel's backlog until another connection ends. Of several listeners, each can have one more connection
   * that is accepted already and waits, unread; the waiting connections are admitted in the order of their arrival.
   *
   * @default {"reject"}
   */
  atCapacity?: "reject" | "wait" | undefined;
  /**
   * Maximum number of open connections of one client. A client is one IPv4 address, or one IPv6 /64, since a client
   * that has one address of it usually has all of them. A further connection gets an error line and is closed.
   *
   * @default {Infinity}
   */
  maxConnectionsPerIp?: number | undefined;
  /**
   * The addresses and networks whose connections are served, such as `["10.0.0.0/8", "::1"]`; a connection from any
   * other address gets an error line and is closed. Without a list, or with `null`, all addresses are served. Peers
   * without an IP address, as on a Unix socket, are always served.
   */
  allow?: readonly string[] | null | undefined;
  /**
   * The addresses and networks whose connections get an error line and are closed, whatever `allow` says. Each
   * connection is compared with each entry of both lists, which takes about 0.1 ms for a thousand entries. A list of
   * tens of thousands, such as the networks of a country, belongs in a firewall.
   */
  deny?: readonly string[] | null | undefined;
  /**
   * Maximum number of connections accepted per second, and of connections accepted at once after a second without any.
   * Above it, further connections wait in the kernel's backlog. This limit alone protects the machine, but no client:
   * one address that keeps opening connections makes all other clients wait. Set `acceptRatePerIp` too to prevent that.
   * `Infinity` switches it off.
   *
   * @default {Infinity}
   */
  acceptRate?: number | undefined;
  /**
   * Maximum number of connections that one client may open per second, and at once after a second without any. A client
   * is one IPv4 address, or one IPv6 /64. A further connection is closed as soon as it is accepted, without an error
   * line, and does not count for `acceptRate`. If both are set and this one is far smaller, one client cannot keep the
   * others out. Under TLS and behind a proxy, the server checks it after the handshake or the PROXY header. It does not
   * apply to peers without an IP address, as on a Unix socket. `Infinity` switches it off.
   *
   * @default {Infinity}
   */
  acceptRatePerIp?: number | undefined;
  /**
   * Maximum time for which a client that keeps being rejected is shut out, in milliseconds, from 1000. A client is one
   * IPv4 address, or one IPv6 /64. Rejections count for the reasons `max-connections-per-ip`, `accept-rate-per-ip`,
   * `refused`, `tls-handshake` and `proxy-header`. The first ten do no harm; from the eleventh on, each shuts the client
   * out: for a second first, then for twice as long each time. Its connections are closed meanwhile as soon as they are
   * accepted, without an error line, with reason `penalty`. A client that was not rejected for `maxPenaltyMs` after its
   * last penalty begins anew. At most 10 000 clients are remembered. Under TLS and behind a proxy, the server checks it
   * after the handshake or the PROXY header. It does not apply to peers without an IP address. 0 switches it off.
   *
   * @default {0}
   */
  maxPenaltyMs?: number | undefined;
  /**
   * Time of silence after which the kernel asks the peer's system whether it is still there, in milliseconds. It
   * detects a peer that has vanished while no clock of the server runs, because `idleTimeout` is off or a handler
   * works. The kernel accepts times from 1000 to 32_767_000; `Infinity` switches it off. While the server waits for a
   * peer, a shorter `idleTimeout` makes it unnecessary. On Deno's sockets keep-alive can only be switched on: the
   * kernel's own times apply, 2 h on Linux by default. `listenEpoll` has an option of the same name, which is exact.
   *
   * @default {15_000}
   */
  keepAliveMs?: number | undefined;
  /**
   * Maximum memory, in bytes, that all connections together may hold in unfinished lines and in replies that their
   * peers have not taken for 250 ms. A buffer counts with its size: it grows fourfold when it is full, so a line of
   * 70 KB counts as 256 KiB. The first 256 bytes of each connection's input and the first 4 KiB of its replies
   * are not counted, nor are the 25 to 35 KiB that TLS holds for a connection at rest. What TLS holds beyond that, such
   * as some 16 KiB after a long line, is counted while output waits. Above this limit, the connection that holds the
   * most is closed, with reason `memory`; its peer gets an error line, unless replies still wait for it. Above half of
   * this limit, reads become short; and while all replies that wait, however recent, take more than the limit, further
   * lines have to wait before they are answered. `Infinity` switches it off.
   *
   * @default {134_217_728}
   */
  maxBufferedBytes?: number | undefined;
  /**
   * What a shutdown does with the open connections.
   *
   * @default {"linger"}
   */
  drain?: DrainMode | undefined;
  /**
   * Maximum time that a shutdown waits for connections and their handlers, in milliseconds, more than 0. The clock starts
   * when the shutdown begins, or at the end of `drainDelay`; a further call can only bring the deadline forward. When the time is
   * up, the connections that are left are aborted, with reason `drain-timeout`. `Infinity` waits for ever.
   *
   * @default {10_000}
   */
  drainTimeout?: number | undefined;
  /**
   * Time in milliseconds for which a shutdown goes on accepting connections and serving them before it drains: a load
   * balancer goes on sending connections for seconds after it was told not to. The server's state is `lame-duck`
   * meanwhile. A further call of `shutdown` can only shorten it.
   *
   * @default {0}
   */
  drainDelay?: number | undefined;
  /**
   * Time in milliseconds over which a shutdown spreads what it ends, so that its clients do not all come back to another
   * server at once; at most `drainTimeout`. With `finish`, the connections are asked to finish one after another from the
   * beginning of the drain; with `linger`, those that are left are aborted one after another before the deadline.
   *
   * @default {0}
   */
  drainSpread?: number | undefined;
  /** How lines are framed; `conn.setFraming` changes it for one connection. */
  framing?: Partial<Framing> | undefined;
  /**
   * Makes the data of a connection, which its handler gets as `conn.data`. Called once, after admission and before the
   * handler. What it throws ends the connection, with reason `handler-error`. It is not awaited: a promise that it
   * returns is the data, for the handler to await; a rejection that no handler awaits does no harm.
   *
   * @param conn The connection, whose data is not there yet.
   */
  data?: ((conn: Conn<never>) => Data) | undefined;
  /**
   * Decides whether a connection is served, after the server's own rules have admitted it. Other connections are
   * accepted meanwhile; this one counts in every limit, and nothing is read from it.
   *
   * @param info The addresses of the connection.
   * @returns `false` to reject the connection, with reason `refused`; `true` or nothing to serve it; or limits, which
   * hold for this connection in place of the server's. What it throws, or rejects with, rejects the connection too.
   */
  admit?: ((info: AdmitInfo) => AdmitResult | Promise<AdmitResult>) | undefined;
  /**
   * Maximum time that `admit` may take, in milliseconds. When the time is up, the connection is rejected, with reason
   * `refused`. `Infinity` switches it off.
   *
   * @default {5_000}
   */
  admitTimeout?: number | undefined;
  /**
   * Returns the line that a peer gets when the server ends or rejects its connection and the peer can still read, and
   * when it discards a line (`onLongLine: "discard"`), after which the connection goes on: without its line end, or `null` for none. The default returns lines such as `error: line longer than 65536 bytes`
   * for limits of size, for text and last lines that `framing` refuses, for lack of memory, and for rejected connections;
   * and `null` for clocks, drains and handlers that throw. In a protocol of requests and replies, a line at a clock or in
   * a drain could be taken for the reply to the next request: return `null` there. It is not awaited: anything but text
   * or nothing, such as a promise, sends nothing and counts in `hookErrors`. A character that the encoding of `framing`
   * lacks is sent as `?`. It is not called for the reasons
   * `end`, `closed`, `reset`, `misdirected`, `starttls-injection`, `tls-handshake`, `write-timeout`, `write-queue`,
   * `drain-timeout`, `transport-error`, `accept-rate-per-ip` and `penalty`.
   *
   * @param reason Why the connection ends.
   * @param limit The value of the limit that the reason names; 0 if it names none.
   */
  lastWords?: ((reason: CloseReason | AdmissionRejectReason, limit: number) => string | null) | undefined;
  /** The source of time; a test can pass a clock that it moves by hand. */
  clock?: Clock | undefined;
}

/** A source of time; a test can pass a clock that it moves by hand. */
export interface Clock {
  /** Returns the milliseconds since a fixed moment; the value never decreases. */
  now(): number;
  /**
   * Sets a timer that calls back once.
   *
   * @param callback Called when the timer expires.
   * @param delay The time until then, in milliseconds. Timers of JavaScript have at most 2 147 483 647 ms, which is 24.8
   * days; the clock of the machine takes a longer one for that.
   * @param keepAlive Whether the timer keeps the process alive.
   * @returns A function that cancels the timer.
   */
  setTimer(callback: () => void, delay: number, keepAlive: boolean): () => void;
}

/** Options of {@linkcode Server.shutdown}; each defaults to the server's own. */
export interface ShutdownOptions {
  /** What to do with the open connections. */
  drain?: DrainMode | undefined;
  /** Maximum time to wait for them, in milliseconds, more than 0: with 1, they are aborted at once. */
  drainTimeout?: number | undefined;
  /** Time for which the server goes on accepting and serving first, in milliseconds; see `drainDelay`. */
  delay?: number | undefined;
  /** Time over which the ends are spread, in milliseconds; see `drainSpread`. */
  spread?: number | undefined;
}

/**
 * Limits that {@linkcode Server.setLimits} changes: those that decide which connections are served, and those of each
 * connection.
 */
export interface ServerLimits extends
  ConnOptions,
  Pick<
    ServeOptions,
    | ("maxConnections" | "maxConnectionsPerIp" | "acceptRate" | "acceptRatePerIp" | "maxPenaltyMs")
    | ("atCapacity" | "allow" | "deny")
  > {}

/** A connection that {@linkcode ServeOptions.admit} decides about. */
export interface AdmitInfo {
  /** The peer's address. */
  readonly remoteAddr: Deno.Addr;
  /** This side's address. */
  readonly localAddr: Deno.Addr;
}

/**
 * What {@linkcode ServeOptions.admit} returns: `false` rejects the connection, `true` and `undefined` admit it, and limits
 * admit it with these in place of the server's.
 */
export type AdmitResult = ConnOptions | boolean | void;

const FUNCTIONS = ["onListen", "onEvent", "lastWords", "data", "admit"] as const;

/**
 * Checks the options that no other part checks.
 *
 * @throws {RangeError | TypeError} If an option is wrong.
 */
export function checkServeOptions<Data>(options: ServeOptions<Data>): void {
  checkOptions("options", options);
  const {
    port = DEFAULT_PORT,
    maxBufferedBytes = DEFAULT_BUFFERED_BYTES,
    keepAliveMs = DEFAULT_KEEP_ALIVE_MS,
    drain = DEFAULT_DRAIN,
    drainTimeout = DEFAULT_DRAIN_TIMEOUT,
    drainDelay = 0,
    drainSpread = 0,
    admitTimeout = DEFAULT_ADMIT_TIMEOUT,
  } = options;
  checkHostname(options.hostname);
  checkWhole("port", port, 0, 65_535);
  checkKeepAlive(keepAliveMs);
  checkWhole("maxBufferedBytes", maxBufferedBytes, 1, Infinity);
  checkDrain(drain, drainTimeout);
  checkDelay("drainDelay", drainDelay);
  checkDelay("drainSpread", drainSpread);
  if (drainSpread > drainTimeout) {
    throw new RangeError(`Cannot use drainSpread ${drainSpread}: expected at most drainTimeout, ${drainTimeout} ms`);
  }
  checkListeners(options.listener);
  checkSignal(options.signal);
  checkClock(options.clock, true);
  checkTimeout("admitTimeout", admitTimeout);
  for (const name of FUNCTIONS) checkFunction(name, options[name], true);
}

/** The default of {@linkcode ServeOptions.lastWords}. */
export function defaultLastWords(reason: CloseReason | AdmissionRejectReason, limit: number): string | null {
  switch (reason) {
    case "line-too-long":
      return `error: line longer than ${count(limit, "byte")}`;
    case "byte-limit":
      return `error: more than ${count(limit, "byte")} from one connection`;
    case "read-too-long":
      return `error: more than ${count(limit, "byte")} at once`;
    case "unterminated":
      return "error: last line without its end";
    case "invalid-text":
      return "error: invalid text";
    case "memory":
      return "error: too much unfinished input";
    case "max-connections":
      return `error: more than ${count(limit, "connection")}`;
    case "max-connections-per-ip":
      return `error: more than ${count(limit, "connection")} from one address`;
    case "denied":
      return "error: address not allowed";
    case "refused":
      return "error: connection refused";
    default:
      return null;
  }
}

/** What the options of a server say about a shutdown. */
export type ShutdownDefaults = Pick<ServeOptions, "drain" | "drainTimeout" | "drainDelay" | "drainSpread">;

/** Copies these options: the caller may change the object, or use it for another server. */
export function shutdownDefaults({ drain, drainTimeout, drainDelay, drainSpread }: ShutdownDefaults): ShutdownDefaults {
  return { drain, drainTimeout, drainDelay, drainSpread };
}

/** Options of a shutdown that are complete; without a spread, that of an earlier call holds. */
export interface ResolvedShutdown extends ShutdownOptions {
  drain: DrainMode;
  drainTimeout: number;
  delay: number;
}

/**
 * Completes the options of a shutdown with those of the server.
 *
 * @param options The options of the call.
 * @param defaults The options of the server.
 * @param isFirst Whether it is the first call: a later one that says nothing of a spread, such as that of a signal, keeps
 * that of the first.
 * @throws {RangeError | TypeError} If an option is wrong.
 */
export function resolveShutdown(
  options: ShutdownOptions,
  defaults: ShutdownDefaults,
  isFirst: boolean,
): ResolvedShutdown {
  checkOptions("shutdown options", options);
  const {
    drain = defaults.drain ?? DEFAULT_DRAIN,
    drainTimeout = defaults.drainTimeout ?? DEFAULT_DRAIN_TIMEOUT,
    delay = defaults.drainDelay ?? 0,
    spread = isFirst ? defaults.drainSpread ?? 0 : undefined,
  } = options;
  checkDrain(drain, drainTimeout);
  checkDelay("delay", delay);
  if (spread !== undefined) checkDelay("spread", spread);
  return { drain, drainTimeout, delay, spread };
}

function checkDrain(drain: DrainMode, drainTimeout: number): void {
  checkWord("drain", drain, ["linger", "finish"]);
  checkTimeout("drainTimeout", drainTimeout);
}
