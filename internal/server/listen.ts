/**
 * Listens on TCP with Deno's sockets.
 *
 * @module
 */

import { DEFAULT_HOSTNAME, DEFAULT_PORT } from "../api/check.ts";
import { prefixed } from "../api/errors.ts";
import type { ServeOptions } from "../api/serve_options.ts";
import { formatAddr, type Listener } from "../api/transport.ts";

/** Where a server listens, among its options. */
type Where = Pick<ServeOptions, "listener" | "hostname" | "port">;

/** Returns the listeners of a server: those of its options, or one on TCP that is made here. */
export function listenersOf({ listener, hostname = DEFAULT_HOSTNAME, port = DEFAULT_PORT }: Where): Listener[] {
  return [listener ?? listenTcp({ hostname, port })].flat();
}

/**
 * Listens as `Deno.listen` does, whose errors do not say where: of several servers in a program, one could not be told from
 * another.
 *
 * @param options Where to listen.
 * @returns The listener.
 * @throws What `Deno.listen` throws, with the address.
 */
export function listenTcp(options: Deno.TcpListenOptions & { hostname: string; port: number }): Deno.TcpListener {
  try {
    return Deno.listen(options);
  } catch (error) {
    throw prefixed(`Cannot listen on ${formatAddr({ transport: "tcp", ...options })}`, error);
  }
}
