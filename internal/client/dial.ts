/**
 * Opens a connection to somewhere else.
 *
 * @module
 */

import { checkTransport } from "../api/check.ts";
import { prefixed } from "../api/errors.ts";
import { closeQuietly, formatAddr, keepAlive, type Transport } from "../api/transport.ts";
import { setDeadline } from "../time/alarms.ts";
import { SYSTEM_CLOCK } from "../time/clock.ts";
import { type ConnectTlsOptions, DEFAULT_TARGET, type DialOptions, targetOf, tlsOptionsOf } from "./connect_options.ts";
import { SecuredTransport, ServerTransport } from "./server_transport.ts";

/** Performs the client's side of a TLS handshake. Closing the transport meanwhile makes it reject. */
export type Secure = (transport: Transport, options: ConnectTlsOptions & { serverName: string }) => Promise<Transport>;

/**
 * Opens a connection, and performs its TLS handshake, if there is one. It gives up when `connectTimeout` is up, or when
 * the signal aborts; nothing stays open then.
 *
 * @param options Where to connect to.
 * @param secure Performs the TLS handshake.
 * @param signal Ends the attempt when it aborts.
 * @returns The connection. All failures are rejections.
 */
export async function dial(
  options: DialOptions,
  secure: Secure,
  signal: AbortSignal | undefined,
): Promise<Transport> {
  const { connectTimeout = 10_000, clock = SYSTEM_CLOCK } = options;
  signal?.throwIfAborted();
  const attempt = new Attempt(options, secure);
  const abort = () => attempt.giveUp(signal!.reason);
  const late = () => attempt.giveUp(failed(options, new Deno.errors.TimedOut(`no answer within ${connectTimeout} ms`)));
  // First, as it can throw: nothing waits for the attempt then, which a signal must not give up.
  const cancel = setDeadline(clock, late, connectTimeout);
  signal?.addEventListener("abort", abort);
  try {
    const transport = await attempt.run();
    // It may have been given up, and closed the transport, just when it was done.
    attempt.throwIfGivenUp();
    return transport;
  } finally {
    cancel();
    signal?.removeEventListener("abort", abort);
  }
}

/** One attempt. */
class Attempt {
  readonly #options: DialOptions;
  readonly #secure: Secure;
  readonly #givenUp = Promise.withResolvers<never>();
  readonly #aborter = new AbortController();
  #transport: Transport | undefined;

  constructor(options: DialOptions, secure: Secure) {
    this.#options = options;
    this.#secure = secure;
  }

  async run(): Promise<Transport> {
    try {
      return await Promise.race([this.#open(), this.#givenUp.promise]);
    } catch (error) {
      this.giveUp(error);
      throw error;
    }
  }

  /** Throws the error with which the attempt was given up, if it was. */
  throwIfGivenUp(): void {
    this.#aborter.signal.throwIfAborted();
  }

  /** Ends the attempt with an error. A transport that is open is closed; one that opens later is closed then. */
  giveUp(error: unknown): void {
    this.#givenUp.reject(error);
    this.#aborter.abort(error);
    // `giveUp` runs a second time when `run` rejects, so the transport is closed only once.
    if (this.#transport !== undefined) closeQuietly(this.#transport);
    this.#transport = undefined;
  }

  async #open(): Promise<Transport> {
    const { tls, keepAliveMs, clock = SYSTEM_CLOCK } = this.#options;
    const transport = this.#own(new ServerTransport(await this.#connect(), clock));
    if (keepAliveMs !== Infinity) keepAlive(transport);
    return tls ? this.#own(new SecuredTransport(await this.#shakeHands(transport), transport)) : transport;
  }

  async #shakeHands(transport: Transport): Promise<Transport> {
    try {
      return await this.#secure(transport, tlsOptionsOf(this.#options));
    } catch (error) {
      throw failed(this.#options, error);
    }
  }

  /** Notes what to close when the attempt is given up. If it has been given up already, closes it, and throws. */
  #own<T extends Transport>(transport: T): T {
    const { signal } = this.#aborter;
    if (signal.aborted) closeQuietly(transport);
    signal.throwIfAborted();
    this.#transport = transport;
    return transport;
  }

  async #connect(): Promise<Transport> {
    const { hostname = DEFAULT_TARGET, port = 0, path, dial } = this.#options;
    const { signal } = this.#aborter;
    if (dial !== undefined) {
      const transport = await dial({ signal });
      checkTransport("what dial returned", transport);
      return transport;
    }
    try {
      if (path !== undefined) return await Deno.connect({ transport: "unix", path });
      const conn = await Deno.connect({ hostname, port, signal });
      if (!isSelf(conn)) return conn;
      conn.close();
      throw new Deno.errors.ConnectionRefused("nothing listens there, and the socket has connected to itself");
    } catch (error) {
      throw failed(this.#options, error);
    }
  }
}

/**
 * Whether both ends of a connection are the same socket. The kernel may choose the target's port for this end; if nothing
 * listens there, the two ends of the "simultaneous open" of TCP (RFC 9293, 3.5) are one. A pool that dials a server which
 * is down would get its own requests as replies, and would keep the server from its port.
 */
function isSelf({ localAddr, remoteAddr }: Deno.TcpConn): boolean {
  return localAddr.port === remoteAddr.port && localAddr.hostname === remoteAddr.hostname;
}

/** Says what could not be reached. */
function failed(options: DialOptions, error: unknown): unknown {
  const target = targetOf(options);
  return prefixed(target === undefined ? "Cannot connect" : `Cannot connect to ${formatAddr(target)}`, error);
}
