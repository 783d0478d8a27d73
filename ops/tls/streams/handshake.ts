/**
 * Handshakes over the streams of `node:tls`.
 *
 * @module
 */

import { connect, type SecureContext, TLSSocket } from "node:tls";
import type { TlsInfo, Transport } from "../../../internal/api/transport.ts";
import type { ClientVerifier } from "../peer/clients.ts";
import type { PeerVerifier } from "../peer/peer.ts";
import { TlsTransport } from "./transport.ts";

/** What a server needs for a handshake. */
export interface ServerSecurity {
  readonly secureContext: SecureContext;
  /** Verifies the client's certificate; without it, the client is not asked for one. */
  readonly clients?: ClientVerifier | undefined;
  /** The protocols that the server speaks, the one that it prefers first; undefined for no choice. */
  readonly alpnProtocols?: readonly string[] | undefined;
}

/** What a client needs for a handshake. */
export interface ClientSecurity {
  readonly secureContext: SecureContext;
  /** The name to ask for; undefined to ask for none. */
  readonly serverName: string | undefined;
  readonly alpnProtocols: readonly string[] | undefined;
}

/**
 * Performs the server's side of a handshake.
 *
 * @param transport The client's connection; the caller closes it if this fails.
 * @param security What the server needs.
 * @returns The secure connection, which owns the transport.
 */
export function acceptOverStream(
  transport: Transport,
  { secureContext, clients, alpnProtocols }: ServerSecurity,
): Promise<Transport & { readonly tls: TlsInfo }> {
  return TlsTransport.open(transport, (wire) =>
    new TLSSocket(wire, {
      isServer: true,
      secureContext,
      requestCert: clients !== undefined,
      rejectUnauthorized: clients?.required !== false,
      ...(alpnProtocols === undefined ? {} : { ALPNProtocols: [...alpnProtocols] }),
    }), clients);
}

/** The same for the client's side, to a server. */
export function connectOverStream(
  transport: Transport,
  { secureContext, serverName, alpnProtocols }: ClientSecurity,
  verifier: PeerVerifier,
): Promise<Transport & { readonly tls: TlsInfo }> {
  return TlsTransport.open(transport, (socket) =>
    connect({
      socket,
      secureContext,
      ...(serverName === undefined ? {} : { servername: serverName }),
      ...(alpnProtocols === undefined ? {} : { ALPNProtocols: [...alpnProtocols] }),
      // Both are done by the verifier, which can say what is wrong.
      rejectUnauthorized: false,
      checkServerIdentity: () => undefined,
    }), verifier);
}
