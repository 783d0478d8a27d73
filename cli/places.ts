/**
 * The places where the server listens.
 *
 * @module
 */

import type { SERVE } from "./flags.ts";
import type { Values } from "./parse.ts";

/** One place to listen at: a port, or a Unix socket. */
export interface Place {
  readonly port?: number;
  readonly unix?: string;
  readonly tls: boolean;
}

/**
 * The places that the flags name. Without a port for TLS alone, a certificate makes every place speak TLS: no place is left
 * open by mistake.
 *
 * @param flags The flags' values.
 * @param given The options that the user has set.
 */
export function placesOf(
  { port, tlsPort, unix, tlsCert }: Pick<Values<typeof SERVE.flags>, "port" | "tlsPort" | "unix" | "tlsCert">,
  given: ReadonlySet<string>,
): Place[] {
  const tls = tlsCert !== null && tlsPort === null;
  const places: Place[] = [];
  if (given.has("port") || unix === null && tlsPort === null) places.push({ port, tls });
  if (tlsPort !== null) places.push({ port: tlsPort, tls: true });
  if (unix !== null) places.push({ unix, tls });
  return places;
}

/** Whether it is a port. */
export function isTcp({ unix }: Place): boolean {
  return unix === undefined;
}

/** Whether a peer there can be on the list: on a Unix socket peers have no address, and on TCP each has one. */
export function canProxy(proxies: readonly string[], place: Place): boolean {
  return proxies.some((proxy) => (proxy.trim() === "unix") !== isTcp(place));
}
