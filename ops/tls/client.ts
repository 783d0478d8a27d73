/**
 * The client's side of a TLS connection.
 *
 * @module
 */

import type { X509Certificate } from "node:crypto";
import { isIP } from "node:net";
import type { SecureContext } from "node:tls";
import { checkOptions, checkProtocols, show } from "../../internal/api/check.ts";
import type { TlsInfo, Transport } from "../../internal/api/transport.ts";
import type { ConnectTlsOptions } from "../../internal/client/connect_options.ts";
import { PeerLeft } from "../wrappers/preparing_listener.ts";
import { createContext } from "./credentials.ts";
import { TlsCredentialsError } from "./errors.ts";
import { checkPair, parseCertificates } from "./pem.ts";
import { canonicalName } from "./peer/names.ts";
import { ServerVerifier } from "./peer/servers.ts";
import { connectTls } from "./security.ts";

/** What a TLS client trusts, shows and speaks, and the server's host name or IP address, which has to be known. */
export type ClientTlsOptions = ConnectTlsOptions & { serverName: string };

/** Checked options. */
interface LoadedClient {
  readonly name: string;
  readonly authorities: readonly X509Certificate[] | undefined;
  readonly secureContext: SecureContext;
  readonly alpnProtocols: readonly string[] | undefined;
}

/**
 * Checks the options of a client.
 *
 * @param options The options.
 * @throws {TlsCredentialsError} If a certificate or a key cannot be used.
 * @throws {RangeError | TypeError} If an option is of the wrong type or out of range.
 */
export function checkClientTls(options: ClientTlsOptions): void {
  load(options);
}

/**
 * Performs the client's side of a TLS handshake, versions 1.2 and 1.3. The server's certificate is verified: its chain,
 * its dates, its use and its name; no option switches that off, and neither does `NODE_TLS_REJECT_UNAUTHORIZED`. It is
 * verified before the client sends its own certificate, or any byte of the caller.
 *
 * A server that wants a certificate and gets none, or not the right one, says so after the handshake with TLS 1.3: then
 * the first read rejects. No session is resumed.
 *
 * @param transport The connection to the server. On success, the new transport owns it; otherwise the caller closes it,
 * and closing it meanwhile makes this reject.
 * @param options The server's name, and what the client trusts, shows and speaks.
 * @returns A transport for the decrypted bytes, and what is known of the server.
 * @throws {Deno.errors.InvalidData} (As a rejection.) If the server's certificate is not valid; the message says why.
 * @throws {Deno.errors.UnexpectedEof} (As a rejection.) If the server ends the connection during the handshake.
 * @throws {Error} (As a rejection.) If the server sends an alert, or something else than TLS.
 * @throws {TlsCredentialsError | RangeError | TypeError} (As a rejection.) As {@linkcode checkClientTls}.
 */
export async function connectTlsOver(
  transport: Transport,
  options: ClientTlsOptions,
): Promise<Transport & { readonly tls: TlsInfo }> {
  const { name, authorities, secureContext, alpnProtocols } = load(options);
  const verifier = new ServerVerifier(name, authorities);
  const asked = { secureContext, serverName: isIP(name) === 0 ? name : undefined, alpnProtocols };
  try {
    return await connectTls(transport, asked, verifier);
  } catch (error) {
    throw explained(error);
  }
}

function load(options: ClientTlsOptions): LoadedClient {
  checkOptions("TLS options", options);
  const { serverName, caCerts, cert, key, alpnProtocols } = options;
  if (typeof serverName !== "string") {
    throw new TypeError(`Cannot use serverName: expected a string, got ${show(serverName)}`);
  }
  const name = canonicalName(serverName);
  if (name === undefined) {
    throw new RangeError(`Cannot use serverName ${show(serverName)}: expected a host name or an IP address`);
  }
  checkProtocols(alpnProtocols);
  const authorities = caCerts === undefined ? undefined : parseAuthorities(caCerts);
  if (cert === undefined && key !== undefined) {
    throw new TlsCredentialsError("key", "there is no cert that it belongs to");
  }
  const pair = cert === undefined ? undefined : checkPair(cert, key);
  const ca = authorities?.map(String);
  const secureContext = createContext({ cert: pair?.chain, key: pair?.pem, ca }, pair?.where ?? "cert");
  // Deno 2.9.5 resumes sessions unasked, but not with authorities of the context's own. This names one: an empty text.
  if (ca === undefined) addNoAuthority(secureContext);
  return { name, authorities, secureContext, alpnProtocols };
}

function parseAuthorities(caCerts: string | readonly string[]): X509Certificate[] {
  const texts = typeof caCerts === "string" ? [caCerts] : caCerts;
  if (!Array.isArray(texts) || texts.length === 0) {
    throw new TypeError(`Cannot use caCerts: expected text in PEM, or an array of such texts, got ${show(caCerts)}`);
  }
  return texts.flatMap((text) => parseCertificates("caCerts", text));
}

/**
 * Makes a context differ from all others without trusting anything more. Without it, a session could be resumed, which the
 * verifier refuses.
 */
function addNoAuthority({ context }: SecureContext): void {
  const { addCACert } = context as { addCACert?(pem: string): void };
  addCACert?.call(context, "\n");
}

/** Says in plain words what the server has done in place of a handshake. */
function explained(error: unknown): unknown {
  // Of interest to servers only.
  if (error instanceof PeerLeft) return error.cause;
  if (!(error instanceof Error)) return error;
  const { code } = error as Error & { code?: string };
  if (code === "ERR_SSL_UNSUPPORTED_PROTOCOL") {
    return new TlsCredentialsError("key", "it is of a kind that is not supported");
  }
  return code === "ERR_SSL_WRONG_VERSION_NUMBER"
    ? new Error("The server does not speak TLS at this port", { cause: error })
    : error;
}
