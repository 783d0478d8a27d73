/**
 * TCP without Deno's sockets: a listener that asks the Linux kernel itself.
 *
 * @module
 */

import { checkHostname, checkOptions, checkWhole, show } from "../internal/check.ts";
import type { Listener, Transport } from "../internal/transport.ts";
import { checked, type Pollable, Poller } from "./epoll_poller.ts";
import { EpollSocket, NEWS } from "./epoll_socket.ts";
import { EAGAIN, EINTR, EPOLLET, EPOLLIN, errorOf, Libc } from "./libc.ts";

/** As many connections may wait to be accepted; the kernel has a limit of its own. */
const BACKLOG = 4096;

/** Where {@linkcode listenEpoll} listens. */
export interface ListenEpollOptions {
  /** The IP address; a name is not looked up. Default: `"0.0.0.0"`. */
  hostname?: string;
  /** The port, 0 for a free one. Default: 8080. */
  port?: number;
}

/**
 * Listens on TCP with the kernel's `epoll`, which it calls through the C library: a line costs two thirds of the time
 * that Deno's own sockets take, and an idle connection a third of the memory. All else is as with `Deno.listen`, but for
 * two things: it keeps the process alive while it or one of its connections is open, whatever
 * {@linkcode Server.unref} says, and Nagle's algorithm is off from the start.
 *
 * It needs Linux with the GNU C library, and `--allow-ffi`, which it uses while it listens for the first time: the
 * permission can be given up after that, and should be.
 *
 * @param options Where.
 * @returns The listener, which listens already.
 * @throws {RangeError | TypeError} If an option is wrong.
 * @throws {Deno.errors.NotSupported} If the system is none that it knows.
 * @throws {Deno.errors.NotCapable} Without `--allow-ffi`.
 * @throws {Deno.errors.AddrInUse} If the port is taken.
 *
 * @example A server that is done with foreign code before the first client comes (not run here: what it gives up is needed)
 * ```ts ignore
 * import { serve } from "@x/shouty";
 * import { listenEpoll } from "@x/shouty/ops";
 *
 * const listener = listenEpoll({ hostname: "127.0.0.1", port: 8080 });
 * Deno.permissions.revokeSync({ name: "ffi" });
 * serve({ listener });
 * ```
 */
export function listenEpoll(options: ListenEpollOptions = {}): Listener {
  checkOptions("listenEpoll options", options);
  const { hostname = "0.0.0.0", port = 8080 } = options;
  checkHostname(hostname);
  checkWhole("port", port, 0, 65_535);
  const libc = openLibc();
  const fd = libc.bound(hostname, port);
  if (fd === undefined) throw new RangeError(`Cannot use hostname ${show(hostname)}: expected an IP address`);
  return new EpollListener(libc, checked(fd));
}

let opened: Libc | undefined;
let poller: Poller | undefined;

function openLibc(): Libc {
  const { os, arch } = Deno.build;
  try {
    if (os === "linux" && (arch === "x86_64" || arch === "aarch64")) return opened ??= new Libc();
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error;
    throw new Deno.errors.NotSupported("Cannot listen with epoll: no GNU C library", { cause: error });
  }
  throw new Deno.errors.NotSupported(`Cannot listen with epoll: expected Linux, got ${os} on ${arch}`);
}

class EpollListener implements Listener, Pollable {
  readonly addr: Deno.NetAddr;
  readonly #libc: Libc;
  readonly #poller: Poller;
  /** Its descriptor; negative when it is closed. */
  #fd: number;
  #accepting: PromiseWithResolvers<Transport> | undefined;
  readonly #everywhere: boolean;

  constructor(libc: Libc, fd: number) {
    this.#libc = libc;
    this.#fd = fd;
    try {
      checked(libc.listen(fd, BACKLOG));
      checked(libc.getsockname(fd));
      this.addr = libc.address;
      this.#everywhere = this.addr.hostname === "0.0.0.0" || this.addr.hostname === "::";
      // All listeners share it.
      this.#poller = poller ??= new Poller(libc, () => poller = undefined);
      checked(this.#poller.add(fd, EPOLLIN | EPOLLET, this));
    } catch (error) {
      libc.close(fd);
      throw error;
    }
  }

  accept(): Promise<Transport> {
    if (this.#fd < 0) return Promise.reject(new Deno.errors.BadResource("The listener is closed"));
    if (this.#accepting !== undefined) {
      return Promise.reject(new Deno.errors.Busy("Cannot accept: another accept is outstanding"));
    }
    const { promise } = this.#accepting = Promise.withResolvers<Transport>();
    this.ready();
    return promise;
  }

  close(): void {
    if (this.#fd < 0) throw new Deno.errors.BadResource("The listener is closed");
    const fd = this.#fd;
    this.#fd = -1;
    this.#libc.close(fd);
    this.#poller.remove(fd);
    this.#accepting?.reject(new Deno.errors.BadResource("The listener was closed"));
    this.#accepting = undefined;
  }

  ready(): void {
    if (this.#accepting === undefined) return;
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
    let fd = libc.accept(this.#fd);
    while (fd === EINTR) fd = libc.accept(this.#fd);
    if (fd === EAGAIN) return undefined;
    checked(fd);
    const remoteAddr = libc.address;
    if (this.#everywhere) libc.getsockname(fd);
    const localAddr = this.#everywhere ? libc.address : this.addr;
    const socket = new EpollSocket(libc, this.#poller, fd, remoteAddr, localAddr);
    const result = this.#poller.add(fd, NEWS, socket);
    if (result >= 0) return socket;
    libc.close(fd);
    throw errorOf(result);
  }
}
