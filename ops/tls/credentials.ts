/**
 * Checks certificates and keys before they are used.
 *
 * @module
 */

import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { Duplex } from "node:stream";
import { setImmediate } from "node:timers";
import { createSecureContext, type SecureContext, type SecureContextOptions, TLSSocket } from "node:tls";
import { checkProtocols, checkWord } from "../../internal/api/check.ts";
import { type CertificateInfo, datesProblem, infoOf } from "./certificate.ts";
import { contextOf } from "./engine/engine.ts";
import { testEngine } from "./engine/self_test.ts";
import type { TlsWrapClass } from "./engine/wrap.ts";
import { TlsCredentialsError, type TlsCredentialsOption } from "./errors.ts";
import type { OnHandshake } from "./observed.ts";
import { ClientVerifier } from "./peer/clients.ts";
import { fieldsOf } from "./peer/peer.ts";
import type { Security, ServerEngine } from "./security.ts";

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
   * Further certificates. One is used in place of `cert` if the name that the client asks for (SNI) is among its
   * alternative names, where `*.example.org` stands for every name with one more label. Of several that match, the first
   * is used. A client that asks for another name, or for none, gets `cert`.
   */
  sni?: readonly SniCertificate[] | undefined;
  /**
   * The certificates, in PEM, of the authorities that sign clients' certificates. With it, the listener accepts only
   * clients whose certificate was signed by one of them; see `clientAuth`. Certificates of X.509 version 1 are refused.
   *
   * A client that resumes a TLS session does not send its certificate again. It counts as valid only if these credentials
   * have verified its certificate in a full handshake before (the latest 10 000 are remembered), and the certificates that
   * were sent then are still valid. A reload that removes an authority forgets them all. Revocation lists are not read.
   */
  clientCa?: string | undefined;
  /**
   * What is asked of clients. `"require"` accepts only clients with a certificate that is valid by `clientCa`, which it
   * needs. With `"request"` a client is asked for a certificate, and served in any case; the handler decides by
   * `conn.tls.peer`: it is absent if the client has shown none, and its `verified` is false if the certificate is not
   * valid. The client has the key of the certificate also then, so that a handler can recognise it by its fingerprint.
   * Without `clientCa`, `verified` is always false.
   *
   * @default {"require"} with `clientCa`; without, clients are not asked.
   */
  clientAuth?: "require" | "request" | undefined;
  /**
   * The protocols that the server speaks (ALPN), the one that it prefers first, such as `["imap"]`; each of 1 to 255
   * bytes in UTF-8. The server picks its first that the client has named, too: `conn.tls.alpn`. A client that names
   * others only is refused with the alert `no_application_protocol`, as RFC 7301 demands. A client that names none is
   * served, with `conn.tls.alpn` undefined. By default no protocol is picked, whatever the client names.
   */
  alpnProtocols?: readonly string[] | undefined;
  /**
   * Maximum time of a handshake in milliseconds; see {@linkcode ListenTlsOptions.handshakeTimeout}. `Infinity` switches
   * the limit off. A reload does not change it.
   *
   * @default {10_000}
   */
  handshakeTimeout?: number | undefined;
  /**
   * Called when a handshake begins and when it ends, that of a listener or of `conn.startTls`; such as `onHandshake` of
   * {@linkcode ServerMetrics}. What it throws is ignored. A reload does not change it.
   */
  onHandshake?: OnHandshake | undefined;
}

/** One certificate of {@linkcode TlsCredentials.sni}. */
export interface SniCertificate {
  /** The certificate, in PEM, with those of the authorities above it, and with its key unless `key` is given. */
  cert: string;
  /** The private key, in PEM, without a passphrase. */
  key?: string | undefined;
}

/** A certificate that is used for the names in it. */
export interface NamedSecurity extends Security {
  readonly altNames: readonly string[];
}

/** Checked credentials, in the form that connections use. */
export interface LoadedCredentials extends Security {
  readonly certificate: CertificateInfo;
  /** The certificates that are chosen by the client's wish. */
  readonly sni: readonly NamedSecurity[];
}

