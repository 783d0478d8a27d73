/**
 * Loads the credentials of a TLS server, and checks that they can be used.
 *
 * @module
 */

import type { X509Certificate } from "node:crypto";
import { Duplex } from "node:stream";
import { setImmediate } from "node:timers";
import { createSecureContext, type SecureContext, type SecureContextOptions, TLSSocket } from "node:tls";
import { checkProtocols, checkWord } from "../../internal/api/check.ts";
import { type CertificateInfo, datesProblem, infoOf } from "./certificates/certificate.ts";
import { contextOf } from "./engine/engine.ts";
import { testEngine } from "./engine/self_test.ts";
import type { TlsWrapClass } from "./engine/wrap.ts";
import { TlsCredentialsError } from "./errors.ts";
import type { OnHandshake } from "./observed.ts";
import { checkPair, type KeyOption, nameOf, parseCertificates } from "./pem.ts";
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
