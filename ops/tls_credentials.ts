/**
 * Certificates and keys, checked before they are used.
 *
 * @module
 */

import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { Duplex } from "node:stream";
import { setImmediate } from "node:timers";
import { createSecureContext, type SecureContext, TLSSocket } from "node:tls";
import { type CertificateInfo, infoOf } from "./tls_certificate.ts";
import { ClientVerifier } from "./tls_clients.ts";
import type { Security } from "./tls_transport.ts";

/** What a TLS server proves who it is with, and what its clients have to. */
export interface TlsCredentials {
  /** The certificate, in PEM, followed by those of the authorities between it and the root, if there are any. */
  cert: string;
  /** The certificate's private key, in PEM, without a passphrase. */
  key: string;
  /**
   * The certificates, in PEM, of the authorities that sign clients' certificates. With it, the listener accepts only
   * clients whose certificate was signed by one of them.
   *
   * A client that resumes a TLS session shows no certificate again. It is accepted only if this listener has verified
   * its certificate in a full handshake before (the latest 10 000 are remembered), and the certificates that were shown
   * then still hold. A reload that takes an authority away forgets them all. Revocation lists are not read.
   */
  clientCa?: string;
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

const PEM_CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

/**
 * Checks credentials, and makes them ready for use.
 *
 * @param credentials What was given.
 * @returns What connections are made secure with.
 * @throws {TlsCredentialsError} (As a rejection.) If one of them is not what it should be.
 */
export async function loadCredentials({ cert, key, clientCa }: TlsCredentials): Promise<LoadedCredentials> {
  const [certificate] = parseCertificates("cert", cert);
  if (!certificate.checkPrivateKey(parseKey(key))) {
    throw new TlsCredentialsError("key", "it does not belong to the certificate");
  }
  const authorities = clientCa === undefined ? undefined : parseCertificates("clientCa", clientCa);
  const secureContext = createContext({ cert, key, clientCa });
  await tryOut(secureContext);
  return { secureContext, clients: authorities && new ClientVerifier(authorities), certificate: infoOf(certificate) };
}

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

function parseKey(pem: string): KeyObject {
  if (!/-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(checkText("key", pem))) {
    throw new TlsCredentialsError("key", "there is no PEM private key in it");
  }
  if (/-----BEGIN ENCRYPTED|^Proc-Type: 4,ENCRYPTED/m.test(pem)) {
    throw new TlsCredentialsError("key", "it has a passphrase, which nobody is there to type");
  }
  try {
    return createPrivateKey(pem);
  } catch {
    throw new TlsCredentialsError("key", "it is damaged, or of a kind that is not supported");
  }
}

function checkText(option: keyof TlsCredentials, pem: unknown): string {
  if (typeof pem === "string") return pem;
  throw new TypeError(`Cannot use ${option}: expected text in PEM, got ${typeof pem}`);
}

function createContext({ cert, key, clientCa }: TlsCredentials): SecureContext {
  try {
    return createSecureContext({ cert, key, ca: clientCa });
  } catch (error) {
    const { message } = error as Error;
    throw new TlsCredentialsError("key", message.replace(/^error:.*:: ?/, ""));
  }
}

/** What passes every check may still be of no use to `node:tls`, which says so when a connection comes. */
async function tryOut(secureContext: SecureContext): Promise<void> {
  const nobody = new Duplex({ read() {}, write() {} });
  const socket = new TLSSocket(nobody, { isServer: true, secureContext });
  const refused = Promise.withResolvers<boolean>();
  socket.on("error", () => refused.resolve(true));
  setImmediate(() => refused.resolve(false));
  const useless = await refused.promise;
  socket.destroy();
  if (useless) throw new TlsCredentialsError("key", "it is of a kind that is not supported");
}
