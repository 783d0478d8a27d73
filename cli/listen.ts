/**
 * Where the server's connections come from, as the flags say.
 *
 * @module
 */

import type { Listener } from "../internal/transport.ts";
import { proxyProtocol } from "../ops/proxy_protocol.ts";
import type { SERVE } from "./flags.ts";
import type { Values } from "./parse.ts";

/** The flags about it. */
export type Listening = Pick<
  Values<typeof SERVE.flags>,
  "hostname" | "port" | "proxyProtocol" | "proxyHeaderTimeout"
>;

/**
 * Listens, where that takes more than the server does by itself.
 *
 * @param flags What the flags say.
 * @returns The listener, or `undefined` where the server's own will do.
 */
export function openListener(flags: Listening): Listener | undefined {
  const { hostname, port, proxyProtocol: from, proxyHeaderTimeout: headerTimeout } = flags;
  return from === null ? undefined : proxyProtocol(Deno.listen({ hostname, port }), { from, headerTimeout });
}
