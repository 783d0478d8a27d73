/**
 * The numbers of connections that are unique in more than one server.
 *
 * @module
 */

import type { Transport } from "../api/transport.ts";

const numbers = new WeakMap<Transport, number>();

/**
 * Sets the number that a connection has as its `id`. Several servers that are one to the outside number their
 * connections together; a server by itself counts its own.
 *
 * @param transport The transport that a listener is about to return.
 * @param id The number.
 */
export function setNumber(transport: Transport, id: number): void {
  numbers.set(transport, id);
}

/** Returns the number that was set for a connection, if any. */
export function numberOf(transport: Transport): number | undefined {
  return numbers.get(transport);
}
