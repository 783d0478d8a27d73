/**
 * A listener whose connections are encrypted with TLS.
 *
 * This folder holds the listener (here), the client's side of a handshake (`client.ts`), the loading of certificates and
 * keys (`credentials.ts`, `pem.ts`, `errors.ts`, and `handle.ts`, which can replace them), the choice of one by the name
 * that a client asks for (`hello.ts`), the fields of certificates (`certificates/`), the verification of peers (`peer/`),
 * and what encrypts (`security.ts` chooses): engines in memory (`engine/`), or, where their self-test does not pass, the
 * streams of `node:tls` (`streams/`).
 *
 * @module
 */

import {
  checkClock,
  checkHostname,
  checkListener,
  checkMethods,
  checkOptions,
  checkTimeout,
  checkWhole,
  DEFAULT_HOSTNAME,
  DEFAULT_PORT,
} from "../../internal/api/check.ts";
import type { Clock } from "../../internal/api/serve_options.ts";
import { listenTcp } from "../../internal/server/listen.ts";
import { SYSTEM_CLOCK } from "../../internal/time/clock.ts";
import { type Preparation, PreparingListener } from "../wrappers/preparing_listener.ts";
import { HANDSHAKE_TIMEOUT, type Listener } from "../../internal/api/transport.ts";
import type { CertificateInfo } from "./certificates/certificate.ts";
import type { TlsCredentials } from "./credentials.ts";
import { tlsCredentials, type TlsServerCredentials } from "./handle.ts";

/** Options of {@linkcode listenTls}. */
export interface ListenTlsOptions extends Partial<TlsCredentials> {
  /**
   * Credentials that {@linkcode tlsCredentials} has loaded, in place of `cert`, `key`, `sni`, `clientCa`, `clientAuth`,
   * `alpnProtocols` and `onHandshake`. Several listeners, and `conn.startTls`, can share them.
   */
  credentials?: TlsServerCredentials | undefined;
  /**
   * The address or host name to listen on.
   *
   * @default {"0.0.0.0"}
   */
  hostname?: string | undefined;
  /**
   * The port to listen on; 0 picks a free one.
   *
   * @default {8080}
   */
  port?: number | undefined;
  /** The listener that accepts the connections, in place of `hostname` and `port`. The new listener owns it. */
  listener?: Listener | undefined;
  /**
   * Maximum time in milliseconds from the connection's start to the end of its handshake. A connection that takes longer
   * is closed and rejected with reason `tls-handshake`. `Infinity` switches the limit off.
   *
   * @default {10_000}, or that of `credentials`
   */
  handshakeTimeout?: number | undefined;
  /**
   * Maximum number of handshakes at a time. While there are this many, no other connection is accepted, and one whose
   * handshake has taken a second is closed and rejected with reason `tls-handshake`, the longest first.
   *
   * @default {1_000}
   */
  maxHandshakes?: number | undefined;
  /** Tells the time and sets the timers; a test can pass a clock that it moves by hand. */
  clock?: Clock | undefined;
}

/** A listener whose connections are encrypted, for `serve({ listener })`. */
export interface TlsListener extends Listener {
  /** The certificate that the server shows to new connections. */
  readonly certificate: CertificateInfo;
  /**
   * Replaces the credentials for connections that come from now on. Open connections and handshakes that have begun are
   * not affected, and no connection is refused meanwhile.
   *
   * @param credentials The new credentials. Without `clientCa`, the present authorities stay; the same holds for `sni`,
   * `alpnProtocols` and `clientAuth`. `handshakeTimeout` is not changed.
   * @returns When the new credentials are in use, also for others that share them.
   * @throws {TlsCredentialsError} (As a rejection.) If one of them cannot be used, or a certificate has expired or is not
   * valid yet; the old credentials stay in use then.
   * @throws {RangeError | TypeError} (As a rejection.) If one of them is of the wrong type or out of range.
   */
  reload(credentials: TlsCredentials): Promise<void>;
}

