/**
 * TCP sockets on the Linux kernel's `epoll`, without Deno's own sockets.
 *
 * This folder holds that engine: the listener (here), one connection (`socket.ts`), the loop that asks the kernel
 * (`poller.ts`), the thread that waits for it (`waiter.ts`), and the C library's functions (`libc.ts`) and errors
 * (`errno.ts`).
 *
 * @module
 */

import {
  checkKeepAlive,
  checkOptions,
  checkString,
  checkWhole,
  DEFAULT_HOSTNAME,
  DEFAULT_KEEP_ALIVE_MS,
  DEFAULT_PORT,
  show,
} from "../../internal/api/check.ts";
import { prefixed } from "../../internal/api/errors.ts";
import { formatAddr, type Transport } from "../../internal/api/transport.ts";
import type { FdListener } from "../sockets/fd_listener.ts";
import { busyError, closedError } from "../sockets/socket_errors.ts";
import { type Pollable, Poller } from "./poller.ts";
import { EpollSocket } from "./socket.ts";
import { checked, EAGAIN } from "./errno.ts";
import { AF_UNIX, EPOLLET, EPOLLIN, Libc } from "./libc.ts";

/** Maximum number of connections that the kernel keeps until they are accepted; Deno's is the same. */
const BACKLOG = 511;

/** Addresses that stand for every address of the machine: here each connection has its own local address. */
const WILDCARDS = ["0.0.0.0", "::", "::ffff:0.0.0.0"];

/** Options of {@linkcode listenEpoll}. */
export interface ListenEpollOptions {
  /** The IP address, without a zone such as `%eth0`; a name is not looked up.
   * @default {"0.0.0.0"} */
  hostname?: string | undefined;
  /** The port; 0 picks a free one.
   * @default {8080} */
  port?: number | undefined;
  /**
   * The silence in milliseconds, rounded up to whole seconds, after which the kernel probes whether a peer is still
   * there (TCP keep-alive), and the time from one probe to the next. Whatever comes from the peer restarts it. If a peer
   * answers none of three probes, the connection is lost: the read rejects with `Deno.errors.TimedOut`, at most four
   * times this long after the peer's last packet. The same happens if a peer acknowledges nothing of what is sent to it
   * for four times this long. From 1000 to 32_767_000; `Infinity` switches keep-alive off.
   * @default {15_000}
   */
  keepAliveMs?: number | undefined;
}

/**
 * Listens on TCP with the Linux kernel's `epoll`, which it calls through the C library: a line, a connection and an idle
 * client cost less than with Deno's own sockets; `docs/performance.md` has the figures. It differs from `Deno.listen` in this:
 *
 * - It keeps the process alive while it or one of its connections is open, whatever {@linkcode Server.unref} says.
 * - Nagle's algorithm is off from the start, and TCP keep-alive on.
 * - If a worker that uses it is terminated, the listener and its connections are closed on Linux 6.9 and newer. On older
 *   systems they stay open and are not answered: close the listener first.
 *
 * A separate thread waits for the kernel, so that work which takes all of Deno's threads, such as reading files or
 * cryptography, delays no client. The thread is a worker: the first listener starts it, and waits some 30 ms for it. It
 * ends when the last listener and the last connection are closed.
 *
 * It needs x86-64 or ARM64 with the GNU C library. It needs `--allow-ffi` without a list to open the first listener, and
 * again once all listeners and connections have been closed; it never prompts for it. So give the permission up once the
 * server listens. The C library stays loaded, which a test's leak sanitizer reports.
 *
 * @param options Where to listen, and the keep-alive time.
 * @returns The listener, which listens already.
 * @throws {RangeError | TypeError} If an option is wrong.
 * @throws {Deno.errors.NotSupported} On any other system.
 * @throws {Deno.errors.NotCapable} Without the permission.
 * @throws {Deno.errors.AddrInUse} If the port is taken.
 *
 * @example A server that gives the permission up before the first client comes (not run: the library stays loaded)
 * ```ts ignore
 * import { serve } from "@x/shouty";
 * import { listenEpoll } from "@x/shouty/ops";
 *
 * const listener = listenEpoll({ hostname: "127.0.0.1", port: 8080 });
 * Deno.permissions.revokeSync({ name: "ffi" });
 * serve({ listener });
 * ```
 */
