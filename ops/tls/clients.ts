/**
 * The clients of a TLS listener that have to show a certificate.
 *
 * @module
 */

import { X509Certificate } from "node:crypto";
import type { TLSSocket } from "node:tls";
import { datesProblem, infoOf } from "./certificate.ts";

/**
 * Maximum number of client certificates remembered for resumed sessions. Past it the one that was verified longest ago
 * is forgotten, and a session that resumes with it is refused.
 */
const MAX_VERIFIED = 10_000;

/** What `node:tls` has underneath and does not declare. */
interface Handle {
  /** A code such as `CERT_HAS_EXPIRED` once the client's certificate was found wrong; empty otherwise. */
  verifyError?(): string | undefined;
  /** The certificates that the client has sent, its own first, in DER. */
  getPeerCertificateChain?(): { readonly certificates: readonly Uint8Array<ArrayBuffer>[] } | null;
}

/**
 * Refuses clients without a certificate that one of the authorities has signed. `node:tls` verifies certificates, but
 * leaves the consequences to `tls.Server`, which is not used here.
 *
 * A resumed session brings its certificate along unverified, and even a refused handshake may have begun that session:
 * all TLS contexts of a process share the key of their tickets, and nothing switches tickets off. So a resumed session
 * is accepted only if its certificate was verified here before, in a full handshake, and still holds.
 */
export class ClientVerifier {
  /** The fingerprints of the authorities' certificates. */
  readonly #authorities: ReadonlySet<string>;
  /** Until when each certificate holds that has been verified, in milliseconds since 1970, by its fingerprint. */
  #verified = new Map<string, number>();

  /** @param authorities Their certificates. */
  constructor(authorities: readonly X509Certificate[]) {
    this.#authorities = new Set(authorities.map(({ fingerprint256 }) => fingerprint256));
  }

  /**
   * Takes over what the verifier before this one has verified, unless an authority that it trusted is trusted no more.
   *
   * @param before The verifier before this one, if there was any.
   */
  inherit(before: ClientVerifier | undefined): void {
    if (before === undefined || !before.#authorities.isSubsetOf(this.#authorities)) return;
    // The same map: handshakes that have begun with the other may verify more.
    this.#verified = before.#verified;
  }

  /**
   * Refuses a certificate as soon as it is known to be wrong. A session for which the handshake is not finished cannot
   * be resumed.
   *
   * @param socket The TLS socket, during its handshake.
   * @throws {Error} If the client's certificate does not hold.
   */
  checkEarly(socket: TLSSocket): void {
    const code = handleOf(socket).verifyError?.();
    const certificate = code ? socket.getPeerX509Certificate() : undefined;
    if (certificate !== undefined) throw refusal(problemOf(certificate, code!));
  }

  /**
   * Decides on a client, with the end of its handshake.
   *
   * @param socket The TLS socket, before anything is sent that comes behind the handshake, such as tickets.
   * @throws {Error} If the client's certificate does not hold.
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

  /** What `verifyError` says about it would be of no use: nothing has been verified. */
  #checkResumed(certificate: X509Certificate | undefined): void {
    const until = certificate && this.#verified.get(certificate.fingerprint256);
    if (until === undefined) throw refusal("it resumes a session without a certificate that was verified before");
    const problem = datesProblem(infoOf(certificate!));
    if (problem !== undefined) throw refusal(`it ${problem}`);
    if (Date.now() > until) throw refusal("it resumes a session, and a certificate above its own has expired since");
  }

  #remember({ fingerprint256 }: X509Certificate, chain: readonly Uint8Array<ArrayBuffer>[]): void {
    const until = expiryOf(chain);
    // Again at the end, where the latest are.
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
 * When the first of the certificates expires that hold now, in milliseconds since 1970. Those that do not hold cannot
 * have been of use. Without any, or with one that cannot be read, it is `undefined`.
 */
function expiryOf(chain: readonly Uint8Array<ArrayBuffer>[]): number | undefined {
  try {
    const holding = chain.map((der) => infoOf(new X509Certificate(der))).filter((info) => !datesProblem(info));
    return holding.length === 0 ? undefined : Math.min(...holding.map(({ validTo }) => validTo.getTime()));
  } catch {
    return undefined;
  }
}

/** Where each problem is found that the code does not tell from an unknown authority. */
function problemOf(certificate: X509Certificate, code: string): string {
  const problem = datesProblem(infoOf(certificate));
  if (problem !== undefined) return `it ${problem}`;
  if (!hasVersion(certificate.raw)) return "it is of X.509 version 1, and version 3 is required";
  if (isForOtherUse(certificate.raw)) return "its extended key usage is not client authentication";
  if (certificate.ca) return "it is the certificate of an authority, not of a client";
  return `no authority in clientCa has signed it, ${code}`;
}

/**
 * Whether a certificate says its version, as all do but those of version 1. In DER it comes first, with a tag of its
 * own, behind the heads of the two sequences that it is in.
 */
function hasVersion(der: Uint8Array): boolean {
  let at = 0;
  for (let depth = 0; depth < 2; depth++) at += 2 + (der[at + 1] < 0x80 ? 0 : der[at + 1] & 0x7f);
  return der[at] === 0xa0;
}

/**
 * Whether a certificate has an extended key usage, and client authentication is not part of it: by the DER of the two
 * object identifiers, wherever they stand, as this only words a refusal.
 */
function isForOtherUse(der: Uint8Array): boolean {
  const text = new TextDecoder("latin1").decode(der);
  return text.includes("\x06\x03\x55\x1d\x25") && !text.includes("\x2b\x06\x01\x05\x05\x07\x03\x02");
}

function refusal(problem: string): Error {
  return new Error(`The client's certificate does not hold (${problem})`);
}
