/**
 * Credentials that are loaded once, and can be replaced while connections come.
 *
 * @module
 */

import { checkFunction, checkOptions, checkTimeout } from "../../internal/api/check.ts";
import {
  HANDSHAKE_TIMEOUT,
  type TlsCredentialsHandle,
  type TlsInfo,
  type Transport,
} from "../../internal/api/transport.ts";
import type { CertificateInfo } from "./certificates/certificate.ts";
import { loadCredentials, type LoadedCredentials, type TlsCredentials } from "./credentials.ts";
import { PrefixedTransport } from "../wrappers/prefixed_transport.ts";
import { readHello } from "./hello.ts";
import { observe, type OnHandshake } from "./observed.ts";
import { isFor } from "./peer/names.ts";
import { acceptTls, type Security } from "./security.ts";

/** Credentials of a TLS server that can be replaced; {@linkcode tlsCredentials} loads them. */
export interface TlsServerCredentials extends TlsCredentialsHandle {
  /** Maximum time of a handshake, in milliseconds; `Infinity` for no limit. */
  readonly handshakeTimeout: number;
  /** The certificate that is shown to clients that ask for no other. */
  readonly certificate: CertificateInfo;
  /**
   * Replaces the credentials for handshakes that begin from now on. Connections and handshakes that have begun are not
   * affected, and no client is refused meanwhile.
   *
   * @param credentials The new credentials. Without `clientCa`, the present authorities stay; the same holds for `sni`,
   * `alpnProtocols` and `clientAuth`. An empty list in `sni` removes the present ones.
   * @returns When the new credentials are in use.
   * @throws {TlsCredentialsError} (As a rejection.) If one of them cannot be used, or a certificate has expired or is not
   * valid yet; the old credentials stay in use then.
   * @throws {RangeError | TypeError} (As a rejection.) If one of them is of the wrong type or out of range.
   */
  reload(credentials: TlsCredentials): Promise<void>;
}

/**
 * Loads the credentials of a TLS server and checks them once, for `conn.startTls` (STARTTLS), for `listenTls({
 * credentials })`, or for both: a reload holds for all.
 *
 * An expired certificate is accepted, because a server that some clients refuse may be better than none: see
 * {@linkcode TlsServerCredentials.certificate}. A reload refuses one.
 *
 * @param options The certificate and the key, and what is asked of clients.
 * @returns The credentials.
 * @throws {TlsCredentialsError} (As a rejection.) If one of them cannot be used.
 * @throws {RangeError | TypeError} (As a rejection.) If an option is of the wrong type or out of range.
 *
 * @example Two names at one port, and a certificate that a client may show (not run here: it needs certificates)
 * ```ts ignore
 * import { serveConnections } from "@x/shouty";
 * import { listenTls, tlsCredentials } from "@x/shouty/ops";
 *
 * const credentials = await tlsCredentials({
 *   cert: await Deno.readTextFile("example.org.pem"),
 *   sni: [{ cert: await Deno.readTextFile("irc.example.net.pem") }],
 *   clientAuth: "request",
 * });
 * serveConnections({ listener: await listenTls({ port: 6697, credentials }) }, async (conn) => {
 *   const account = conn.tls?.peer?.fingerprint256;
 *   await conn.write(account === undefined ? "Who are you?\n" : `You are ${account}.\n`);
 * });
 * ```
 *
 * @example What is wrong with credentials
 * ```ts
 * import { assertEquals, assertRejects } from "@std/assert";
 * import { tlsCredentials, TlsCredentialsError } from "@x/shouty/ops";
 *
 * const error = await assertRejects(() => tlsCredentials({ cert: "nonsense" }), TlsCredentialsError);
 * assertEquals([error.option, error.problem], ["cert", "there is no PEM certificate in it"]);
 * ```
 */
export async function tlsCredentials(options: TlsCredentials): Promise<TlsServerCredentials> {
  checkOptions("tlsCredentials options", options);
  const { handshakeTimeout = HANDSHAKE_TIMEOUT } = options;
  checkTimeout("handshakeTimeout", handshakeTimeout);
  checkFunction("onHandshake", options.onHandshake, true);
  const credentials = onlyCredentials(options);
  return new Credentials(options, handshakeTimeout, credentials, await loadCredentials(credentials));
}

type Secure = Transport & { readonly tls: TlsInfo };

class Credentials implements TlsServerCredentials {
  readonly handshakeTimeout: number;
  readonly #onHandshake: OnHandshake | undefined;
  #credentials: TlsCredentials;
  #loaded: LoadedCredentials;
  #reloading = Promise.resolve();

  constructor(
    { onHandshake }: Pick<TlsCredentials, "onHandshake">,
    handshakeTimeout: number,
    credentials: TlsCredentials,
    loaded: LoadedCredentials,
  ) {
    this.#onHandshake = onHandshake;
    this.handshakeTimeout = handshakeTimeout;
    this.#credentials = credentials;
    this.#loaded = loaded;
  }

  get certificate(): CertificateInfo {
    return this.#loaded.certificate;
  }

  accept(transport: Transport, firstBytes: Uint8Array): Promise<Secure> {
    if (this.#onHandshake === undefined) return this.#accept(transport, firstBytes);
    return observe(() => this.#accept(transport, firstBytes), this.#onHandshake);
  }

  async #accept(transport: Transport, firstBytes: Uint8Array): Promise<Secure> {
    const loaded = this.#loaded;
    if (loaded.sni.length === 0) return await acceptTls(behind(firstBytes.slice(), transport), loaded);
    const { bytes, serverName } = await readHello(transport, firstBytes);
    return await acceptTls(behind(bytes, transport), choose(loaded, serverName));
  }

  /** Reloads run one after the other, because each starts from the credentials that the one before has left. */
  reload(credentials: TlsCredentials): Promise<void> {
    const reloaded = this.#reloading.then(() => this.#reload(credentials));
    this.#reloading = reloaded.catch(() => {});
    return reloaded;
  }

  async #reload(given: TlsCredentials): Promise<void> {
    checkOptions("reload credentials", given);
    const { cert, key, ...rest } = onlyCredentials(given);
    const kept = Object.entries(rest).filter(([, value]) => value !== undefined);
    const credentials = { ...this.#credentials, cert, key, ...Object.fromEntries(kept) };
    const loaded = await loadCredentials(credentials, true);
    loaded.clients?.inherit(this.#loaded.clients);
    this.#credentials = credentials;
    this.#loaded = loaded;
  }
}

/** Puts bytes that have been read already before those of their transport. */
function behind(bytes: Uint8Array, transport: Transport): Transport {
  return bytes.length === 0 ? transport : new PrefixedTransport(transport, bytes);
}

/** The options that a reload replaces. */
function onlyCredentials({ cert, key, sni, clientCa, clientAuth, alpnProtocols }: TlsCredentials): TlsCredentials {
  return { cert, key, sni, clientCa, clientAuth, alpnProtocols };
}

/** Chooses the certificate by the name that the client asks for. */
function choose(loaded: LoadedCredentials, serverName: string | undefined): Security {
  const name = serverName?.toLowerCase();
  return name === undefined ? loaded : loaded.sni.find(({ altNames }) => isFor(altNames, name)) ?? loaded;
}