export function listenEpoll(options: ListenEpollOptions = {}): FdListener {
  checkOptions("listenEpoll options", options);
  const { hostname = DEFAULT_HOSTNAME, port = DEFAULT_PORT, keepAliveMs = DEFAULT_KEEP_ALIVE_MS } = options;
  checkString("hostname", hostname);
  checkWhole("port", port, 0, 65_535);
  checkKeepAlive(keepAliveMs);
  const libc = load();
  return new EpollListener(libc, bound(libc, hostname, port, keepAliveMs), false);
}

function bound(libc: Libc, hostname: string, port: number, keepAliveMs: number): number {
  const fd = libc.bound(hostname, port);
  if (fd === undefined) {
    throw new RangeError(`Cannot use hostname ${show(hostname)}: expected an IP address without a zone`);
  }
  try {
    checked(fd);
  } catch (error) {
    throw prefixed(`Cannot listen on ${formatAddr({ transport: "tcp", hostname, port })}`, error);
  }
  if (keepAliveMs !== Infinity) libc.keepAlive(fd, keepAliveMs);
  return fd;
}

/** A socket that listens, and from which workers of this process accept. */
export interface SharedSocket {
  readonly addr: Deno.NetAddr;
  /** Its descriptor, which means the same in every worker. */
  readonly fd: number;
  /** Lets go of it. It listens until the last worker has done so, too. */
  close(): void;
}

/**
 * Listens on a port for several workers: a descriptor belongs to the process, so each of them can accept from the one
 * socket. The caller accepts nothing itself, and starts no thread.
 *
 * @param options Where to listen, and the keep-alive time.
 * @returns The socket, which listens already: what connects before the first worker does waits for it.
 * @throws {unknown} As {@linkcode listenEpoll}.
 */
export function shareEpoll({ hostname, port, keepAliveMs }: Required<ListenEpollOptions>): SharedSocket {
  const libc = load();
  const fd = bound(libc, hostname!, port!, keepAliveMs!);
  try {
    checked(libc.listen(fd, BACKLOG));
    checked(libc.getsockname(fd));
  } catch (error) {
    libc.close(fd);
    throw error;
  }
  return { addr: libc.address, fd, close: () => libc.close(fd) };
}

/**
 * Accepts connections from a socket of {@linkcode shareEpoll}. Closing the listener leaves the socket to the others.
 *
 * @param fd The socket's descriptor.
 * @throws {unknown} As {@linkcode listenEpoll}.
 */
export function listenShared(fd: number): FdListener {
  const libc = load();
  const own = checked(libc.duplicate(fd));
  try {
    return new EpollListener(libc, own, true);
  } catch (error) {
    libc.close(own);
    throw error;
  }
}

/**
 * Accepts the connections of a TCP socket that listens already.
 *
 * @param fd The descriptor, which the listener owns from now on; if this throws, it stays as it was.
 * @param keepAliveMs The keep-alive time, as in {@linkcode ListenEpollOptions}.
 * @returns The listener; `undefined` if the descriptor is no listening socket.
 * @throws {Deno.errors.NotSupported} On a system without epoll, and for a Unix socket.
 * @throws {Deno.errors.NotCapable} Without the permission.
 */
export function adoptEpoll(fd: number, keepAliveMs: number): FdListener | undefined {
  const libc = load();
  const family = libc.listens(fd);
  if (family === undefined) return undefined;
  if (family === AF_UNIX) throw new Deno.errors.NotSupported("No Unix socket on epoll");
  libc.adopt(fd);
  if (keepAliveMs !== Infinity) libc.keepAlive(fd, keepAliveMs);
  return new EpollListener(libc, fd, true);
}

let loaded: Libc | undefined;
let poller: Poller | undefined;

