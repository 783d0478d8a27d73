/**
 * Checks certificates and keys before they are used.
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

/** A TLS server's certificate and key, and the authorities that its clients' certificates have to be signed by. */
export interface TlsCredentials {
  /**
   * The certificate, in PEM, followed by those of the authorities between it and the root, if there are any. The text
   * may also contain the private key, in any place, and any other text. Of several certificates with a key, the first is
   * used.
   */
  cert: string;
  /** The certificate's private key, in PEM, without a passphrase; needed unless `cert` contains it. */
  key?: string | undefined;
  /**
   * The certificates, in PEM, of the authorities that sign clients' certificates. With it, the listener accepts only
   * clients whose certificate was signed by one of them.
   *
   * A client that resumes a TLS session does not send its certificate again. It is accepted only if this listener has
   * verified its certificate in a full handshake before (the latest 10 000 are remembered), and the certificates that
   * were sent then are still valid. A reload that removes an authority forgets them all. Revocation lists are not read.
   */
  clientCa?: string | undefined;
}

/** One of the credentials cannot be used. */
export class TlsCredentialsError extends Error {
  /** The option that cannot be used. */
  readonly option: keyof TlsCredentials;
  /** What is wrong with it, to be read after the option's name. */
  readonly problem: string;

  /**
   * Creates the error.
   *
   * @param option The option that cannot be used.
   * @param problem What is wrong with it, to be read after the option's name.
   */
  constructor(option: keyof TlsCredentials, problem: string) {
    super(`Cannot use ${option}: ${problem}`);
    this.name = "TlsCredentialsError";
    this.option = option;
    this.problem = problem;
  }
}

/** Checked credentials, in the form that connections use. */
export interface LoadedCredentials extends Security {
  readonly certificate: CertificateInfo;
}

/**
 * Checks credentials and loads them.
 *
 * @param credentials The caller's texts in PEM.
 * @returns The TLS context for connections, the verifier of clients, and the certificate's fields.
 * @throws {TlsCredentialsError} (As a rejection.) If one of them cannot be used.
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

/** The option whose text contains the key. The text may contain anything else: certificates, curve parameters, comments. */
type KeyOption = "cert" | "key";

/** What an error calls the key, behind the option's name. */
function nameOf(option: KeyOption): string {
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

/** Starts a TLS socket: `node:tls` refuses some keys that pass every check only once a connection comes. */
async function tryOut(secureContext: SecureContext, option: KeyOption): Promise<void> {
  const silentPeer = new Duplex({ read() {}, write() {} });
  const socket = new TLSSocket(silentPeer, { isServer: true, secureContext });
  const tried = Promise.withResolvers<boolean>();
  socket.on("error", () => tried.resolve(false));
  setImmediate(() => tried.resolve(true));
  const usable = await tried.promise;
  socket.destroy();
  if (!usable) throw new TlsCredentialsError(option, `${nameOf(option)} is of a kind that is not supported`);
}
