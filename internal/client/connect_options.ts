/**
 * The options of connections that this side opens: their meaning, defaults and allowed values.
 *
 * @module
 */

import {
  checkClock,
  checkFunction,
  checkKeepAlive,
  checkOptions,
  checkProtocols,
  checkSignal,
  checkString,
  checkTimeout,
  checkWhole,
  DEFAULT_BUFFERED_BYTES,
  DEFAULT_KEEP_ALIVE_MS,
  show,
} from "../api/check.ts";
import type { ConnOptions } from "../api/conn_options.ts";
import type { Framing } from "../api/framing.ts";
import type { Conn } from "../api/handlers.ts";
import type { Clock } from "../api/serve_options.ts";
import type { Transport } from "../api/transport.ts";

/**
 * What a TLS client trusts, shows and speaks. The server's certificate is always verified: its chain, its dates, its use
 * and its name; no option switches that off.
 */
export interface ConnectTlsOptions {
  /**
   * The server's host name, or its IP address. Its certificate has to be for that: among the certificate's alternative
   * names, where `*` stands for one label, the first. A host name is sent to the server (SNI), an address is not. The
   * default is `hostname`; with `path` or `dial` there is none.
   */
  serverName?: string | undefined;
  /**
   * The certificates, in PEM, of the authorities to trust, in place of those that Deno trusts. Authorities whose key is on
   * the curve P-521 are not supported here. By default, these are the authorities of Deno: Mozilla's, or what
   * `DENO_TLS_CA_STORE`, `--cert` and `tls.setDefaultCACertificates` say.
   */
  caCerts?: string | readonly string[] | undefined;
  /** The client's own certificate, in PEM, for a server that asks for one; with its key, unless `key` is given. */
  cert?: string | undefined;
  /** The private key of `cert`, in PEM, without a passphrase. */
  key?: string | undefined;
  /**
   * The protocols that the client speaks (ALPN), the one that it prefers first; each of 1 to 255 bytes in UTF-8. The
   * server picks one: `conn.tls.alpn`, which is undefined if the server does not know ALPN.
   */
  alpnProtocols?: readonly string[] | undefined;
}

/** Where to connect to, and how. */
export interface DialOptions {
  /**
   * The host name or address to connect to.
   *
   * @default {"127.0.0.1"}
   */
  hostname?: string | undefined;
  /** The port to connect to. */
  port?: number | undefined;
  /** The path of a Unix socket to connect to, in place of `hostname` and `port`. */
  path?: string | undefined;
  /**
   * Opens the connection, in place of `hostname`, `port` and `path`: through another proxy, or in memory in a test. The
   * signal aborts when its result is no longer wanted: `connectTimeout` is up, the option `signal` has aborted, or a pool
   * is shut down. What it has opened until then, it closes itself; what it returns later is closed.
   */
  dial?: ((options: { readonly signal: AbortSignal }) => Transport | Promise<Transport>) | undefined;
  /** TLS, if it is `true` or options; by default the connection is not encrypted. */
  tls?: boolean | ConnectTlsOptions | undefined;
  /**
   * Maximum time until the connection is open and its TLS handshake is done, in milliseconds. `Infinity` waits for ever.
   *
   * @default {10_000}
   */
  connectTimeout?: number | undefined;
  /**
   * Time of silence after which the kernel asks the peer's system whether it is still there, in milliseconds, as in
   * `serve`; Deno's sockets can only switch it on or, with `Infinity`, leave it off.
   *
   * @default {15_000}
   */
  keepAliveMs?: number | undefined;
  /** The source of time; a test can pass a clock that it moves by hand. */
  clock?: Clock | undefined;
}

/** Options of {@linkcode connect}: where to connect to, and the limits of the connection. */
export interface ConnectOptions<Data = undefined> extends ConnOptions, DialOptions {
  /**
   * Maximum time until the server's first byte, in milliseconds, for a server that speaks first. It runs while a read
   * waits; what this side writes does not restart it. `Infinity` switches it off: most servers say nothing before they
   * are asked, and `idleTimeout` bounds the time for their answer.
   *
   * @default {Infinity}
   */
  firstLineTimeout?: number | undefined;
  /**
   * Maximum time between two reads or writes after the server has ended its side, in milliseconds. By default there is
   * none: what the server has sent waits until the caller reads it, or closes the connection.
   *
   * @default {Infinity}
   */
  halfCloseTimeout?: number | undefined;
  /**
   * Maximum memory, in bytes, that the connection may hold in input that a read waits for and in output that the server
   * has not taken for 250 ms; the first 256 bytes of input and the first 4 KiB of output are not counted. Above it, the
   * connection is closed, with reason `memory`. A read with a large `maxBytes` of its own needs as much. `Infinity`
   * switches it off.
   *
   * @default {134_217_728}
   */
  maxBufferedBytes?: number | undefined;
  /**
   * Ends the connection when it aborts, also while it is being opened: with a reset where the transport can send one.
   * What waits to be written is lost then.
   */
  signal?: AbortSignal | undefined;
  /** How lines are framed. */
  framing?: Partial<Framing> | undefined;
  /**
   * Makes `conn.data`. Called once the connection is open. If it throws, the connection is aborted, and `connect` rejects
   * with what it threw.
   *
   * @param conn The connection, whose data is not there yet.
   */
  data?: ((conn: Conn<never>) => Data) | undefined;
}