/**
 * Listens for TLS connections, versions 1.2 and 1.3. The server reads and writes their decrypted bytes, and treats them
 * like any other connection.
 *
 * Handshakes run side by side, and the server gets a connection once its handshake is done. A handshake that fails
 * closes its own connection, with a `rejected` event. A client that ends its side has to send TLS's close_notify: if its
 * input ends without, the connection may have been cut, so it ends with reason `reset`, and a last line without a line
 * end is not answered.
 *
 * An expired certificate is accepted at the start, because a server that some clients refuse may be better than none:
 * see {@linkcode TlsListener.certificate}. A reload refuses one.
 *
 * @param options Where to listen, the certificate and the key.
 * @returns The listener, which listens already.
 * @throws {TlsCredentialsError} (As a rejection.) If the certificate or the key cannot be used.
 * @throws {RangeError | TypeError} (As a rejection.) If an option is of the wrong type or out of range; nothing is bound
 * then either.
 * @throws {Deno.errors.AddrInUse} (As a rejection.) If the port is taken.
 *
 * @example A server that loads a new certificate at SIGHUP, without a pause (not run here: it needs a certificate)
 * ```ts ignore
 * import { serve } from "@x/shouty";
 * import { listenTls } from "@x/shouty/ops";
 *
 * const read = async () => ({
 *   cert: await Deno.readTextFile("fullchain.pem"),
 *   key: await Deno.readTextFile("privkey.pem"),
 * });
 * const listener = await listenTls({ port: 8443, ...await read() });
 * serve({ listener });
 *
 * Deno.addSignalListener("SIGHUP", async () => {
 *   try {
 *     await listener.reload(await read());
 *   } catch (error) {
 *     console.error("The old certificate stays:", error);
 *   }
 * });
 * ```
 */
export async function listenTls(options: ListenTlsOptions): Promise<TlsListener> {
  checkOptions("listenTls options", options);
  checkHostname(options.hostname);
  checkListener(options.listener, true);
  const { hostname = DEFAULT_HOSTNAME, port = DEFAULT_PORT, clock = SYSTEM_CLOCK, maxHandshakes = 1_000 } = options;
  checkWhole("port", port, 0, 65_535);
  checkWhole("maxHandshakes", maxHandshakes, 1, Infinity);
  checkClock(clock);
  const credentials = await credentialsOf(options);
  const { handshakeTimeout = credentials.handshakeTimeout ?? HANDSHAKE_TIMEOUT } = options;
  checkTimeout("handshakeTimeout", handshakeTimeout);
  const listener = options.listener ?? listenTcp({ hostname, port });
  return new SecureListener(listener, credentials, { timeout: handshakeTimeout, maxPending: maxHandshakes, clock });
}

const OWN_CREDENTIALS = ["cert", "key", "sni", "clientCa", "clientAuth", "alpnProtocols", "onHandshake"] as const;

/** The given credentials, or new ones of the options. */
function credentialsOf(options: ListenTlsOptions): Promise<TlsServerCredentials> {
  const { credentials } = options;
  if (credentials === undefined) return tlsCredentials(options as TlsCredentials);
  checkMethods("credentials", credentials, "tlsCredentials", ["accept", "reload"]);
  const other = OWN_CREDENTIALS.find((name) => options[name] !== undefined);
  if (other !== undefined) throw new TypeError(`Cannot use ${other}: credentials are given`);
  return Promise.resolve(credentials);
}

const NO_BYTES = new Uint8Array();

class SecureListener extends PreparingListener implements TlsListener {
  readonly #credentials: TlsServerCredentials;

  constructor(
    listener: Listener,
    credentials: TlsServerCredentials,
    limits: Pick<Preparation, "timeout" | "maxPending" | "clock">,
  ) {
    super(listener, {
      prepare: (transport) => credentials.accept(transport, NO_BYTES),
      what: "TLS handshake",
      reason: "tls-handshake",
      ...limits,
    });
    this.#credentials = credentials;
  }

  get certificate(): CertificateInfo {
    return this.#credentials.certificate;
  }

  reload(credentials: TlsCredentials): Promise<void> {
    return this.#credentials.reload(credentials);
  }
}
