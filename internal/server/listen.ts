/**
 * Listens on TCP with Deno's sockets.
 *
 * @module
 */

import { prefixed } from "../api/errors.ts";
import { formatAddr } from "../api/transport.ts";

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
