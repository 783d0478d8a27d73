/**
 * The interfaces through which the server accepts connections, transfers their bytes, and learns who the peer is.
 *
 * @module
 */

import { escapeUnsafe, harmless, ignoreErrors } from "./errors.ts";

/**
 * What a TLS handshake has agreed on, and who the peer is. `serverName`, and the names in a certificate, come from the
 * peer and may hold anything: quote them in a log.
 */
export interface TlsInfo {
  /** The version of TLS. */
  readonly version: "TLSv1.2" | "TLSv1.3";
  /** The cipher suite, by its standard name, such as `TLS_AES_128_GCM_SHA256`. */
  readonly cipher: string;
  /** The server's name, for which the client has asked (SNI); undefined if it did not. */
  readonly serverName: string | undefined;
  /** The protocol that both sides have agreed on (ALPN), such as `imap`; undefined if they did not. */
  readonly alpn: string | undefined;
  /** The peer's certificate; absent if it has shown none. */
  readonly peer?: PeerCertificate;
}

/** The certificate of a TLS connection's peer. */
export interface PeerCertificate {
  /** The name that it was issued to, such as `CN=client, O=Example`. */
  readonly subject: string;
  /** The subject alternative names, each with its type, such as `DNS:example.org` or `IP Address:192.0.2.1`. */
  readonly altNames: readonly string[];
  /** The SHA-256 fingerprint of the certificate: 32 pairs of hexadecimal digits in upper case, joined by colons. */
  readonly fingerprint256: string;
  /** Whether an authority that this side trusts has signed it, and it is valid now. */
  readonly verified: boolean;
}

/**
 * What a proxy has said about a connection in its PROXY header, besides the addresses. Version 1 can say nothing more.
 *
 * The texts come from outside and may hold anything: quote them in a log. A value that is not UTF-8 is in `tlvs` alone.
 */
export interface ProxyInfo {
  /** The host name that the client has asked the proxy for, mostly by TLS's SNI. */
  readonly authority?: string;
  /** The name (CN) in the client's certificate, if the proxy has got one and has verified it. */
  readonly tlsClientName?: string;
  /** The identifier of the VPC endpoint through which the client came to Amazon's load balancer. */
  readonly awsEndpointId?: string;
  /**
   * The values of the header's extensions, by type, in bytes. Those within the extension about TLS (type 0x20) are
   * included: their types are different from all others. If a type comes twice, the first value counts. A header that
   * names no family of addresses has none.
   */
  readonly tlvs: ReadonlyMap<number, Uint8Array<ArrayBuffer>>;
}

/** Default of `handshakeTimeout`, in milliseconds. */
export const HANDSHAKE_TIMEOUT = 10_000;

/** Certificates and keys with which `conn.startTls` can begin TLS; `tlsCredentials` of `@x/shouty/ops` makes them. */
export interface TlsCredentialsHandle {
  /**
   * Maximum time of a handshake, in milliseconds; `Infinity` for no limit. The caller of `accept` sees to it.
   *
   * @default {10_000}
   */
  readonly handshakeTimeout?: number;
  /**
   * Performs the server's side of a TLS handshake.
   *
   * @param transport Transfers the encrypted bytes. On success, the new transport owns it; otherwise the caller closes
   * it, and closing it meanwhile makes this reject.
   * @param firstBytes Encrypted bytes that have been read already, before those of `transport`.
   * @returns A transport for the decrypted bytes, and what is known of the peer.
   */
  accept(transport: Transport, firstBytes: Uint8Array): Promise<Transport & { readonly tls: TlsInfo }>;
}

/**
 * Transfers the bytes of one connection. A `Deno.Conn` is a transport without any change. Others wrap one, for TLS or
 * PROXY headers, for example, or to inject faults in a test.
 *
 * The server has at most one `read` and one `write` outstanding, and calls either `close` or `reset`, once.
 */
