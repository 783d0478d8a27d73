/**
 * Sockets by their descriptors, as another process would hand them on.
 *
 * @module
 */

import { Libc } from "../../../ops/epoll/libc.ts";
import { NO_EPOLL } from "./epoll.ts";

/** Why no descriptor can be made here, appended to the names of skipped tests; empty if it can. */
export const NO_FD: string = NO_EPOLL;

const LIBC = NO_FD === "" ? new Libc() : undefined;
const C = NO_FD === ""
  ? Deno.dlopen("libc.so.6", {
    socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
    bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
    connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  }).symbols
  : undefined;

const [AF_UNIX, AF_INET, SOCK_STREAM, SOCK_DGRAM, SOCK_CLOEXEC] = [1, 2, 1, 2, 0o2000000];

/** Opens a TCP socket that listens, and returns its descriptor, which child processes do not inherit. */
export function listeningFd(hostname = "127.0.0.1", port = 0): number {
  const fd = boundFd(hostname, port);
  LIBC!.listen(fd, 511);
  return fd;
}

/** Opens a TCP socket that listens as another process may have left it: it blocks, and child processes inherit it. */
export function plainFd(): number {
  const fd = opened(C!.socket(AF_INET, SOCK_STREAM, 0));
  const address = new Uint8Array(16);
  address.set([AF_INET, 0, 0, 0, 127, 0, 0, 1]);
  opened(C!.bind(fd, address, address.length));
  opened(LIBC!.listen(fd, 511));
  return fd;
}

/** Opens a TCP socket that is bound, and does not listen. */
export function boundFd(hostname = "127.0.0.1", port = 0): number {
  const fd = LIBC!.bound(hostname, port);
  return opened(fd ?? -1);
}

/** Opens a Unix socket that listens. */
export function unixFd(path: string): number {
  const fd = opened(C!.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const address = new Uint8Array([AF_UNIX, 0, ...new TextEncoder().encode(path), 0]);
  opened(C!.bind(fd, address, address.length));
  opened(LIBC!.listen(fd, 511));
  return fd;
}

/** Opens a UDP socket. */
export function datagramFd(): number {
  return opened(C!.socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
}

/** Opens a TCP socket that is connected to a server on the loopback. */
export function connectedFd(port: number): number {
  const fd = opened(C!.socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const address = new Uint8Array(16);
  address.set([AF_INET, 0, port >> 8, port & 255, 127, 0, 0, 1]);
  opened(C!.connect(fd, address, address.length));
  return fd;
}

function opened(fd: number): number {
  if (fd < 0) throw new Error(`Cannot open a socket: ${fd}`);
  return fd;
}

/** Closes a descriptor. */
export function closeFd(fd: number): void {
  LIBC!.close(fd);
}

/** Has child processes inherit a descriptor, as one that has come from a parent process is. */
export function inheritFd(fd: number): void {
  LIBC!.inherit(fd, true);
}

/** Starts a child process that inherits descriptors, which are closed here then, unless they are kept. */
export function withFd<Process>(fds: number | readonly number[], start: () => Process, keep = false): Process {
  const all = [fds].flat();
  for (const fd of all) LIBC!.inherit(fd, true);
  try {
    return start();
  } finally {
    for (const fd of all) {
      if (keep) LIBC!.inherit(fd, false);
      else closeFd(fd);
    }
  }
}
