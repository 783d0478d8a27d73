/**
 * The options of a server: what they mean, their defaults and bounds.
 *
 * @module
 */

import {
  checkClock,
  checkFunction,
  checkHostname,
  checkKeepAlive,
  checkListener,
  checkMethods,
  checkOptions,
  checkTimeout,
  checkWhole,
  checkWord,
  DEFAULT_PORT,
} from "./check.ts";
import type { Clock } from "./clock.ts";
import type { ConnOptions } from "./conn_options.ts";
import type { ServerEvent } from "./events.ts";
import type { ErrorLineReason } from "./reasons.ts";
import type { Listener } from "./transport.ts";
import { count } from "./errors.ts";

/**
 * What a shutdown does with the connections that it finds:
 *
 * - `linger`: they live on until they leave, idle out, or `drainTimeout` is up
 * - `finish`: each is closed at a line boundary, as soon as everything that it has sent is answered; a conversation
 *   handler that does something else is waited for until it asks for its next line, or `drainTimeout` is up
 */
export type DrainMode = "linger" | "finish";

/** Options of {@linkcode serve} and {@linkcode serveConnections}. */
export interface ServeOptions extends ConnOptions {
  /**
   * The address or host name to listen on.
   *
   * @default {"0.0.0.0"}
   */
  hostname?: string | undefined;
  /**
   * The port to listen on; 0 picks a free one, which {@linkcode Server.addr} tells.
   *
   * @default {8080}
   */
  port?: number | undefined;
  /** Where connections come from, in place of `hostname` and `port`. The server closes it. */
  listener?: Listener | undefined;
  /** Aborting it equals calling {@linkcode Server.shutdown}. */
  signal?: AbortSignal | undefined;
  /** Called once with the address, before the first connection. */
  onListen?: ((addr: Deno.Addr) => void) | undefined;
  /** Called with everything that happens. What it throws is ignored; {@linkcode ServerStats.hookErrors} counts it. */
  onEvent?: ((event: ServerEvent) => void) | undefined;
  /**
   * How many connections there may be at a time. What happens to one more, `atCapacity` says.
   *
   * @default {10_000}
   */
  maxConnections?: number | undefined;
  /**
   * What happens to a connection past `maxConnections`: `reject` gives it an error line and closes it, `wait` leaves it
   * in the kernel until there is room.
   *
   * @default {"reject"}
   */
  atCapacity?: "reject" | "wait" | undefined;
  /**
   * How many connections one client may have at a time: one IPv4 address, or one IPv6 /64, whose addresses are all its
   * owner's. One more gets an error line and is closed.
   *
   * @default {Infinity}
   */
  maxConnectionsPerIp?: number | undefined;
  /**
   * The only addresses that are served, as in `["10.0.0.0/8", "::1"]`; others get an error line and are closed. Without
   * a list, or with `null`, all are. Peers without an IP address, as on a Unix socket, are not concerned.
   */
  allow?: readonly string[] | null | undefined;
  /**
   * Addresses that are not served, whatever `allow` says. Each connection is held against each entry, as with `allow`:
   * some 0.1 ms for a thousand. What has tens of thousands, such as the networks of a country, belongs in a firewall.
   */
  deny?: readonly string[] | null | undefined;
  /**
   * How many connections are accepted per second, and at once after a quiet second; past it, accepting waits. This alone
   * protects the machine and no client: one address that opens connections without end has all others wait.
   * `acceptRatePerIp` keeps it from that.
   *
   * @default {Infinity}
   */
  acceptRate?: number | undefined;
  /**
   * How many connections per second one client may open, and at once after a quiet second: one IPv4 address, or one IPv6
   * /64. One more is closed as soon as it is accepted, without an error line, and takes nothing of `acceptRate`. With
   * both set and this the smaller by far, one client cannot keep the others out. Under TLS and behind a proxy, it is asked
   * when the handshake is done or the header is there. Peers without an IP address, as on a Unix socket, are not
   * concerned.
   *
   * @default {Infinity}
   */
  acceptRatePerIp?: number | undefined;
  /**
   * How long a peer may be silent before the kernel asks whether it is still there, in milliseconds: it finds out about a
   * peer that has vanished, where no clock does because `idleTimeout` is off or a handler works. `Infinity` switches it
   * off. While the server waits for a peer, a shorter `idleTimeout` makes it needless. `listenEpoll` has an option of the same name, which is exact; Deno's sockets can only be told to ask, and do so
   * at the kernel's own times, which are 2 h on Linux if they were not changed.
   *
   * @default {15_000}
   */
  keepAliveMs?: number | undefined;
  /**
   * How many bytes of memory unfinished lines may take together, beyond the first 256 of each, and replies that their
   * peers have not taken for 250 ms, beyond the first 4 KiB of each. Past it the largest gives way and is closed, with
   * reason `memory`; its peer gets an error line, unless it has replies to read before that. Past half of it reads become
   * short, and while all replies under way take more, further lines wait. What TLS holds of a connection at rest, some
   * 100 KiB, is not counted.
   *
   * @default {134_217_728}
   */
  maxBufferedBytes?: number | undefined;
  /**
   * What a shutdown does with the connections that it finds.
   *
   * @default {"linger"}
   */
  drain?: DrainMode | undefined;
  /**
   * How long a shutdown waits for connections to end, in milliseconds; what is left then is aborted, with reason
   * `drain-timeout`. `Infinity` waits for ever.
   *
   * @default {10_000}
   */
  drainTimeout?: number | undefined;
  /**
   * The line that tells a peer which limit it met, without its end; `null` for none. The default is in the style of
   * `error: line longer than 65536 bytes`.
   *
   * @param reason Which limit.
   * @param limit Its value; 0 where it has none.
   */
  errorLine?: ((reason: ErrorLineReason, limit: number) => string | null) | undefined;
  /** Where time comes from: a test can put a clock here that it moves by hand. */
  clock?: Clock | undefined;
}

