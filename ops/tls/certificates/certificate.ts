/**
 * The fields of a certificate that callers and logs see, and whether its dates hold.
 *
 * @module
 */

import type { X509Certificate } from "node:crypto";

/** The fields of a certificate that a server's owner needs. */
export interface CertificateInfo {
  /** The name that it was issued to, such as `CN=example.org`. */
  readonly subject: string;
  /** The moment from which it is valid. */
  readonly validFrom: Date;
  /** The moment until which it is valid. */
  readonly validTo: Date;
}

/** Reads those fields of a certificate. */
export function infoOf({ subject, validFrom, validTo }: X509Certificate): CertificateInfo {
  return { subject: subject.replaceAll("\n", ", "), validFrom: new Date(validFrom), validTo: new Date(validTo) };
}

/**
 * Says what is wrong with a certificate's dates.
 *
 * @param certificate The certificate.
 * @returns What is wrong, to be read after "it"; `undefined` if the certificate is valid now.
 */
export function datesProblem({ validFrom, validTo }: CertificateInfo): string | undefined {
  if (Date.now() > validTo.getTime()) return `expired on ${validTo.toISOString()}`;
  return Date.now() < validFrom.getTime() ? `is not valid before ${validFrom.toISOString()}` : undefined;
}
