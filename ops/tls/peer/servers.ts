/**
 * Verifies the certificate of a TLS server.
 *
 * @module
 */

import { X509Certificate } from "node:crypto";
import { escapeUnsafe } from "../../../internal/api/errors.ts";
import type { PeerCertificate } from "../../../internal/api/transport.ts";
import { datesProblem, infoOf } from "../certificates/certificate.ts";
import { type CertificateFields, SERVER_AUTH } from "../certificates/der.ts";
import { isSignedBy, isSignedByAny } from "./issuers.ts";
import { isFor } from "./names.ts";
import { fieldsOf, handleOf, NOT_VERSION_3, peerOf, type PeerVerifier, type VerifiedSocket } from "./peer.ts";

/**
 * Refuses a server whose certificate was not signed by one of the authorities, is not valid now, or is not for the name
 * that was asked for. `node:tls` verifies the signatures, and reports what it has found; it leaves the name to others.
 * What it does not verify in some cases (see `issuers.ts`) is verified here once more, if the authorities are known here.
 */
export class ServerVerifier implements PeerVerifier {
  readonly #name: string;
  readonly #authorities: readonly X509Certificate[] | undefined;
  #peer: PeerCertificate | undefined;

  /**
   * @param name The name or address of the server, as `canonicalName` returns it.
   * @param authorities The authorities to trust; undefined for Deno's own.
   */
  constructor(name: string, authorities: readonly X509Certificate[] | undefined) {
    this.#name = name;
    this.#authorities = authorities;
  }

  /** Refuses a server before this side answers with its own certificate. */
  checkEarly(socket: VerifiedSocket): void {
    if (this.#peer === undefined && socket.getPeerX509Certificate() !== undefined) this.check(socket);
  }

  check(socket: VerifiedSocket): PeerCertificate {
    if (this.#peer !== undefined) return this.#peer;
    const handle = handleOf(socket);
    const chain = handle.getPeerCertificateChain?.()?.certificates.map(parse) ?? [];
    const [own, ...above] = chain;
    // A resumed session has not been verified in this handshake. None is ever asked for; see `client.ts`.
    if (own === undefined || handle.verifyError === undefined || socket.isSessionReused()) {
      throw refusal("there is no way to verify it");
    }
    const fields = fieldsOf(own);
    if (fields === undefined) throw refusal("it is damaged");
    const problem = ownProblem(own, fields) ?? this.#chainProblem(own, above, handle.verifyError()) ??
      this.#nameProblem(fields);
    if (problem !== undefined) throw refusal(problem);
    return this.#peer = peerOf(own, fields, true);
  }

  #chainProblem(own: X509Certificate, above: X509Certificate[], code: string | undefined): string | undefined {
    if (!code && this.#isVerified(own, above)) return undefined;
    if (isSignedBy(own, own)) return `it is self-signed, and not one of ${this.#trusted}`;
    const expired = above.map((certificate) => datesProblem(infoOf(certificate))).find((problem) => problem);
    if (expired !== undefined) return `a certificate above its own ${expired}`;
    return `none of ${this.#trusted} has signed it${code ? `, ${code}` : ""}`;
  }

  /** Whether the chain is verified, given that `node:tls` has found nothing wrong. */
  #isVerified(own: X509Certificate, above: X509Certificate[]): boolean {
    if (this.#authorities !== undefined) return isSignedByAny(own, above, this.#authorities);
    return above.every((certificate) => fieldsOf(certificate)?.version3);
  }

  get #trusted(): string {
    return this.#authorities === undefined ? "the authorities that Deno trusts" : "the authorities in caCerts";
  }

  #nameProblem({ altNames }: CertificateFields): string | undefined {
    if (isFor(altNames, this.#name)) return undefined;
    // The server has chosen them, and the message may end up on a screen.
    const names = altNames.length === 0 ? "no name" : escapeUnsafe(altNames.slice(0, 10).join(", "));
    return `it is for ${names}, and not for ${this.#name}`;
  }
}

function parse(der: Uint8Array<ArrayBuffer>): X509Certificate {
  try {
    return new X509Certificate(der);
  } catch {
    throw refusal("it, or a certificate above it, is damaged");
  }
}

function ownProblem(own: X509Certificate, { version3, usages }: CertificateFields): string | undefined {
  const problem = datesProblem(infoOf(own));
  if (problem !== undefined) return `it ${problem}`;
  if (!version3) return `it ${NOT_VERSION_3}`;
  return usages?.includes(SERVER_AUTH) === false ? "its extended key usage is not server authentication" : undefined;
}

function refusal(problem: string): Error {
  return new Deno.errors.InvalidData(`The server's certificate is not valid (${problem})`);
}
