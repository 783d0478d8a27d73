/**
 * Verifies the certificates of a TLS listener's clients.
 *
 * @module
 */

import { X509Certificate } from "node:crypto";
import type { TLSSocket } from "node:tls";
import { datesProblem, infoOf } from "./certificate.ts";

/**
 * Maximum number of verified client certificates that are remembered for resumed sessions. Beyond it, the one that was
 * verified longest ago is forgotten, and a session that resumes with it is refused.
 */
const MAX_VERIFIED = 10_000;

/** The object beneath a `TLSSocket`, which `node:tls` does not declare. */
interface Handle {
  /** A code such as `CERT_HAS_EXPIRED` once the client's certificate was found invalid; empty otherwise. */
  verifyError?(): string | undefined;
  /** The certificates that the client has sent, in DER, its own first. */
  getPeerCertificateChain?(): { readonly certificates: readonly Uint8Array<ArrayBuffer>[] } | null;
}

/**
 * Refuses clients whose certificate was not signed by one of the authorities. `node:tls` verifies certificates, but only
 * its `tls.Server`, which is not used here, refuses clients.
 *
 * A resumed session carries its certificate unverified, and even a refused handshake may have begun the session: all TLS
 * contexts of a process share the key of their session tickets, and tickets cannot be switched off. So a resumed session
 * is accepted only if its certificate was verified here in a full handshake before, and is still valid.
 */
export class ClientVerifier {
  /** The fingerprints of the authorities' certificates. */
  readonly #authorities: ReadonlySet<string>;
  /** When each verified certificate's chain expires, in milliseconds since 1970, by the certificate's fingerprint. */
  #verified = new Map<string, number>();

  /** @param authorities The certificates of the authorities. */
  constructor(authorities: readonly X509Certificate[]) {
    this.#authorities = new Set(authorities.map(({ fingerprint256 }) => fingerprint256));
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

  /**
   * Refuses a certificate as soon as it is known to be invalid: a session whose handshake is not finished cannot be
   * resumed.
   *
   * @param socket The TLS socket, during its handshake.
   * @throws {Error} If the client's certificate is invalid.
   */
  checkEarly(socket: TLSSocket): void {
    const code = handleOf(socket).verifyError?.();
    const certificate = code ? socket.getPeerX509Certificate() : undefined;
    if (certificate !== undefined) throw refusal(problemOf(certificate, code!));
  }

  /**
   * Accepts or refuses a client at the end of its handshake.
   *
   * @param socket The TLS socket, before it sends anything that follows the handshake, such as session tickets.
   * @throws {Error} If the client's certificate is invalid.
   */
  check(socket: TLSSocket): void {
    const handle = handleOf(socket);
    const certificate = socket.getPeerX509Certificate();
    if (socket.isSessionReused()) return this.#checkResumed(certificate);
    if (handle.verifyError === undefined || certificate === undefined) {
      throw new Error("Cannot verify the client's certificate");
    }
    const code = handle.verifyError();
    if (code) throw refusal(problemOf(certificate, code));
    this.#remember(certificate, handle.getPeerCertificateChain?.()?.certificates ?? []);
  }

  /** Checks a resumed session. `verifyError` says nothing about it: its certificate has not been verified again. */
  #checkResumed(certificate: X509Certificate | undefined): void {
    const until = certificate && this.#verified.get(certificate.fingerprint256);
    if (until === undefined) throw refusal("it resumes a session without a certificate that was verified before");
    const problem = datesProblem(infoOf(certificate!));
    if (problem !== undefined) throw refusal(`it ${problem}`);
    if (Date.now() > until) throw refusal("it resumes a session, and a certificate above its own has expired since");
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

function handleOf(socket: TLSSocket): Handle {
  return (socket as TLSSocket & { ssl?: Handle }).ssl ?? {};
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
  const problem = datesProblem(infoOf(certificate));
  if (problem !== undefined) return `it ${problem}`;
  if (!hasVersion(certificate.raw)) return "it is of X.509 version 1, and version 3 is required";
  if (isForOtherUse(certificate.raw)) return "its extended key usage is not client authentication";
  if (certificate.ca) return "it is the certificate of an authority, not of a client";
  return `no authority in clientCa has signed it, ${code}`;
}

/**
 * Whether a certificate states its version, as all do except those of version 1. In DER, the version is the first field,
 * with its own tag, behind the headers of the two sequences that contain it.
 */
function hasVersion(der: Uint8Array): boolean {
  let at = 0;
  for (let depth = 0; depth < 2; depth++) at += 2 + (der[at + 1] < 0x80 ? 0 : der[at + 1] & 0x7f);
  return der[at] === 0xa0;
}

/**
 * Whether a certificate has an extended key usage without client authentication. Searches for the DER of the two object
 * identifiers anywhere in it, which is exact enough to word a refusal.
 */
function isForOtherUse(der: Uint8Array): boolean {
  const text = new TextDecoder("latin1").decode(der);
  return text.includes("\x06\x03\x55\x1d\x25") && !text.includes("\x2b\x06\x01\x05\x05\x07\x03\x02");
}

function refusal(problem: string): Error {
  return new Error(`The client's certificate is not valid (${problem})`);
}
