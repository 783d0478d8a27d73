/**
 * TLS: a listener whose connections are encrypted.
 *
 * @module
 */

import {
  checkClock,
  checkHostname,
  checkListener,
  checkOptions,
  checkTimeout,
  checkWhole,
  DEFAULT_HOSTNAME,
  DEFAULT_PORT,
} from "../../internal/api/check.ts";
import type { Clock } from "../../internal/api/clock.ts";
import { SYSTEM_CLOCK } from "../../internal/time/clock.ts";
import { PreparingListener } from "../preparing_listener.ts";
import type { Listener } from "../../internal/api/transport.ts";
import { type CertificateInfo, datesProblem } from "./certificate.ts";
import { loadCredentials, type LoadedCredentials, type TlsCredentials, TlsCredentialsError } from "./credentials.ts";
import { TlsTransport } from "./transport.ts";

/** Options of {@linkcode listenTls}. */
export interface ListenTlsOptions extends TlsCredentials {
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
  /** Where connections come from, in place of `hostname` and `port`. It belongs to the new listener from then on. */
  listener?: Listener | undefined;
  /**
   * How long a handshake may take from the connection's start, in milliseconds. Then the connection is closed, and
   * rejected with reason `tls-handshake`. `Infinity` switches it off.
   *
   * @default {10_000}
   */
  handshakeTimeout?: number | undefined;
  /**
   * How many handshakes there may be at a time. While there are so many, nothing more is accepted, and those that have
   * taken a second already are given up, the longest first.
   *
   * @default {1_000}
   */
  maxHandshakes?: number | undefined;
  /** Where time comes from: a test can put a clock here that it moves by hand. */
  clock?: Clock | undefined;
}

/** A listener whose connections are encrypted, for `serve({ listener })`. */
export interface TlsListener extends Listener {
  /** The certificate that new connections get. */
  readonly certificate: CertificateInfo;
  /**
   * Takes other credentials, for connections that come from now on. Those that are there, shaking hands or long since
   * done with it, are left alone, and none is refused meanwhile.
   *
   * @param credentials The new ones. Without `clientCa`, that stays as it is.
   * @returns When they are in use.
   * @throws {TlsCredentialsError} (As a rejection.) If they are not what they should be, or the certificate does not
   * hold now; the old ones stay in use then.
   * @throws {TypeError} (As a rejection.) If one of them is not text.
   */
  reload(credentials: TlsCredentials): Promise<void>;
}

/**
 * Listens for TLS connections, versions 1.2 and 1.3. The server that they go to takes them for any others: it reads and
 * writes what is inside.
 *
 * Handshakes go on side by side, and the server gets a connection when its own is done. One that fails ends its own
 * connection, and is a `rejected` event. A client that ends its side has to say so, as TLS demands: one that just
 * leaves, or was cut off, ends with reason `reset`, and the line that it may not have finished is not answered.
 *
 * A certificate that has expired is taken at the start, as a server that some clients refuse may be better than none:
 * see {@linkcode TlsListener.certificate}. A reload refuses it.
 *
 * @param options Where to listen, and what with.
 * @returns The listener, which listens already.
 * @throws {TlsCredentialsError} (As a rejection.) If the certificate or the key are not what they should be.
 * @throws {RangeError | TypeError} (As a rejection.) If an option is of the wrong type or out of range; nothing is bound
 * then either.
 * @throws {Deno.errors.AddrInUse} (As a rejection.) If the port is taken.
 *
 * @example A server that takes a new certificate at SIGHUP, without a pause (not run here: it needs a certificate)
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
  const { hostname = DEFAULT_HOSTNAME, port = DEFAULT_PORT, cert, key, clientCa, clock = SYSTEM_CLOCK } = options;
  const { handshakeTimeout = 10_000, maxHandshakes = 1_000 } = options;
  checkTimeout("handshakeTimeout", handshakeTimeout);
  checkWhole("port", port, 0, 65_535);
  checkWhole("maxHandshakes", maxHandshakes, 1, Infinity);
  checkClock(clock);
  const credentials = { cert, key, clientCa };
  const loaded = await loadCredentials(credentials);
  const listener = options.listener ?? Deno.listen({ hostname, port });
  return new SecureListener(listener, { handshakeTimeout, maxHandshakes, clock }, credentials, loaded);
}

interface Handshakes {
  readonly handshakeTimeout: number;
  readonly maxHandshakes: number;
  readonly clock: Clock;
}

class SecureListener extends PreparingListener implements TlsListener {
  #credentials: TlsCredentials;
  #loaded: LoadedCredentials;
  #reloading = Promise.resolve();

  constructor(listener: Listener, handshakes: Handshakes, credentials: TlsCredentials, loaded: LoadedCredentials) {
    super(listener, {
      prepare: (transport) => TlsTransport.accept(transport, this.#loaded),
      what: "TLS handshake",
      reason: "tls-handshake",
      timeout: handshakes.handshakeTimeout,
      maxPending: handshakes.maxHandshakes,
      clock: handshakes.clock,
    });
    this.#credentials = credentials;
    this.#loaded = loaded;
  }

  get certificate(): CertificateInfo {
    return this.#loaded.certificate;
  }

  /** One after the other: each goes on from what the one before it has left. */
  reload(credentials: TlsCredentials): Promise<void> {
    const reloaded = this.#reloading.then(() => this.#reload(credentials));
    this.#reloading = reloaded.catch(() => {});
    return reloaded;
  }

  async #reload({ cert, key, clientCa = this.#credentials.clientCa }: TlsCredentials): Promise<void> {
    const credentials = { cert, key, clientCa };
    const loaded = await loadCredentials(credentials);
    const problem = datesProblem(loaded.certificate);
    if (problem !== undefined) throw new TlsCredentialsError("cert", `it ${problem}`);
    loaded.clients?.inherit(this.#loaded.clients);
    this.#credentials = credentials;
    this.#loaded = loaded;
  }
}