function load(): Libc {
  const { os, arch } = Deno.build;
  if (os !== "linux" || arch !== "x86_64" && arch !== "aarch64") {
    throw new Deno.errors.NotSupported(`No epoll on ${os} with ${arch}`);
  }
  // A new poller's thread needs the permission as well, even if the library is loaded already.
  if (poller === undefined) checkPermission();
  try {
    return loaded ??= new Libc();
  } catch (cause) {
    throw new Deno.errors.NotSupported("No epoll without the GNU C library", { cause });
  }
}

function checkPermission(): void {
  // `--allow-ffi=libc.so.6` does not help: Deno resolves the names on the list against the current folder.
  const { state, partial } = Deno.permissions.querySync({ name: "ffi" });
  if (state === "granted" && !partial) return;
  throw new Deno.errors.NotCapable("No permission for foreign code, which --allow-ffi without a list grants");
}

class EpollListener implements FdListener, Pollable {
  readonly addr: Deno.NetAddr;
  readonly #libc: Libc;
  readonly #poller: Poller;
  /** The descriptor; negative once it is closed. */
  #fd: number;
  /** Whether other processes or workers may have the socket too; if so, this listener must not shut the socket down. */
  #shared: boolean;
  readonly #everywhere: boolean;
  #accepting: PromiseWithResolvers<Transport> | undefined;
  #closed = false;

  /**
   * @param libc The C library.
   * @param fd The descriptor of a bound socket; it is closed if this throws, unless it was adopted.
   * @param adopted Whether the socket came from another process or isolate, and listens already.
   */
  constructor(libc: Libc, fd: number, adopted: boolean) {
    this.#libc = libc;
    this.#fd = fd;
    this.#shared = adopted;
    try {
      if (!adopted) checked(libc.listen(fd, BACKLOG));
      checked(libc.getsockname(fd));
      this.addr = libc.address;
      this.#everywhere = WILDCARDS.includes(this.addr.hostname);
      // All listeners of the process share one poller.
      this.#poller = poller ??= new Poller(libc, () => poller = undefined);
      this.#poller.add(fd, EPOLLIN | EPOLLET, this);
    } catch (error) {
      if (!adopted) libc.close(fd);
      throw error;
    }
  }

  get fd(): number {
    if (this.#fd < 0) throw closedError("listener");
    return this.#fd;
  }

  inherit(inherited: boolean): void {
    this.#libc.inherit(this.fd, inherited);
    this.#shared ||= inherited;
  }

  accept(): Promise<Transport> {
    if (this.#closed) return Promise.reject(closedError("listener"));
    if (this.#accepting !== undefined) {
      return Promise.reject(busyError("accept"));
    }
    const { promise } = this.#accepting = Promise.withResolvers<Transport>();
    this.ready();
    return promise;
  }

  release(): void {
    if (this.#fd < 0) return;
    const fd = this.#fd;
    this.#fd = -1;
    if (this.#shared) this.#poller.forget(fd);
    else this.#libc.unlisten(fd);
    this.#libc.close(fd);
    this.#poller.remove(fd);
  }

  close(): Promise<void> | undefined {
    if (this.#closed) throw closedError("listener");
    this.#closed = true;
    this.release();
    this.#accepting?.reject(new Deno.errors.BadResource("The listener was closed"));
    this.#accepting = undefined;
    return this.#poller.ended;
  }

  ready(): void {
    if (this.#accepting === undefined || this.#fd < 0) return;
    const { resolve, reject } = this.#accepting;
    try {
      const transport = this.#accept();
      if (transport === undefined) return;
      this.#accepting = undefined;
      resolve(transport);
    } catch (error) {
      this.#accepting = undefined;
      reject(error);
    }
  }

  #accept(): Transport | undefined {
    const libc = this.#libc;
    const fd = libc.accept(this.#fd);
    if (fd === EAGAIN) return undefined;
    checked(fd);
    try {
      // Asked for again, as Deno's sockets do, although `accept4` has given it: this fails if the peer has reset.
      checked(libc.getpeername(fd));
      const remoteAddr = libc.address;
      if (this.#everywhere) checked(libc.getsockname(fd));
      const localAddr = this.#everywhere ? libc.address : this.addr;
      return new EpollSocket(libc, this.#poller, fd, remoteAddr, localAddr);
    } catch (error) {
      libc.close(fd);
      throw error;
    }
  }
}
