/**
 * Verifies the certificates of a TLS listener's clients.
 *
 * @module
 */

import { X509Certificate } from "node:crypto";
import type { PeerCertificate } from "../../../internal/api/transport.ts";
import { datesProblem, infoOf } from "../certificates/certificate.ts";
import { CLIENT_AUTH } from "../certificates/der.ts";
import { fieldsOf, handleOf, NOT_VERSION_3, peerOf, type PeerVerifier, type VerifiedSocket } from "./peer.ts";

/**
 * Maximum number of verified client certificates that are remembered for resumed sessions. Beyond it, the one that was
 * verified longest ago is forgotten, and a session that resumes with it is refused.
 */
const MAX_VERIFIED = 10_000;

/**
 * Verifies that a client's certificate was signed by one of the authorities, and refuses the client otherwise if a valid
 * certificate is required. `node:tls` verifies certificates, but only its `tls.Server`, which is not used here, refuses
 * clients.
 *
 * A resumed session carries its certificate unverified, and even a refused handshake may have begun the session: all TLS
 * contexts of a process share the key of their session tickets, and tickets cannot be switched off. So a resumed session
 * counts as verified only if its certificate was verified here in a full handshake before, and is still valid.
 *
 * A certificate of X.509 version 1 is refused in any case: `node:tls` does not check whether such a client has the
 * certificate's key.
 */
export class ClientVerifier implements PeerVerifier {
  /** The fingerprints of the authorities' certificates. */
  readonly #authorities: ReadonlySet<string>;
  /** When each verified certificate's chain expires, in milliseconds since 1970, by the certificate's fingerprint. */
  #verified = new Map<string, number>();
  /** Whether clients without a valid certificate are refused. */
  readonly required: boolean;

  /**
   * @param authorities The certificates of the authorities.
   * @param required Whether clients without a valid certificate are refused.
   */
  constructor(authorities: readonly X509Certificate[], required = true) {
    this.#authorities = new Set(authorities.map(({ fingerprint256 }) => fingerprint256));
    this.required = required;
  }

  /**
   * Takes over the certificates that the previous verifier has verified, unless it trusted an authority that this one
   * does not.
   *
   * @param before The previous verifier, if there was one.
   */
  inherit(before: ClientVerifier | undefined): void {
    if (before === undefined || !before.#authorities.isSubsetOf(this.#authorities)) return;
    // The map is shared: handshakes that began with the previous verifier may still add to it.
    this.#verified = before.#verified;
  }

  /** Refuses a certificate as soon as it is known to be invalid: a session that has not begun cannot be resumed. */
  checkEarly(socket: VerifiedSocket): void {
    const code = this.required ? handleOf(socket).verifyError?.() : "";
    const certificate = code ? socket.getPeerX509Certificate() : undefined;
    if (certificate !== undefined) throw refusal(problemOf(certificate, code!));
  }

  check(socket: VerifiedSocket): PeerCertificate | undefined {
    const certificate = socket.getPeerX509Certificate();
    if (certificate === undefined) {
      if (this.required) throw refusal(socket.isSessionReused() ? UNVERIFIED_SESSION : "it has sent none");
      return undefined;
    }
    const fields = fieldsOf(certificate);
    if (fields?.version3 !== true) throw refusal(fields === undefined ? "it is damaged" : `it ${NOT_VERSION_3}`);
    const problem = this.#problemOf(socket, certificate);
    if (problem !== undefined && this.required) throw refusal(problem);
    return peerOf(certificate, fields, problem === undefined);
  }

  /** Says why a certificate is not valid; remembers it if it is. */
  #problemOf(socket: VerifiedSocket, certificate: X509Certificate): string | undefined {
    if (socket.isSessionReused()) return this.#resumedProblem(certificate);
    const { verifyError, getPeerCertificateChain } = handleOf(socket);
    if (verifyError === undefined) return "there is no way to verify it";
    const code = verifyError.call(handleOf(socket));
    const problem = code ? problemOf(certificate, code) : ownDatesProblem(certificate);
    if (problem === undefined) {
      this.#remember(certificate, getPeerCertificateChain?.call(handleOf(socket))?.certificates ?? []);
    }
    return problem;
  }

  /** Checks a resumed session. `verifyError` says nothing about it: its certificate has not been verified again. */
  #resumedProblem(certificate: X509Certificate): string | undefined {
    const until = this.#verified.get(certificate.fingerprint256);
    if (until === undefined) return UNVERIFIED_SESSION;
    const problem = ownDatesProblem(certificate);
    if (problem !== undefined) return problem;
    return Date.now() > until ? "it resumes a session, and a certificate above its own has expired since" : undefined;
  }

  #remember({ fingerprint256 }: X509Certificate, chain: readonly Uint8Array<ArrayBuffer>[]): void {
    const until = expiryOf(chain);
    // Added again at the end of the map: its order is that of the verifications.
    this.#verified.delete(fingerprint256);
    if (until === undefined) return;
    this.#verified.set(fingerprint256, until);
    if (this.#verified.size > MAX_VERIFIED) this.#verified.delete(this.#verified.keys().next().value!);
  }
}

const UNVERIFIED_SESSION = "it resumes a session without a certificate that was verified before";

function ownDatesProblem(certificate: X509Certificate): string | undefined {
  const problem = datesProblem(infoOf(certificate));
  return problem && `it ${problem}`;
}

/**
 * When the first of the certificates that are valid now expires, in milliseconds since 1970. Invalid ones are left out:
 * the verification cannot have used them. `undefined` if none is valid, or one cannot be read.
 */
function expiryOf(chain: readonly Uint8Array<ArrayBuffer>[]): number | undefined {
  try {
    const holding = chain.map((der) => infoOf(new X509Certificate(der))).filter((info) => !datesProblem(info));
    return holding.length === 0 ? undefined : Math.min(...holding.map(({ validTo }) => validTo.getTime()));
  } catch {
    return undefined;
  }
}

/** Words the problem. For several problems `node:tls` has the same code as for an unknown authority. */
function problemOf(certificate: X509Certificate, code: string): string {
  const problem = ownDatesProblem(certificate);
  if (problem !== undefined) return problem;
  const fields = fieldsOf(certificate);
  if (fields?.version3 === false) return `it ${NOT_VERSION_3}`;
  if (fields?.usages?.includes(CLIENT_AUTH) === false) return "its extended key usage is not client authentication";
  if (certificate.ca) return "it is the certificate of an authority, not of a client";
  return `no authority in clientCa has signed it, ${code}`;
}

function refusal(problem: string): Error {
  return new Error(`The client's certificate is not valid (${problem})`);
}