/** Options of {@linkcode Server.shutdown}; each defaults to the server's own. */
export interface ShutdownOptions {
  /** What to do with the connections that are there. */
  drain?: DrainMode | undefined;
  /** How long to wait for them, in milliseconds. */
  drainTimeout?: number | undefined;
}

/**
 * Checks what is not checked where it is used.
 *
 * @throws {RangeError | TypeError} If an option is wrong.
 */
export function checkServeOptions(options: ServeOptions): void {
  checkOptions("options", options);
  const {
    port = DEFAULT_PORT,
    maxBufferedBytes = Infinity,
    keepAliveMs = Infinity,
    drain = "linger",
    drainTimeout = 10_000,
  } = options;
  checkHostname(options.hostname);
  checkWhole("port", port, 0, 65_535);
  checkKeepAlive(keepAliveMs);
  checkWhole("maxBufferedBytes", maxBufferedBytes, 1, Infinity);
  checkDrain(drain, drainTimeout);
  checkListener(options.listener, true);
  checkMethods("signal", options.signal, "an AbortSignal", ["addEventListener", "removeEventListener"], true);
  checkClock(options.clock, true);
  for (const name of ["onListen", "onEvent", "errorLine"] as const) checkFunction(name, options[name], true);
}

/** What a peer is told unless the options say otherwise. */
export function defaultErrorLine(reason: ErrorLineReason, limit: number): string {
  switch (reason) {
    case "line-too-long":
      return `error: line longer than ${count(limit, "byte")}`;
    case "byte-limit":
      return `error: more than ${count(limit, "byte")} from one connection`;
    case "memory":
      return "error: too much unfinished input";
    case "max-connections":
      return `error: more than ${count(limit, "connection")}`;
    case "max-connections-per-ip":
      return `error: more than ${count(limit, "connection")} from one address`;
    case "denied":
      return "error: address not allowed";
  }
}

/** Checks how to shut down. */
export function checkDrain(drain: DrainMode, drainTimeout: number): void {
  checkWord("drain", drain, ["linger", "finish"]);
  checkTimeout("drainTimeout", drainTimeout);
}