/**
 * Checks credentials and loads them.
 *
 * @param credentials The caller's options.
 * @param fresh Whether a certificate is refused that has expired or is not valid yet.
 * @returns The TLS context for connections, the verifier of clients, and the certificate's fields.
 * @throws {TlsCredentialsError} (As a rejection.) If one of them cannot be used.
 * @throws {RangeError | TypeError} (As a rejection.) If an option is of the wrong type or out of range.
 */
export async function loadCredentials(credentials: TlsCredentials, fresh = false): Promise<LoadedCredentials> {
  const { cert, key, sni = [], clientCa, clientAuth, alpnProtocols } = credentials;
  checkProtocols(alpnProtocols);
  const authorities = clientCa === undefined ? undefined : parseCertificates("clientCa", clientCa);
  const clients = newVerifier(authorities, clientAuth);
  // A copy: the caller may change the array.
  const shared = { clients, alpnProtocols: alpnProtocols && [...alpnProtocols] };
  const { leaf, ...main } = await loadPair({ cert, key }, clientCa, fresh, clients);
  if (!Array.isArray(sni)) throw new TypeError(`Cannot use sni: expected an array, got ${typeof sni}`);
  const named: NamedSecurity[] = [];
  for (const [index, pair] of sni.entries()) {
    const { leaf, ...own } = await loadPair(pair, clientCa, fresh, clients).catch((error) => {
      throw inSni(error, index);
    });
    named.push({ ...shared, ...own, altNames: fieldsOf(leaf)?.altNames ?? [] });
  }
  return { ...shared, ...main, certificate: infoOf(leaf), sni: named };
}

/** Names the certificate in an error. */
function inSni(error: unknown, index: number): unknown {
  if (error instanceof TlsCredentialsError) {
    return new TlsCredentialsError("sni", `in its element ${index}, ${error.option}: ${error.problem}`);
  }
  return new TypeError(`Cannot use sni: in its element ${index}: ${(error as Error).message}`);
}

function newVerifier(
  authorities: readonly X509Certificate[] | undefined,
  clientAuth: TlsCredentials["clientAuth"],
): ClientVerifier | undefined {
  if (clientAuth !== undefined) checkWord("clientAuth", clientAuth, ["require", "request"]);
  if (clientAuth === "require" && authorities === undefined) {
    throw new TlsCredentialsError("clientAuth", '"require" needs clientCa');
  }
  if (authorities === undefined && clientAuth === undefined) return undefined;
  return new ClientVerifier(authorities ?? [], clientAuth !== "request");
}

/** Checks one certificate and its key, and loads them for a server. */
async function loadPair(
  { cert, key }: SniCertificate,
  clientCa: string | undefined,
  fresh: boolean,
  clients: ClientVerifier | undefined,
) {
  const { leaf, pem, chain, where } = checkPair(cert, key);
  const problem = fresh ? datesProblem(infoOf(leaf)) : undefined;
  if (problem !== undefined) throw new TlsCredentialsError("cert", `it ${problem}`);
  const secureContext = createContext({ cert: chain, key: pem, ca: clientCa }, where);
  const Wrap = testEngine(secureContext);
  if (Wrap === undefined) await tryOut(secureContext, where);
  return { leaf, secureContext, engine: Wrap && engineOf(Wrap, secureContext, clients) };
}

function engineOf(Wrap: TlsWrapClass, secureContext: SecureContext, clients: ClientVerifier | undefined): ServerEngine {
  return { Wrap, context: contextOf(secureContext, clients !== undefined, clients?.required !== false) };
}

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

function checkText(option: TlsCredentialsOption, pem: unknown): string {
  if (typeof pem === "string") return pem;
  throw new TypeError(`Cannot use ${option}: expected text in PEM, got ${typeof pem}`);
}

/** Creates a TLS context. An error that it causes is that of the key. */
export function createContext(options: SecureContextOptions, option: KeyOption): SecureContext {
  try {
    return createSecureContext(options);
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
