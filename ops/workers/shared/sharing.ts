/**
 * One port for several workers: they share one socket, so whichever worker has time accepts the next connection.
 *
 * No option makes the kernel share the port with other sockets (`SO_REUSEPORT`). So a port that another socket has is
 * refused, as for any server, and what the kernel has completed waits for another worker when one crashes.
 *
 * On `epoll`, each worker accepts from the descriptor, which is the process's. Deno's sockets are each an isolate's; with
 * the option `loadBalanced`, which Deno does not document, `Deno.listen` gives several isolates the same socket.
 *
 * @module
 */

import { listenTcp } from "../../../internal/server/listen.ts";
import { shareEpoll } from "../../epoll/epoll.ts";
import type { Engine, Place } from "./wire.ts";

/** A place that workers share. */
export interface SharedPlace {
  readonly place: Place;
  /** Closes the socket here. It goes on listening until the last worker has closed it, too. */
  close(): void;
}

/** Number of connections by which {@linkcode sharingProblem} tries sockets, and the time that each may take. */
const TRIES = 8;
const TRY_MS = 5000;

/** Number of ports that are tried, if any will do: another process may take one before it is bound again. */
const PORTS = 10;

/**
 * Tries whether each of several sockets of Deno's can accept all connections to one port.
 *
 * @returns Why not; `undefined` if they can.
 */
export async function sharingProblem(): Promise<string | undefined> {
  const hostname = "127.0.0.1";
  const { state } = await Deno.permissions.query({ name: "net", host: hostname });
  if (state !== "granted") return `no permission to try it, which --allow-net=${hostname} grants`;
  const listeners: Deno.Listener[] = [];
  try {
    // The first accepts nothing, as that of the main isolate.
    listeners.push(bindFree(hostname));
    const { port } = listeners[0].addr as Deno.NetAddr;
    for (let i = 0; i < 2; i++) listeners.push(listenBalanced({ hostname, port }));
    for (let i = 0; i < TRIES; i++) await tryOne(listeners[1 + i % 2], { hostname, port });
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  } finally {
    for (const listener of listeners) listener.close();
  }
}

async function tryOne(listener: Deno.Listener, place: Place): Promise<void> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error("a connection went to another socket")), TRY_MS);
  try {
    using _client = await Deno.connect(place);
    using _conn = await Promise.race([listener.accept(), late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** Binds one of several sockets on the same port, which must not be 0: all sockets with port 0 would get one port. */
export function listenBalanced({ hostname, port }: Place): Deno.Listener {
  return listenTcp({ hostname, port, loadBalanced: true } as Deno.TcpListenOptions & Place);
}

/**
 * Binds the port that the workers share. It stays bound here while some of them, or all, are being restarted.
 *
 * @param place The address and the port; 0 picks a free one.
 * @param engine The sockets.
 * @param keepAliveMs TCP keep-alive, for `epoll`.
 * @returns The place, with a real port.
 * @throws {Deno.errors.AddrInUse} If another socket has the port, also one that would share it.
 */
export function sharePlace(place: Place, engine: Engine, keepAliveMs: number): SharedPlace {
  if (engine === "epoll") {
    const { addr: { hostname, port }, fd, close } = shareEpoll({ ...place, keepAliveMs });
    return { place: { hostname, port, fd }, close };
  }
  const listener = place.port === 0 ? bindFree(place.hostname) : bindFirst(place);
  return { place: placeOf(listener), close: () => listener.close() };
}

/**
 * Finds the place for one worker alone.
 *
 * @param place The address and the port; 0 picks a free one.
 * @returns The place, with a real port, which is free again.
 * @throws {Deno.errors.AddrInUse} If another socket has the port.
 */
export function findPlace({ hostname, port }: Place): SharedPlace {
  using listener = listenTcp({ hostname, port });
  return { place: placeOf(listener), close: () => {} };
}

/** Binds a port that no other socket has, also none of this process that would share it. */
function bindFirst(place: Place): Deno.Listener {
  const first = findPlace(place);
  return listenBalanced(first.place);
}

function bindFree(hostname: string): Deno.Listener {
  for (let left = PORTS;; left--) {
    try {
      return bindFirst({ hostname, port: 0 });
    } catch (error) {
      if (left === 0 || !(error instanceof Deno.errors.AddrInUse)) throw error;
    }
  }
}

function placeOf(listener: Deno.Listener): Place {
  const { hostname, port } = listener.addr as Deno.NetAddr;
  return { hostname, port };
}
