/**
 * Ending a server whose sockets another process can go on with: systemd has them, or a process that takes over. What this
 * process has accepted from them no other process can serve, so it is served before the drain begins.
 *
 * @module
 */

import type { ShutdownReport } from "../../internal/api/events.ts";
import { resolveShutdown, type ServeOptions, type ShutdownOptions } from "../../internal/api/serve_options.ts";
import type { Listener } from "../../internal/api/transport.ts";
import type { Server } from "../../internal/server/running.ts";
import type { FdListener } from "../../ops/sockets/fd_listener.ts";
import type { Bound, ListenFlags } from "../serve/listen.ts";

/** Time in milliseconds between two looks at whether connections wait still. */
const LOOK_MS = 20;

/**
 * Maximum number of looks at a stop, which make a second. A number and no time: a machine that stalls delays the server as
 * well as the looks.
 */
const LAST_LOOKS = 50;

/** Time in milliseconds before the end of a delay at which the listeners are released: that of the looks. */
const LAST_MS = LAST_LOOKS * LOOK_MS;

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
 * @returns What ends it. With sockets that another process can go on with, connections that wait are served first, for a
 * second at most. After a delay, this is so on descriptors alone, in the delay's last second: the clients of a port that
 * no other process has would be refused from then on.
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
        const take = () => void release(bound).then(() => serveAccepted(server, LAST_LOOKS));
        Deno.unrefTimer(setTimeout(take, Math.max(0, delay - LAST_MS)));
      }
      return server.shutdown(options);
    }
    // Not awaited if nothing waits: the next request on the admin port must find that the server drains.
    const released = release(bound);
    if (!waits(server)) return server.shutdown(options);
    return released.then(() => serveAccepted(server, LAST_LOOKS)).then(() => server.shutdown(options));
  };
}

/** Takes no more connections from the kernel, where they wait for another process. */
export async function release(bound: readonly Bound[]): Promise<void> {
  for (const { listener } of bound) if (canShare(listener)) await listener.release();
}

/**
 * Waits until the server has got all connections that its listeners have accepted. A pause ends, and the limits that would
 * let them wait hold no more: their number is bounded by the listeners, and each has its descriptor already.
 *
 * @param server The server, whose listeners accept no more.
 * @param looks Maximum number of looks.
 */
export async function serveAccepted(server: LeavingServer, looks: number): Promise<void> {
  if (!waits(server)) return;
  server.resume();
  liftLimits(server);
  for (let left = looks; left > 0 && waits(server); left--) {
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
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
