/**
 * Chooses what performs a handshake: an engine, or `node:tls` over a stream. The stream is for a Deno in which the
 * self-test of engines does not pass, and is to go when engines have been in one release.
 *
 * Other ways were tried, and are not fit for this:
 *
 * - `Deno.listenTls` is faster. But its `close()` frees nothing before the handshake is done or while the client does not
 *   read, replies wait 43 ms on TLS 1.2 and on resumed sessions, a certificate cannot be replaced, and clients cannot be
 *   asked for theirs.
 * - `tls.createServer` takes a connection that was cut for one that was ended, reads without bound, and lets sessions
 *   outlive the authority of their certificates.
 *
 * @module
 */

import type { TlsInfo, Transport } from "../../internal/api/transport.ts";
import { contextOf } from "./engine/engine.ts";
import { acceptOverEngine, connectOverEngine } from "./engine/handshake.ts";
import { engineForClients } from "./engine/self_test.ts";
import type { TlsWrapClass } from "./engine/wrap.ts";
import type { PeerVerifier } from "./peer/peer.ts";
import { acceptOverStream, type ClientSecurity, connectOverStream, type ServerSecurity } from "./streams/handshake.ts";

/** What an engine of a server needs. */
export interface ServerEngine {
  readonly Wrap: TlsWrapClass;
  readonly context: object;
}

/** What a server needs for a handshake. */
export interface Security extends ServerSecurity {
  /** What engines are made with; undefined if the self-test has not passed. */
  readonly engine: ServerEngine | undefined;
}

/**
 * Performs the server's side of a handshake.
 *
 * @param transport The client's connection; the caller closes it if this fails.
 * @param security What the server needs.
 * @returns The secure connection, which owns the transport.
 */
export function acceptTls(transport: Transport, security: Security): Promise<Transport & { readonly tls: TlsInfo }> {
  const { engine, clients, alpnProtocols } = security;
  if (engine === undefined) return acceptOverStream(transport, security);
  return acceptOverEngine(transport, engine.Wrap, { context: engine.context, alpnProtocols }, clients);
}

/**
 * Performs the client's side of a handshake.
 *
 * @param transport The connection to the server; the caller closes it if this fails.
 * @param security What the client needs.
 * @param verifier Verifies the server.
 * @returns The secure connection, which owns the transport.
 */
export function connectTls(
  transport: Transport,
  security: ClientSecurity,
  verifier: PeerVerifier,
): Promise<Transport & { readonly tls: TlsInfo }> {
  const { secureContext, serverName, alpnProtocols } = security;
  const Wrap = engineForClients();
  if (Wrap === undefined) return connectOverStream(transport, security, verifier);
  const options = { context: contextOf(secureContext, false), serverName: serverName ?? "", alpnProtocols };
  return connectOverEngine(transport, Wrap, options, verifier);
}
