/**
 * Reads certificates and keys from PEM, and finds those that belong together.
 *
 * @module
 */

import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { show } from "../../internal/api/check.ts";
import { TlsCredentialsError, type TlsCredentialsOption } from "./errors.ts";

/**
 * Checks a certificate and its key.
 *
 * @param cert The certificate in PEM, perhaps with its key, and with others.
 * @param key Its key in PEM; undefined if `cert` contains it.
 * @returns The certificate, its key in PEM, the certificates to send in PEM, and the option that the key is from.
 */
export function checkPair(
  cert: string,
  key: string | undefined,
): { leaf: X509Certificate; pem: string; chain: string; where: KeyOption } {
  const certificates = parseCertificates("cert", cert);
  const where = key === undefined ? "cert" : "key";
  const { leaf, pem } = pairOf(certificates, parseKeys(where, key === undefined ? cert : key), where);
  return { leaf, pem, chain: chainOf(leaf, certificates).map(String).join(""), where };
}

const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;
const PEM_KEY = /-----BEGIN ((?:[A-Z]+ )?PRIVATE KEY)-----[^]+?-----END \1-----/g;

/** Reads all certificates in a text. */
export function parseCertificates(option: "cert" | "clientCa" | "caCerts", pem: string): X509Certificate[] {
  const blocks = checkText(option, pem).match(PEM_CERTIFICATE) ?? [];
  if (blocks.length === 0) throw new TlsCredentialsError(option, "there is no PEM certificate in it");
  return blocks.map((block) => {
    try {
      return new X509Certificate(block);
    } catch {
      throw new TlsCredentialsError(option, "a certificate in it is damaged");
    }
  });
}

/** A private key, and the PEM that it was read from. */
interface Key {
  readonly pem: string;
  readonly key: KeyObject;
}

/** The option whose text contains the key. The text may contain anything else: certificates, curve parameters, comments. */
export type KeyOption = "cert" | "key";

/** What an error calls the key, behind the option's name. */
export function nameOf(option: KeyOption): string {
  return option === "key" ? "it" : "its key";
}

function parseKeys(option: KeyOption, text: string): Key[] {
  const blocks = checkText(option, text).match(PEM_KEY) ?? [];
  if (blocks.length === 0) {
    const missing = option === "key" ? "" : ", and no separate key is given";
    throw new TlsCredentialsError(option, `there is no PEM private key in it${missing}`);
  }
  return blocks.map((pem) => {
    if (/^-----BEGIN ENCRYPTED|^Proc-Type: 4,ENCRYPTED/m.test(pem)) {
      throw new TlsCredentialsError(option, `${nameOf(option)} has a passphrase, which is not supported`);
    }
    try {
      return { pem, key: createPrivateKey(pem) };
    } catch {
      throw new TlsCredentialsError(option, `${nameOf(option)} is damaged, or of a kind that is not supported`);
    }
  });
}

/** Finds the first certificate that one of the keys belongs to, and that key. */
function pairOf(
  certificates: X509Certificate[],
  keys: Key[],
  option: KeyOption,
): { leaf: X509Certificate; pem: string } {
  for (const leaf of certificates) {
    const own = keys.find(({ key }) => leaf.checkPrivateKey(key));
    if (own !== undefined) return { leaf, pem: own.pem };
  }
  const problem = option === "key"
    ? "it does not belong to the certificate"
    : "its key belongs to no certificate in it";
  throw new TlsCredentialsError(option, problem);
}

/**
 * The certificates to send: the server's and those of the authorities above it. If the text begins with the server's and
 * only authorities follow, they are sent in the text's order. Otherwise each is followed by the one that issued it.
 */
function chainOf(leaf: X509Certificate, certificates: X509Certificate[]): X509Certificate[] {
  const rest = certificates.filter((certificate) => certificate !== leaf);
  if (certificates[0] === leaf && rest.every(({ ca }) => ca)) return certificates;
  const chain = [leaf];
  for (let last: X509Certificate | undefined = leaf; last !== undefined; last = takeIssuer(last, rest)) {
    if (last !== leaf) chain.push(last);
  }
  return chain;
}

function takeIssuer(of: X509Certificate, rest: X509Certificate[]): X509Certificate | undefined {
  const at = rest.findIndex((certificate) => of.checkIssued(certificate));
  return at < 0 ? undefined : rest.splice(at, 1)[0];
}

function checkText(option: TlsCredentialsOption, pem: unknown): string {
  if (typeof pem === "string") return pem;
  throw new TypeError(`Cannot use ${option}: expected text in PEM, got ${show(pem)}`);
}
