/**
 * The seam between the server and whatever carries its bytes.
 *
 * @module
 */

import { escapeUnsafe } from "./errors.ts";

/**
 * One connection's bytes. `Deno.Conn` is one as it is; TLS, a PROXY header or a fault are others, or wrappers of one.
 *
 * The server has at most one `read` and one `write` outstanding, and calls `close` once.
 */
export interface Transport {
  /** The peer's address. */
  readonly remoteAddr: Deno.Addr;
  /** This side's address. */
  readonly localAddr: Deno.Addr;
  /**
   * Reads what is there, waiting for at least one byte.
   *
   * @param into Where the bytes go; the server does not touch it until the promise settles.
   * @returns How many bytes came, or `null` at the end of input.
   */
  read(into: Uint8Array): Promise<number | null>;
  /**
   * Writes some of the bytes.
   *
   * @param bytes What to write; it stays as it is until the promise settles.
   * @returns How many of them were taken, from the first on.
   */
  write(bytes: Uint8Array): Promise<number>;
  /** Ends this side; the peer reads the end of input, and can go on sending. */
  closeWrite(): Promise<void>;
  /** Frees the connection at once; an outstanding `read` or `write` rejects. */
  close(): void;
  /** Switches Nagle's algorithm off, where the transport has one. */
  setNoDelay?: ((noDelay?: boolean) => void) | undefined;
  /** Has the kernel find out whether a silent peer is still there, where it can. */
  setKeepAlive?: ((keepAlive?: boolean) => void) | undefined;
  /**
   * Frees the connection at once and resets it, so that the peer cannot take an answer that was cut off for a whole one;
   * the server calls it in place of `close` when it aborts a connection. Without it, `close` is called.
   */
  reset?: (() => void) | undefined;
  /**
   * Tells how many bytes the peer's side has taken since a `write` began to wait, or since the last call. With it,
   * `writeTimeout` sees the progress of a slow reader although no `write` settles: the kernel buffers much.
   */
  progress?: (() => number) | undefined;
  /**
   * Has the transport tell of a peer that resets the connection while neither a read nor a write is outstanding, which
   * would tell it otherwise. Without it, the next read or write finds out.
   *
   * @param callback Called once at most, and not after `close` or `reset`; with the error, which the next read rejects
   * with as well once it has read what had come before.
   */
  onReset?: ((callback: (error: unknown) => void) => void) | undefined;
  /** The memory in bytes that it holds beyond what it holds at rest, such as encrypted output that waits for the peer. */
  readonly heldBytes?: number | undefined;
  /** Lets the process live as long as a read is outstanding, which is the default. */
  ref?: (() => void) | undefined;
  /** Lets the process end although a read is outstanding. */
  unref?: (() => void) | undefined;
}

/** Where connections come from. `Deno.Listener` is one as it is. */
export interface Listener {
  /** Where it listens. */
  readonly addr: Deno.Addr;
  /**
   * Waits for the next connection; the server has one call outstanding at most. It may reject for one connection's
   * sake: with {@linkcode AcceptRejection}, if the listener itself turned it away.
   */
  accept(): Promise<Transport>;
  /**
   * Stops listening; an outstanding `accept` rejects.
   *
   * @returns Nothing, if the address is free when that has happened; a wrapper may still be accepting below then, and
   * returns a promise that settles when it is.
   */
  close(): void | Promise<void>;
  /** Lets the process live as long as it listens, which is the default. */
  ref?: (() => void) | undefined;
  /** Lets the process end although it listens. */
  unref?: (() => void) | undefined;
}

/**
 * An address as people write it: `127.0.0.1:8080`, `[::1]:8080`, `unix:/run/shouty.sock`.
 *
 * @param addr The address of a listener or of one end of a connection.
 * @returns Its text.
 */
export function formatAddr(addr: Deno.Addr): string {
  if ("hostname" in addr) {
    const host = addr.hostname.includes(":") ? `[${addr.hostname}]` : addr.hostname;
    return `${host}:${addr.port}`;
  }
  // Deno says `null` of a peer whose socket has no file, as hardly any client's has one. The peer chose a path.
  return "path" in addr && addr.path ? `unix:${escapeUnsafe(addr.path)}` : addr.transport;
}

/** Switches Nagle's algorithm off, if it can be. */
export function dontDelay(transport: Pick<Transport, "setNoDelay">): void {
  try {
    transport.setNoDelay?.(true);
  } catch {
    // It has been reset already, as the next call will tell.
  }
}

/** Has the kernel find out whether a silent peer is still there, if it can. */
export function keepAlive(transport: Pick<Transport, "setKeepAlive">): void {
  try {
    transport.setKeepAlive?.(true);
  } catch {
    // It has been reset already, as the next call will tell.
  }
}

/** Closes what may be closed already. */
export function closeQuietly(what: { close(): void }): void {
  try {
    what.close();
  } catch {
    // Closed it is, which is what was wanted.
  }
}

/** Resets what may be closed already, or closes it where there is no way to reset it. */
export function resetQuietly(transport: Transport): void {
  if (transport.reset === undefined) return closeQuietly(transport);
  closeQuietly({ close: () => transport.reset!() });
}

/** How a peer's breaking off can look, depending on what was under way. */
export function isReset(error: unknown): boolean {
  const { ConnectionReset, ConnectionAborted, BrokenPipe, NotConnected, UnexpectedEof } = Deno.errors;
  return [ConnectionReset, ConnectionAborted, BrokenPipe, NotConnected, UnexpectedEof]
    .some((kind) => error instanceof kind);
}

/**
 * A transport that passes every call on to another; a wrapper overrides what it changes. What a transport can lack is
 * lacking here too, where the other lacks it: to be there means something.
 */
export class Forwarding implements Transport {
  /** What the calls are passed on to. */
  protected readonly inner: Transport;

  /** @param inner What the calls are passed on to. */
  constructor(inner: Transport) {
    this.inner = inner;
  }

  get remoteAddr(): Deno.Addr {
    return this.inner.remoteAddr;
  }

  get localAddr(): Deno.Addr {
    return this.inner.localAddr;
  }

  get heldBytes(): number {
    return this.inner.heldBytes ?? 0;
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
    this.inner.close();
  }

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
    this.inner.reset!();
  }

  #progress(): number {
    return this.inner.progress!();
  }
}
