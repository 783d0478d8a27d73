/**
 * Ends a server whose listening sockets another process has too: systemd, or the process that takes over. A connection
 * that this process has accepted can be served by no other process, so it is served before the drain begins.
 *
 * @module
 */

import type { ShutdownReport } from "../../internal/api/events.ts";
import { resolveShutdown, type ServeOptions, type ShutdownOptions } from "../../internal/api/serve_options.ts";
import type { Listener } from "../../internal/api/transport.ts";
import type { Server } from "../../internal/server/running.ts";
import type { FdListener } from "../../ops/sockets/fd_listener.ts";
import type { Bound, ListenFlags } from "../serve/listen.ts";

/** Time in milliseconds between two checks whether accepted connections still wait for the server. */
const CHECK_MS = 20;

/**
 * Maximum number of these checks before a shutdown: together they take a second. A number, not a time: a machine that
 * stalls delays the server as much as the checks.
 */
const LAST_CHECKS = 50;

/** Time in milliseconds between the release of the listeners and the end of a delay: the checks fit into it. */
const LAST_MS = LAST_CHECKS * CHECK_MS;

/** What the end of a server uses. */
export type LeavingServer = Pick<
  Server,
  "state" | "paused" | "limits" | "stats" | "resume" | "setLimits" | "shutdown"
>;

/** Begins the end of a server, as {@linkcode Server.shutdown} does. */
export type Shutdown = (options?: ShutdownOptions) => Promise<ShutdownReport>;

/** Whether another process can go on with a listener's socket. */
export function canShare(listener: Listener): listener is FdListener {
  return "inherit" in listener;
}

/**
 * Makes what ends a server.
 *
 * @param server The server.
 * @param bound Its listening sockets, without what is around them.
 * @param defaults The server's own options about a shutdown, and the descriptors that it has got.
 * @returns What ends it. If another process can go on with a socket, the server first releases its sockets, and serves
 * the connections that it has accepted, for a second at most. With a delay it does so in the delay's last second, and
 * only if its sockets came as descriptors: otherwise no process has the port from the release on, and clients are refused.
 */
export function shutdownOf(
  server: LeavingServer,
  bound: readonly Bound[],
  defaults:
    & Pick<ServeOptions, "drain" | "drainTimeout" | "drainDelay" | "drainSpread">
    & Pick<ListenFlags, "listenFd">,
): Shutdown {
  if (!bound.some(({ listener }) => canShare(listener))) return (options) => server.shutdown(options);
  return (options = {}) => {
    // Throws at once if an option is wrong, as the server does.
    const { delay } = resolveShutdown(options, defaults, true);
    if (delay > 0) {
      if (defaults.listenFd !== null) {
        const take = () => void release(bound).then(() => serveAccepted(server, LAST_CHECKS));
        Deno.unrefTimer(setTimeout(take, Math.max(0, delay - LAST_MS)));
      }
      return server.shutdown(options);
    }
    // Not awaited if nothing waits: the next request on the admin port must find that the server drains.
    const released = release(bound);
    if (!waits(server)) return server.shutdown(options);
    return released.then(() => serveAccepted(server, LAST_CHECKS)).then(() => server.shutdown(options));
  };
}

/** Takes no more connections from the kernel, where they wait for another process. */
export async function release(bound: readonly Bound[]): Promise<void> {
  for (const { listener } of bound) if (canShare(listener)) await listener.release();
}

/**
 * Waits until the server has got all connections that its listeners have accepted. It ends a pause, and lifts the
 * limits that make connections wait: the listeners bound the number of these, and each has its descriptor already.
 *
 * @param server The server, whose listeners accept no more.
 * @param checks Maximum number of checks.
 */
export async function serveAccepted(server: LeavingServer, checks: number): Promise<void> {
  if (!waits(server)) return;
  server.resume();
  liftLimits(server);
  for (let left = checks; left > 0 && waits(server); left--) {
    await new Promise((resolve) => setTimeout(resolve, CHECK_MS));
  }
}

/** Whether the server accepts connections, and one of them waits. */
function waits(server: LeavingServer): boolean {
  return (server.state === "listening" || server.state === "lame-duck") && server.stats().queued > 0;
}

function liftLimits(server: LeavingServer): void {
  const { atCapacity, maxConnections, acceptRate } = server.limits;
  const lifted = {
    ...(atCapacity === "wait" && maxConnections !== Infinity && { maxConnections: Infinity }),
    ...(acceptRate !== Infinity && { acceptRate: Infinity }),
  };
  if (Object.keys(lifted).length > 0) server.setLimits(lifted);
}
