/**
 * Certificates and keys, checked before they are used.
 *
 * @module
 */

import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { Duplex } from "node:stream";
import { setImmediate } from "node:timers";
import { createSecureContext, type SecureContext, TLSSocket } from "node:tls";
import { type CertificateInfo, infoOf } from "./certificate.ts";
import { ClientVerifier } from "./clients.ts";
import type { Security } from "./transport.ts";

/** What a TLS server proves who it is with, and what its clients have to. */
export interface TlsCredentials {
  /**
   * The certificate, in PEM, followed by those of the authorities between it and the root, if there are any. Its private
   * key may stand there too, in any order, and any text between. Of several certificates with their keys the first is
   * used.
   */
  cert: string;
  /** The certificate's private key, in PEM, without a passphrase; needed unless `cert` has it. */
  key?: string | undefined;
  /**
   * The certificates, in PEM, of the authorities that sign clients' certificates. With it, the listener accepts only
   * clients whose certificate was signed by one of them.
   *
   * A client that resumes a TLS session shows no certificate again. It is accepted only if this listener has verified
   * its certificate in a full handshake before (the latest 10 000 are remembered), and the certificates that were shown
   * then still hold. A reload that takes an authority away forgets them all. Revocation lists are not read.
   */
  clientCa?: string | undefined;
}

/** Credentials are not what they should be. */
export class TlsCredentialsError extends Error {
  /** Which of them. */
  readonly option: keyof TlsCredentials;
  /** What is wrong with it, to be read after its name. */
  readonly problem: string;

  /**
   * Says which of the credentials is wrong.
   *
   * @param option Which one.
   * @param problem What is wrong with it, to be read after its name.
   */
  constructor(option: keyof TlsCredentials, problem: string) {
    super(`Cannot use ${option}: ${problem}`);
    this.name = "TlsCredentialsError";
    this.option = option;
    this.problem = problem;
  }
}

/** Credentials that are fit for use. */
export interface LoadedCredentials extends Security {
  readonly certificate: CertificateInfo;
}

/**
 * Checks credentials, and makes them ready for use.
 *
 * @param credentials What was given.
 * @returns What connections are made secure with.
 * @throws {TlsCredentialsError} (As a rejection.) If one of them is not what it should be.
 */
export async function loadCredentials({ cert, key, clientCa }: TlsCredentials): Promise<LoadedCredentials> {
  const certificates = parseCertificates("cert", cert);
  const where = key === undefined ? "cert" : "key";
  const { leaf, pem } = pairOf(certificates, parseKeys(where, key === undefined ? cert : key), where);
  const authorities = clientCa === undefined ? undefined : parseCertificates("clientCa", clientCa);
  const chain = chainOf(leaf, certificates).map((certificate) => certificate.toString()).join("");
  const secureContext = createContext({ cert: chain, key: pem, clientCa }, where);
  await tryOut(secureContext, where);
  return { secureContext, clients: authorities && new ClientVerifier(authorities), certificate: infoOf(leaf) };
}

const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;
const PEM_KEY = /-----BEGIN ((?:[A-Z]+ )?PRIVATE KEY)-----[^]+?-----END \1-----/g;

function parseCertificates(option: "cert" | "clientCa", pem: string): X509Certificate[] {
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

/** Where the text may have anything else in it: certificates, parameters of a curve, comments. */
type KeyOption = "cert" | "key";

/** The key, as an error calls it behind the option's name. */
function nameOf(option: KeyOption): string {
  return option === "key" ? "it" : "its key";
}

function parseKeys(option: KeyOption, text: string): Key[] {
  const blocks = checkText(option, text).match(PEM_KEY) ?? [];
  if (blocks.length === 0) {
    const missing = option === "key" ? "" : ", and no key is given besides";
    throw new TlsCredentialsError(option, `there is no PEM private key in it${missing}`);
  }
  return blocks.map((pem) => {
    if (/^-----BEGIN ENCRYPTED|^Proc-Type: 4,ENCRYPTED/m.test(pem)) {
      throw new TlsCredentialsError(option, `${nameOf(option)} has a passphrase, which cannot be given`);
    }
    try {
      return { pem, key: createPrivateKey(pem) };
    } catch {
      throw new TlsCredentialsError(option, `${nameOf(option)} is damaged, or of a kind that is not supported`);
    }
  });
}

/** The first certificate to which one of the keys belongs, and the key. */
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
 * What is sent: the certificate, and those of the authorities above it. They are sent as they stand where they follow
 * the certificate; in a text of another order, or with other certificates, each has the one that issued it behind it.
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

function checkText(option: keyof TlsCredentials, pem: unknown): string {
  if (typeof pem === "string") return pem;
  throw new TypeError(`Cannot use ${option}: expected text in PEM, got ${typeof pem}`);
}

function createContext({ cert, key, clientCa }: TlsCredentials, option: KeyOption): SecureContext {
  try {
    return createSecureContext({ cert, key, ca: clientCa });
  } catch (error) {
    const { message } = error as Error;
    throw new TlsCredentialsError(option, message.replace(/^error:.*:: ?/, ""));
  }
}

/** What passes every check may still be of no use to `node:tls`, which says so when a connection comes. */
async function tryOut(secureContext: SecureContext, option: KeyOption): Promise<void> {
  const nobody = new Duplex({ read() {}, write() {} });
  const socket = new TLSSocket(nobody, { isServer: true, secureContext });
  const refused = Promise.withResolvers<boolean>();
  socket.on("error", () => refused.resolve(true));
  setImmediate(() => refused.resolve(false));
  const useless = await refused.promise;
  socket.destroy();
  if (useless) throw new TlsCredentialsError(option, `${nameOf(option)} is of a kind that is not supported`);
}
