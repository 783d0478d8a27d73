/**
 * Verifies the signatures of a chain of certificates.
 *
 * `node:tls` does that, too. But if one certificate of the chain is of X.509 version 1, or is encoded in a way that it
 * cannot read, it compares nothing but the names of issuers, which anybody can write into a certificate.
 *
 * @module
 */

import { constants, verify, type X509Certificate } from "node:crypto";
import { datesProblem, infoOf } from "../certificates/certificate.ts";
import { signedPartOf } from "../certificates/der.ts";

/** Maximum number of certificates above a server's own, so that a check takes at most 100 signatures. */
const MAX_ABOVE = 10;

/**
 * Whether signatures lead from a certificate to one of the authorities.
 *
 * @param own The certificate.
 * @param above The certificates that were sent with it, in any order. Only those of authorities are used, and only if
 * they are valid now.
 * @param authorities The certificates of the authorities. `own` may be one of them.
 * @returns Whether they do; also `false` if there are too many certificates.
 */
export function isSignedByAny(
  own: X509Certificate,
  above: readonly X509Certificate[],
  authorities: readonly X509Certificate[],
): boolean {
  if (above.length > MAX_ABOVE) return false;
  if (authorities.some(({ fingerprint256 }) => fingerprint256 === own.fingerprint256)) return true;
  const unused = above.filter((certificate) => certificate.ca && datesProblem(infoOf(certificate)) === undefined);
  // Each certificate is looked at once, although several can have the same name: that takes time in their square only.
  for (const reached = [own]; reached.length > 0;) {
    const certificate = reached.pop()!;
    if (authorities.some((authority) => isSignedBy(certificate, authority))) return true;
    for (let i = unused.length - 1; i >= 0; i--) {
      if (isSignedBy(certificate, unused[i])) reached.push(...unused.splice(i, 1));
    }
  }
  return false;
}

/** Whether a certificate is signed with the key of another; also `false` if `node:crypto` cannot tell. */
export function isSignedBy(certificate: X509Certificate, issuer: X509Certificate): boolean {
  try {
    return certificate.checkIssued(issuer) &&
      (certificate.verify(issuer.publicKey) || isSignedWithPss(certificate, issuer));
  } catch {
    return false;
  }
}

/** RSA-PSS is a padding that `X509Certificate` does not know here. */
function isSignedWithPss({ raw }: X509Certificate, { publicKey }: X509Certificate): boolean {
  if (publicKey.asymmetricKeyType !== "rsa" && publicKey.asymmetricKeyType !== "rsa-pss") return false;
  const { body, signature } = signedPartOf(raw);
  const { RSA_PKCS1_PSS_PADDING: padding, RSA_PSS_SALTLEN_DIGEST: saltLength } = constants;
  const key = { key: publicKey, padding, saltLength };
  return ["sha256", "sha384", "sha512"].some((hash) => verify(hash, body, key, signature));
}
