/**
 * A running server, as its caller sees it.
 *
 * @module
 */

import type { ShutdownReport } from "../api/events.ts";
import type { Conn } from "../api/handlers.ts";
import type { ServerLimits, ShutdownOptions } from "../api/serve_options.ts";
import type { ServerStats } from "./counters.ts";

/**
 * The states of a server, in their order; it never goes back. In `lame-duck`, a shutdown with a delay has begun, and the
 * server still accepts connections.
 */
export type ServerState = "listening" | "lame-duck" | "draining" | "closed";

/** A running server; the type of its address is known unless it has listeners of its own. */
export interface Server<Data = undefined, Addr extends Deno.Addr = Deno.Addr> extends AsyncDisposable {
  /** The address on which it listens, with the port that was bound; with several listeners, that of the first. */
  readonly addr: Addr;
  /** The addresses on which it listens, in the order of its listeners. */
  readonly addrs: readonly Deno.Addr[];
  /** The current state. */
  readonly state: ServerState;
  /**
   * Resolves when the server is closed. If a listener has failed and cannot recover, it rejects at once, while the
   * connections are still drained: {@linkcode shutdown} joins that drain.
   */
  readonly finished: Promise<void>;
  /**
   * The open connections, in no particular order, also those that are about to end. Each iteration visits those that are
   * open then, but for one whose `data` is not made yet, or could not be made.
   */
  readonly connections: Iterable<Conn<Data>>;
  /** Whether it accepts no connections for now; see {@linkcode pause}. */
  readonly paused: boolean;
  /** The limits that hold now: those of admission, and those of connections that will be accepted. */
  readonly limits: Readonly<ServerLimits>;
  /** Returns the counters so far. */
  stats(): ServerStats;
  /**
   * Writes to all open connections, as `conn.write` does. A peer that takes too little is cut off by its
   * `maxQueuedBytes` and `writeTimeout`, and holds up no other. A text with a character above U+00FF is not
   * sent to connections whose `framing.encoding` is `latin1`; nothing is thrown then.
   *
   * @param data The text or bytes; no line end is added.
   * @param options A connection that is left out, such as that of the sender.
   * @throws {TypeError} If the data is neither text nor bytes.
   */
  broadcast(data: string | Uint8Array, options?: { except?: Conn<Data> | undefined }): void;
  /**
   * Accepts no more connections until {@linkcode resume}. The port stays bound: the kernel completes connections up to
   * its backlog, and they wait there; each listener may have accepted one more, which waits unread. Under TLS and behind
   * a proxy, handshakes and headers that had begun are finished first, and these connections wait, too. Open connections
   * go on, and the paused server keeps the process alive. A shutdown ends the pause.
   */
  pause(): void;
  /** Accepts connections again after {@linkcode pause}. */
  resume(): void;
  /**
   * Changes limits. Those of admission hold from now on; no open connection is ended for them. Those of connections hold
   * for the next ones: `conn.setLimits` changes an open one.
   *
   * @param limits What changes; the other limits stay as they are.
   * @throws {RangeError | TypeError} If a limit is wrong; nothing has changed then.
   */
  setLimits(limits: ServerLimits): void;
  /**
   * Stops accepting, at once or after a delay, and ends the connections. A later call can only make the first one faster:
   * it can turn `linger` into `finish`, bring the deadline forward, or shorten the delay; without a spread, it leaves that
   * of the first call. A handler may call it, but must not await it: the shutdown waits for the handler.
   *
   * @param options How to drain, and how long at most.
   * @returns How the connections ended; every port is free again when it resolves, but for that of a custom listener that
   * has not closed a second after the deadline: `listenersLeft` counts those.
   * @throws {RangeError | TypeError} If an option is wrong. This is thrown at once, and is no rejection.
   */
  shutdown(options?: ShutdownOptions): Promise<ShutdownReport>;
  /** Keeps the process alive while the server runs; this is the default. */
  ref(): void;
  /** Lets the process exit while the server runs. */
  unref(): void;
}