export interface Transport {
  /** The peer's address. */
  readonly remoteAddr: Deno.Addr;
  /** This side's address. */
  readonly localAddr: Deno.Addr;
  /** What the TLS handshake has agreed on, if the connection is encrypted. */
  readonly tls?: TlsInfo | undefined;
  /** What the PROXY header has said, if there was one, and the proxy has not connected for itself (`LOCAL`). */
  readonly proxy?: ProxyInfo | undefined;
  /**
   * Reads the bytes that have come; waits until there is at least one.
   *
   * @param into The buffer for the bytes. The server does not touch it until the promise settles.
   * @returns The number of bytes read, at least 1, or `null` at the end of input. Any other value, such as 0, ends the
   * connection with reason `transport-error`.
   */
  read(into: Uint8Array): Promise<number | null>;
  /**
   * Writes some of the bytes.
   *
   * @param bytes The bytes to write. The server does not change them until the promise settles.
   * @returns The number of bytes taken, from the first on.
   */
  write(bytes: Uint8Array): Promise<number>;
  /** Ends this side. The peer reads the end of input, and can go on sending. */
  closeWrite(): Promise<void>;
  /** Closes the connection at once. An outstanding `read` or `write` rejects. */
  close(): void;
  /** Switches Nagle's algorithm off, if the transport has it. */
  setNoDelay?: ((noDelay?: boolean) => void) | undefined;
  /** Makes the kernel check whether a silent peer is still there, if it can. */
  setKeepAlive?: ((keepAlive?: boolean) => void) | undefined;
  /**
   * Closes the connection at once with a reset, so that the peer does not take a truncated reply for a whole one. The
   * server calls it in place of `close` when it aborts a connection whose replies have not all been written. Without
   * this method, the server calls `close`.
   */
  reset?: (() => void) | undefined;
  /**
   * Returns the number of bytes that the peer's side has taken since a `write` began to wait, or since the last call.
   * With it, `writeTimeout` sees the progress of a peer that reads slowly even while no `write` settles: a kernel that
   * buffers much can take nothing for a long time.
   */
  progress?: (() => number) | undefined;
  /**
   * Makes the transport call back when the peer resets the connection while neither a read nor a write is outstanding.
   * Without this method, the next read or write reports the reset.
   *
   * @param callback Called at most once, and not after `close` or `reset`, with the error. Reads still return what had
   * come before the reset, and then reject with the same error.
   */
  onReset?: ((callback: (error: unknown) => void) => void) | undefined;
  /**
   * The memory that it holds in addition to what it holds at rest, in bytes, such as encrypted output not yet written.
   */
  readonly heldBytes?: number | undefined;
  /**
   * Settles when the rest has come of what can only be read whole, such as a TLS record; undefined if no part of it has
   * come. A drain waits for the rest, as it does within a line. A record that brings no text settles no read.
   */
  readonly whole?: Promise<unknown> | undefined;
  /** Makes an outstanding read keep the process alive, which is the default. */
  ref?: (() => void) | undefined;
  /** Lets the process end while a read is outstanding. */
  unref?: (() => void) | undefined;
}

/** Accepts connections. A `Deno.Listener` is a listener without any change. */
export interface Listener {
  /** The address that it listens on. */
  readonly addr: Deno.Addr;
  /**
   * Waits for the next connection. The server has at most one call outstanding. A rejection need not end the listener:
   * it can concern one connection only, such as {@linkcode AcceptRejection}, if the listener itself rejected a
   * connection.
   */
  accept(): Promise<Transport>;
  /**
   * Stops listening; an outstanding `accept` rejects.
   *
   * @returns Nothing, if the address is free once the outstanding `accept` has rejected. A wrapper whose inner listener
   * is still accepting then returns a promise that settles when the address is free. A shutdown waits for both until a
   * second after its deadline.
   */
  close(): void | Promise<void>;
  /** The number of connections that it has accepted and not handed out yet, such as those in a TLS handshake. */
  readonly queued?: number | undefined;
  /** Makes the listener keep the process alive, which is the default. */
  ref?: (() => void) | undefined;
  /** Lets the process end while the listener is open. */
  unref?: (() => void) | undefined;
}

/**
 * Formats an address for people: `127.0.0.1:8080`, `[::1]:8080`, `unix:/run/shouty.sock`.
 *
 * @param addr The address of a listener or of one end of a connection.
 * @returns Its text.
 */
export function formatAddr(addr: Deno.Addr): string {
  if ("hostname" in addr) {
    const host = addr.hostname.includes(":") ? `[${addr.hostname}]` : addr.hostname;
    return `${host}:${addr.port}`;
  }
  // Deno reports the path `null` for a socket without a file, as nearly all clients have. A path was chosen by the
  // peer, so it may hold anything.
  return "path" in addr && addr.path ? `unix:${escapeUnsafe(addr.path)}` : addr.transport;
}

/** Switches Nagle's algorithm off, if the transport can. */
export function dontDelay(transport: Pick<Transport, "setNoDelay">): void {
  // It fails if the peer has reset the connection already; the next read or write reports that.
  ignoreErrors(() => transport.setNoDelay?.(true));
}

/** Makes the kernel check whether a silent peer is still there, if the transport can. */
export function keepAlive(transport: Pick<Transport, "setKeepAlive">): void {
  // It fails if the peer has reset the connection already; the next read or write reports that.
  ignoreErrors(() => transport.setKeepAlive?.(true));
}

/** Returns the memory that a transport says it holds; 0 for a custom one that says nothing of use. */
export function heldBytes(transport: Pick<Transport, "heldBytes">): number {
  return numberOf(() => transport.heldBytes);
}

