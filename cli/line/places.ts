/**
 * The places where the server listens.
 *
 * @module
 */

import { type Descriptor, FIRST_FD } from "../flags/descriptors.ts";
import type { SERVE } from "../flags/flags.ts";
import type { Values } from "./parse.ts";

/** One place to listen at: a port, a Unix socket, or a descriptor of either. */
export interface Place {
  readonly port?: number;
  readonly unix?: string;
  readonly fd?: number;
  readonly tls: boolean;
}

/** The values of the flags that name places. */
export type PlaceFlags = Pick<Values<typeof SERVE.flags>, "port" | "tlsPort" | "unix" | "tlsCert" | "listenFd">;

/** Stands for the descriptors of systemd, before their number is known. */
const UNKNOWN: readonly Descriptor[] = [{ fd: FIRST_FD, tls: false }];

/**
 * The places that the flags name. Without a port for TLS alone, a certificate makes every place speak TLS: no place is left
 * open by mistake.
 *
 * @param flags The flags' values.
 * @param given The options that the user has set.
 */
export function placesOf(
  { port, tlsPort, unix, tlsCert, listenFd }: PlaceFlags,
  given: ReadonlySet<string>,
): Place[] {
  if (listenFd !== null) {
    const descriptors = listenFd === "systemd" ? UNKNOWN : listenFd;
    const all = tlsCert !== null && !descriptors.some(({ tls }) => tls);
    return descriptors.map(({ fd, tls }) => ({ fd, tls: tls || all }));
  }
  const tls = tlsCert !== null && tlsPort === null;
  const places: Place[] = [];
  if (given.has("port") || unix === null && tlsPort === null) places.push({ port, tls });
  if (tlsPort !== null) places.push({ port: tlsPort, tls: true });
  if (unix !== null) places.push({ unix, tls });
  return places;
}

/** Whether the place may be a TCP port. The kind of a descriptor's socket is known only when it is used. */
export function isTcp({ unix }: Place): boolean {
  return unix === undefined;
}

/** Whether a peer at a place can be on the list of proxies. */
export function canProxy(proxies: readonly string[], place: Place): boolean {
  return place.fd !== undefined || isProxied(proxies, isTcp(place));
}

/**
 * Whether a peer of a TCP socket, or of a Unix socket, can be on the list of proxies: on a Unix socket peers have no
 * address, so only the word `unix` is for them.
 */
export function isProxied(proxies: readonly string[], isTcp: boolean): boolean {
  return proxies.some((proxy) => (proxy.trim() === "unix") !== isTcp);
}