/**
 * Checks the options that no other part checks.
 *
 * @throws {RangeError | TypeError} If an option is wrong.
 */
export function checkConnectOptions<Data>(options: ConnectOptions<Data>): void {
  checkOptions("connect options", options);
  const { hostname, port, path, dial, tls, signal, connectTimeout } = options;
  const { keepAliveMs = DEFAULT_KEEP_ALIVE_MS, maxBufferedBytes = DEFAULT_BUFFERED_BYTES } = options;
  checkText("hostname", hostname);
  checkText("path", path);
  checkFunction("dial", dial, true);
  if (port !== undefined) checkWhole("port", port, 1, 65_535);
  checkTarget(options);
  if (connectTimeout !== undefined) checkTimeout("connectTimeout", connectTimeout);
  checkKeepAlive(keepAliveMs);
  checkWhole("maxBufferedBytes", maxBufferedBytes, 1, Infinity);
  checkSignal(signal);
  checkFunction("data", options.data, true);
  checkClock(options.clock, true);
  if (tls !== undefined && typeof tls !== "boolean") checkTlsOptions(tls);
}

/** Checks what can be checked without the library for TLS, which is loaded when it is used. */
function checkTlsOptions(tls: ConnectTlsOptions): void {
  checkOptions("tls", tls);
  checkString("tls.cert", tls.cert);
  checkString("tls.key", tls.key);
  checkProtocols(tls.alpnProtocols);
  const { caCerts = "" } = tls;
  const texts: readonly unknown[] = Array.isArray(caCerts) ? caCerts : [caCerts];
  if (texts.length > 0 && texts.every((text) => typeof text === "string")) return;
  throw new TypeError(`Cannot use caCerts: expected text in PEM, or an array of such texts, got ${show(caCerts)}`);
}

function checkText(name: string, value: unknown): void {
  checkString(name, value);
  if (value === "") throw new TypeError(`Cannot use ${name} "": expected at least one character`);
}

/** Checks that there is one place to connect to, and a name to verify the server's certificate with. */
function checkTarget({ hostname, port, path, dial, tls }: DialOptions): void {
  const targets = [port, path, dial].filter((target) => target !== undefined);
  if (targets.length !== 1) {
    const got = targets.length === 0 ? "none of them" : "several of them";
    throw new TypeError(`Cannot connect: expected one of port, path and dial, got ${got}`);
  }
  if (hostname !== undefined && port === undefined) {
    throw new TypeError(`Cannot use hostname ${show(hostname)} without port: expected both`);
  }
  const { serverName = undefined } = typeof tls === "object" && tls !== null ? tls : {};
  checkText("tls.serverName", serverName);
  if (tls && port === undefined && serverName === undefined) {
    throw new TypeError("Cannot use tls without a name to verify: expected tls.serverName beside path or dial");
  }
}

/** Fills in a default of a client that differs from that of a server. */
export function withDefaults<Options extends ConnOptions>(options: Options): Options {
  const { firstLineTimeout = Infinity } = options;
  return { ...options, firstLineTimeout };
}

/** The options of the TLS handshake, with the name that the server's certificate must have. */
export function tlsOptionsOf(
  { hostname = DEFAULT_TARGET, tls }: DialOptions,
): ConnectTlsOptions & { serverName: string } {
  const options = typeof tls === "object" ? tls : {};
  return { ...options, serverName: options.serverName ?? hostname };
}

/** Copies where to connect to, and how: the caller may change the options while a pool uses them again and again. */
export function dialOptionsOf(options: DialOptions): DialOptions {
  const { hostname, port, path, dial, tls, connectTimeout, keepAliveMs, clock } = options;
  const ownTls = typeof tls === "object" ? { ...tls } : tls;
  return { hostname, port, path, dial, tls: ownTls, connectTimeout, keepAliveMs, clock };
}

/** The host to connect to by default. */
export const DEFAULT_TARGET = "127.0.0.1";

/** The address of the target; undefined if only `dial` knows it. */
export function targetOf({ hostname = DEFAULT_TARGET, port, path }: DialOptions): Deno.Addr | undefined {
  if (path !== undefined) return { transport: "unix", path };
  return port === undefined ? undefined : { transport: "tcp", hostname, port };
}
