/**
 * What a certificate says.
 *
 * @module
 */

import type { X509Certificate } from "node:crypto";

/** A certificate, in short. */
export interface CertificateInfo {
  /** Whose it is, such as `CN=example.org`. */
  readonly subject: string;
  /** The moment from which on it holds. */
  readonly validFrom: Date;
  /** The moment until which it holds. */
  readonly validTo: Date;
}

/** Puts a certificate in short. */
export function infoOf({ subject, validFrom, validTo }: X509Certificate): CertificateInfo {
  return { subject: subject.replaceAll("\n", ", "), validFrom: new Date(validFrom), validTo: new Date(validTo) };
}

/**
 * Says what is wrong with a certificate's dates.
 *
 * @param certificate The certificate.
 * @param now The time, in milliseconds since 1970.
 * @returns What is wrong, to be read after "it"; `undefined` if it holds.
 */
export function datesProblem({ validFrom, validTo }: CertificateInfo, now: number = Date.now()): string | undefined {
  if (now > validTo.getTime()) return `expired on ${validTo.toISOString()}`;
  return now < validFrom.getTime() ? `does not hold before ${validFrom.toISOString()}` : undefined;
}
