/**
 * What the two verifiers of certificates, of clients and of servers, have in common.
 *
 * @module
 */

import type { X509Certificate } from "node:crypto";
import type { PeerCertificate } from "../../../internal/api/transport.ts";
import { type CertificateFields, readCertificate } from "../certificates/der.ts";

/** What a verifier asks about a connection: a `TLSSocket`, or an engine. */
export interface VerifiedSocket {
  /** Whether the handshake has resumed a session. */
  isSessionReused(): boolean;
  /** The peer's certificate; undefined if it has sent none, or none yet. */
  getPeerX509Certificate(): X509Certificate | undefined;
}

/** Verifies the peer of a TLS connection. */
export interface PeerVerifier {
  /**
   * Refuses a peer before the handshake is finished, if its certificate is known by then.
   *
   * @param socket The TLS connection, after each record of its handshake.
   * @throws {Error} If the peer is refused.
   */
  checkEarly(socket: VerifiedSocket): void;
  /**
   * Accepts or refuses the peer at the end of the handshake.
   *
   * @param socket The TLS connection, before it sends anything that follows the handshake, such as session tickets.
   * @returns The peer's certificate, if it has shown one.
   * @throws {Error} If the peer is refused.
   */
  check(socket: VerifiedSocket): PeerCertificate | undefined;
}

/** The object beneath a `TLSSocket`, which `node:tls` does not declare. */
export interface Handle {
  /** A code such as `CERT_HAS_EXPIRED` once the peer's certificate was found invalid; empty otherwise. */
  verifyError?(): string | undefined;
  /** The certificates that the peer has sent, in DER, its own first. */
  getPeerCertificateChain?(): { readonly certificates: readonly Uint8Array<ArrayBuffer>[] } | null;
}

/** The object beneath a socket. */
export function handleOf(socket: VerifiedSocket): Handle {
  return (socket as VerifiedSocket & { ssl?: Handle }).ssl ?? {};
}

/** What is wrong with a certificate that is not of X.509 version 3, to be read after "it". */
export const NOT_VERSION_3 = "is of X.509 version 1, and version 3 is required";

/** Reads the fields of a certificate; `undefined` if its encoding is damaged. */
export function fieldsOf({ raw }: X509Certificate): CertificateFields | undefined {
  try {
    return readCertificate(raw);
  } catch {
    return undefined;
  }
}

/** Says who the peer is. */
export function peerOf(
  { fingerprint256 }: X509Certificate,
  { subject, altNames }: CertificateFields,
  verified: boolean,
): PeerCertificate {
  return Object.freeze({ subject, altNames: Object.freeze([...altNames]), fingerprint256, verified });
}
