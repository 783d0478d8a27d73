/**
 * TCP without Deno's sockets: a listener that asks the Linux kernel itself.
 *
 * @module
 */

import { checkOptions, checkString, checkWhole, show } from "../internal/check.ts";
import type { Listener, Transport } from "../internal/transport.ts";
import { checked, type Pollable, Poller } from "./epoll_poller.ts";
import { EpollSocket } from "./epoll_socket.ts";
import { EAGAIN, EPOLLET, EPOLLIN, Libc } from "./libc.ts";

/** So many connections may wait to be accepted, as with Deno. */
const BACKLOG = 511;

/** Where who connects may mean any address. */
const WILDCARDS = ["0.0.0.0", "::", "::ffff:0.0.0.0"];

/** Where {@linkcode listenEpoll} listens. */
export interface ListenEpollOptions {
  /** The IP address, without a zone such as `%eth0`; a name is not looked up.
   * @default {"0.0.0.0"} */
  hostname?: string | undefined;
  /** The port; 0 picks a free one.
   * @default {8080} */
  port?: number | undefined;
}

/**
 * Listens on TCP with the Linux kernel's `epoll`, which it calls through the C library: a line, a connection and an idle
 * client cost less than with Deno's own sockets, by as much as the README says. All else is as with `Deno.listen`, but
 * for these:
 *
 * - It keeps the process alive while it or one of its connections is open, whatever {@linkcode Server.unref} says.
 * - Nagle's algorithm is off from the start.
 * - Whoever terminates a worker that uses it has to close it before.
 *
 * It takes x86-64 or ARM64 with the GNU C library, and `--allow-ffi` without a list when it is first called: what it
 * loads stays loaded (a test that looks for leaks finds it), so the permission can be given up then, and should be. It
 * never has Deno ask for it.
 *
 * @param options Where.
 * @returns The listener, which listens already.
 * @throws {RangeError | TypeError} If an option is wrong.
 * @throws {Deno.errors.NotSupported} If the system is none that it knows.
 * @throws {Deno.errors.NotCapable} Without the permission.
 * @throws {Deno.errors.AddrInUse} If the port is taken.
 *
 * @example A server that is done with foreign code before the first client comes (not run here, as it would be a leak)
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
  checkString("hostname", hostname);
  checkWhole("port", port, 0, 65_535);
  const libc = loaded ??= load();
  const fd = libc.bound(hostname, port);
  if (fd === undefined) {
    throw new RangeError(`Cannot use hostname ${show(hostname)}: expected an IP address without a zone`);
  }
  return new EpollListener(libc, checked(fd));
}

let loaded: Libc | undefined;
let poller: Poller | undefined;

function load(): Libc {
  const { os, arch } = Deno.build;
  if (os !== "linux" || arch !== "x86_64" && arch !== "aarch64") {
    throw new Deno.errors.NotSupported(`No epoll on ${os} with ${arch}`);
  }
  // With a list, Deno would look for the library in the current folder.
  const { state, partial } = Deno.permissions.querySync({ name: "ffi" });
  if (state !== "granted" || partial) {
    throw new Deno.errors.NotCapable("No permission for foreign code, which --allow-ffi without a list grants");
  }
  try {
    return new Libc();
  } catch (cause) {
    throw new Deno.errors.NotSupported("No epoll without the GNU C library", { cause });
  }
}

class EpollListener implements Listener, Pollable {
  readonly addr: Deno.NetAddr;
  readonly #libc: Libc;
  readonly #poller: Poller;
  /** Its descriptor; negative when it is closed. */
  #fd: number;
  readonly #everywhere: boolean;
  #accepting: PromiseWithResolvers<Transport> | undefined;

  constructor(libc: Libc, fd: number) {
    this.#libc = libc;
    this.#fd = fd;
    try {
      checked(libc.listen(fd, BACKLOG));
      checked(libc.getsockname(fd));
      this.addr = libc.address;
      this.#everywhere = WILDCARDS.includes(this.addr.hostname);
      // All listeners share it.
      this.#poller = poller ??= new Poller(libc, () => poller = undefined);
      this.#poller.add(fd, EPOLLIN | EPOLLET, this);
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
    this.#libc.unlisten(fd);
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
    const fd = libc.accept(this.#fd);
    if (fd === EAGAIN) return undefined;
    checked(fd);
    try {
      // Not the one that `accept4` gives: Deno's sockets ask again, and so a peer that has reset already is not accepted.
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