/** When the rest has come of what can only be read whole; undefined for a custom transport that cannot tell. */
export function wholeOf(transport: Pick<Transport, "whole">): Promise<unknown> | undefined {
  try {
    const { whole } = transport;
    return whole instanceof Promise ? whole.catch(() => {}) : undefined;
  } catch {
    return undefined;
  }
}

/** Whether a transport has an optional method; a custom one that cannot tell has none. */
export function has<Name extends "progress" | "reset">(transport: Pick<Transport, Name>, name: Name): boolean {
  try {
    return transport[name] !== undefined;
  } catch {
    return false;
  }
}

/** Returns how many bytes the peer's side has taken; 0 for a custom transport that says nothing of use. */
export function progressOf(transport: Pick<Transport, "progress">): number {
  return numberOf(() => transport.progress!());
}

/** Returns how many connections wait in a listener; 0 for a custom one that says nothing of use. */
export function queuedIn(listener: Pick<Listener, "queued">): number {
  return numberOf(() => listener.queued);
}

/** Reads a whole number that is not trusted: timers and the admin port ask for it, where an error would end the process. */
function numberOf(read: () => unknown): number {
  try {
    const number = read();
    if (number instanceof Promise) harmless(number);
    return Number.isSafeInteger(number) ? Math.max(0, number as number) : 0;
  } catch {
    return 0;
  }
}

/** Closes a resource that may be closed already. */
export function closeQuietly(what: { close(): void }): void {
  // An error means that it is closed already, as it should be. A custom transport may close in an async function.
  ignoreErrors(() => what.close());
}

/** Resets a transport that may be closed already; closes it if it cannot be reset. */
export function resetQuietly(transport: Transport): void {
  closeQuietly({ close: () => has(transport, "reset") ? transport.reset!() : transport.close() });
}

/**
 * Whether an error means that the peer has reset the connection, or no longer answers the kernel's probes; its class
 * depends on the operation under way.
 */
export function isReset(error: unknown): boolean {
  return RESETS.some((kind) => error instanceof kind);
}

const { ConnectionReset, ConnectionAborted, BrokenPipe, NotConnected, TimedOut, UnexpectedEof } = Deno.errors;
const RESETS = [ConnectionReset, ConnectionAborted, BrokenPipe, NotConnected, TimedOut, UnexpectedEof];

/**
 * A transport that passes every call on to another transport; a wrapper extends it and overrides what it changes. An
 * optional method that the inner transport lacks is missing here too, since the server does something else without it.
 */
export class Forwarding implements Transport {
  /** The transport that gets the calls. */
  protected readonly inner: Transport;

  /** @param inner The transport that gets the calls. */
  constructor(inner: Transport) {
    this.inner = inner;
  }

  get remoteAddr(): Deno.Addr {
    return this.inner.remoteAddr;
  }

  get localAddr(): Deno.Addr {
    return this.inner.localAddr;
  }

  get tls(): TlsInfo | undefined {
    return this.inner.tls;
  }

  get proxy(): ProxyInfo | undefined {
    return this.inner.proxy;
  }

  get heldBytes(): number {
    return this.inner.heldBytes ?? 0;
  }

  get whole(): Promise<unknown> | undefined {
    return this.inner.whole;
  }

  get setNoDelay(): ((noDelay?: boolean) => void) | undefined {
    return this.inner.setNoDelay && this.#setNoDelay;
  }

  get setKeepAlive(): ((keepAlive?: boolean) => void) | undefined {
    return this.inner.setKeepAlive && this.#setKeepAlive;
  }

  get reset(): (() => void) | undefined {
    return this.inner.reset && this.#reset;
  }

  get onReset(): ((callback: (error: unknown) => void) => void) | undefined {
    return this.inner.onReset && this.#onReset;
  }

  get progress(): (() => number) | undefined {
    return this.inner.progress && this.#progress;
  }

  read(into: Uint8Array): Promise<number | null> {
    return this.inner.read(into);
  }

  write(bytes: Uint8Array): Promise<number> {
    return this.inner.write(bytes);
  }

  closeWrite(): Promise<void> {
    return this.inner.closeWrite();
  }

  close(): void {
    this.ending("close");
    this.inner.close();
  }

  /** Called before the inner transport is closed or reset, for a wrapper that has to know. */
  protected ending(_how: "close" | "reset"): void {}

  ref(): void {
    this.inner.ref?.();
  }

  unref(): void {
    this.inner.unref?.();
  }

  #setNoDelay(noDelay?: boolean): void {
    this.inner.setNoDelay!(noDelay);
  }

  #setKeepAlive(keepAlive?: boolean): void {
    this.inner.setKeepAlive!(keepAlive);
  }

  #reset(): void {
    this.ending("reset");
    this.inner.reset!();
  }

  #onReset(callback: (error: unknown) => void): void {
    this.inner.onReset!(callback);
  }

  #progress(): number {
    return this.inner.progress!();
  }
}
