/**
 * The functions of the C library that sockets on `epoll` need. Each returns the C function's result, or `-errno` in
 * place of -1. Besides this file, only the program in `waiter.ts` and `cli/process/notify_socket.ts` pass memory to
 * foreign code; every length that is passed along with memory is that memory's own.
 *
 * @module
 */

import { isIP } from "node:net";

const SYMBOLS = {
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
  // Variadic in C: on x86-64 and ARM64 that makes no difference to a call without floating-point arguments.
  fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
  ioctl: { parameters: ["i32", "u32", "buffer"], result: "i32" },
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  listen: { parameters: ["i32", "i32"], result: "i32" },
  accept4: { parameters: ["i32", "buffer", "buffer", "i32"], result: "i32" },
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  getpeername: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  // The lengths are of type size_t. As "usize" they would be passed as BigInt, which is slow; 32 bits are enough.
  recv: { parameters: ["i32", "buffer", "u32", "i32"], result: "i32" },
  send: { parameters: ["i32", "buffer", "u32", "i32"], result: "i32" },
  shutdown: { parameters: ["i32", "i32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  eventfd: { parameters: ["u32", "i32"], result: "i32" },
  eventfd_write: { parameters: ["i32", "u64"], result: "i32" },
  gettid: { parameters: [], result: "i32" },
  // Variadic as well. Used for `pidfd_open`, which older C libraries do not have as a function.
  syscall: { parameters: ["i64", "i32", "u32"], result: "i32" },
  epoll_create1: { parameters: ["i32"], result: "i32" },
  epoll_ctl: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
  epoll_wait: { parameters: ["i32", "buffer", "i32", "i32"], result: "i32" },
  inet_pton: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  inet_ntop: { parameters: ["i32", "buffer", "buffer", "u32"], result: "void" },
  __errno_location: { parameters: [], result: "pointer" },
} as const;

const LIBRARY = "libc.so.6";
export const AF_UNIX = 1;
const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM = 1;
/** `SOCK_…` and `EFD_…`: calls never block, and child processes do not inherit the descriptor. */
const NONBLOCK_CLOEXEC = 0o2004000;
const EPOLL_CLOEXEC = 0o2000000;
const [EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD] = [1, 2, 3];
const [SOL_SOCKET, SO_REUSEADDR, SO_ERROR, SO_KEEPALIVE, SO_LINGER, SO_ACCEPTCONN, SO_DOMAIN] = [
  1,
  2,
  4,
  9,
  13,
  30,
  39,
];
const [F_SETFD, FD_CLOEXEC, F_GETFL, F_SETFL, O_NONBLOCK] = [2, 1, 3, 4, 0o4000];
const [IPPROTO_TCP, TCP_NODELAY, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_USER_TIMEOUT] = [6, 1, 4, 5, 6, 18];
/** System call number of `pidfd_open`, the same on every architecture, and its flag for a thread (since Linux 6.9). */
const [PIDFD_OPEN, PIDFD_THREAD] = [434n, 0o200];
/** `ioctl` request: number of bytes in the send queue that the peer has not acknowledged. */
const SIOCOUTQ = 0x5411;
const [SHUT_RD, SHUT_WR] = [0, 1];
/** `fcntl` command: duplicate a descriptor; child processes do not inherit the duplicate. */
const F_DUPFD_CLOEXEC = 1030;
const MSG_NOSIGNAL = 0x4000;
/** `struct linger` with a time of 0: closing resets the connection. */
const RESETTING = new Uint8Array(new Int32Array([1, 0]).buffer);
/** Number of unanswered keep-alive probes in a row after which the kernel gives a connection up. */
const KEEP_ALIVE_PROBES = 3;

/** Sizes of `sockaddr_in` and `sockaddr_in6`; maximum length of an IPv6 address as text, without a zone. */
const SOCKADDR_IN_BYTES = 16;
const SOCKADDR_IN6_BYTES = 28;
const ADDRESS_CHARS = 46;

/** `struct epoll_event` is packed on x86-64 only. Its size and its descriptor's place, in words of four bytes. */
const IS_PACKED = Deno.build.arch === "x86_64";
const EVENT_WORDS = IS_PACKED ? 3 : 4;
export const FD_WORD: number = IS_PACKED ? 1 : 2;

export const EPOLLIN = 0x1;
export const EPOLLPRI = 0x2;
export const EPOLLOUT = 0x4;
export const EPOLLERR = 0x8;
export const EPOLLRDHUP = 0x2000;
export const EPOLLONESHOT: number = 1 << 30;
export const EPOLLET: number = 1 << 31;

/** The memory that `epoll_wait` fills with events. */
export class Events {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Number of events that there is room for. */
  readonly length: number;
  readonly #words: Int32Array<ArrayBuffer>;

  constructor(length: number) {
    this.length = length;
    this.#words = new Int32Array(length * EVENT_WORDS);
    this.bytes = new Uint8Array(this.#words.buffer);
  }

  /** The descriptor of one event. */
  fd(index: number): number {
    return this.#words[index * EVENT_WORDS + FD_WORD];
  }

  /** What has happened to that descriptor: `EPOLLIN` and others. */
  flags(index: number): number {
    return this.#words[index * EVENT_WORDS];
  }

  /** Sets one event, to be passed to `epoll_ctl`. */
  set(index: number, fd: number, flags: number): void {
    this.#words[index * EVENT_WORDS] = flags;
    this.#words[index * EVENT_WORDS + FD_WORD] = fd;
  }
}

/** The loaded C library. One thread uses it: `errno`, whose address it keeps, differs from thread to thread. */
export class Libc {
  readonly #c: Deno.DynamicLibrary<typeof SYMBOLS>["symbols"];
  readonly #errno: Int32Array;
  readonly #sockaddr = new Uint8Array(SOCKADDR_IN6_BYTES);
  readonly #sockaddrBytes = new Uint32Array(1);
  readonly #sockaddrLength = new Uint8Array(this.#sockaddrBytes.buffer);
  readonly #event = new Events(1);
  /** Memory for one `int`, in which options are passed and results returned, and for its size. */
  readonly #int = new Int32Array(1);
  readonly #intBytes = new Uint8Array(this.#int.buffer);
  readonly #intSize = new Uint8Array(new Uint32Array([4]).buffer);

  /** Needs `--allow-ffi`; the loaded library stays usable once the permission is given up. */
  constructor() {
    this.#c = Deno.dlopen(LIBRARY, SYMBOLS).symbols;
    this.#errno = new Int32Array(Deno.UnsafePointerView.getArrayBuffer(this.#c.__errno_location()!, 4));
  }

  /** Creates a TCP socket and binds it; `undefined` if `hostname` is not an IP address. */
  bound(hostname: string, port: number): number | undefined {
    const size = this.#encode(hostname, port);
    if (size === undefined) return undefined;
    const address = this.#sockaddr.subarray(0, size);
    const fd = this.#result(this.#c.socket(address[0], SOCK_STREAM | NONBLOCK_CLOEXEC, 0));
    if (fd < 0) return fd;
    this.#set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    // Accepted connections inherit the option.
    this.#set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    const error = this.#result(this.#c.bind(fd, address, address.length));
    if (error < 0) this.close(fd);
    return error < 0 ? error : fd;
  }

  /**
   * Switches TCP keep-alive on: the kernel probes a peer that has been silent for this long, and again each time that
   * this has passed. If a peer answers no probe, or acknowledges nothing that was sent to it, for four times as long,
   * the kernel gives the connection up. Accepted connections inherit the options from their listener.
   */
  keepAlive(fd: number, milliseconds: number): void {
    const seconds = Math.ceil(milliseconds / 1000);
    this.#set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    this.#set(fd, IPPROTO_TCP, TCP_KEEPIDLE, seconds);
    this.#set(fd, IPPROTO_TCP, TCP_KEEPINTVL, seconds);
    this.#set(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEP_ALIVE_PROBES);
    this.#set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (1 + KEEP_ALIVE_PROBES) * 1000 * seconds);
  }

  /** Returns the address family of a stream socket that listens; `undefined` if it does not, or is something else. */
  listens(fd: number): number | undefined {
    return this.#get(fd, SO_ACCEPTCONN) > 0 ? this.#get(fd, SO_DOMAIN) : undefined;
  }

  /** Prepares a listening socket of another process: it does not block, and connections get the options of ours. */
  adopt(fd: number): void {
    this.#c.fcntl(fd, F_SETFL, this.#c.fcntl(fd, F_GETFL, 0) | O_NONBLOCK);
    this.inherit(fd, false);
    this.#set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  }

  /** Sets whether child processes that are started from now on have the descriptor too. */
  inherit(fd: number, inherited: boolean): void {
    this.#c.fcntl(fd, F_SETFD, inherited ? 0 : FD_CLOEXEC);
  }

  /** Returns an option of a socket, or a negative result. */
  #get(fd: number, option: number): number {
    this.#int[0] = 0;
    this.#intSize[0] = this.#intBytes.length;
    const result = this.#result(this.#c.getsockopt(fd, SOL_SOCKET, option, this.#intBytes, this.#intSize));
    return result < 0 ? result : this.#int[0];
  }

  #set(fd: number, level: number, option: number, value: number): void {
    this.#int[0] = value;
    this.#c.setsockopt(fd, level, option, this.#intBytes, this.#intBytes.length);
  }

  listen(fd: number, backlog: number): number {
    return this.#result(this.#c.listen(fd, backlog));
  }

  /** Accepts a connection, and sets {@linkcode address} to its peer's. */
  accept(fd: number): number {
    this.#sockaddrBytes[0] = this.#sockaddr.length;
    return this.#result(this.#c.accept4(fd, this.#sockaddr, this.#sockaddrLength, NONBLOCK_CLOEXEC));
  }

  /** Sets {@linkcode address} to a socket's own address. */
  getsockname(fd: number): number {
    this.#sockaddrBytes[0] = this.#sockaddr.length;
    return this.#result(this.#c.getsockname(fd, this.#sockaddr, this.#sockaddrLength));
  }

  /** Sets {@linkcode address} to the peer's address; fails if the peer has reset the connection. */
  getpeername(fd: number): number {
    this.#sockaddrBytes[0] = this.#sockaddr.length;
    return this.#result(this.#c.getpeername(fd, this.#sockaddr, this.#sockaddrLength));
  }

  /** The address that `accept`, `getsockname` or `getpeername` has set last. */
  get address(): Deno.NetAddr {
    const bytes = this.#sockaddr;
    const port = bytes[2] << 8 | bytes[3];
    const hostname = bytes[0] === AF_INET
      ? `${bytes[4]}.${bytes[5]}.${bytes[6]}.${bytes[7]}`
      : this.#text(bytes.subarray(8, 24));
    return { transport: "tcp", hostname, port };
  }

  recv(fd: number, into: Uint8Array): number {
    return this.#result(this.#c.recv(fd, into as Uint8Array<ArrayBuffer>, into.length, 0));
  }

  send(fd: number, bytes: Uint8Array): number {
    return this.#result(this.#c.send(fd, bytes as Uint8Array<ArrayBuffer>, bytes.length, MSG_NOSIGNAL));
  }

  /** Number of bytes sent that the peer has not acknowledged; an unacknowledged FIN counts as one. */
  unacknowledged(fd: number): number {
    this.#int[0] = 0;
    this.#c.ioctl(fd, SIOCOUTQ, this.#intBytes);
    return this.#int[0];
  }

  /** Returns and clears the connection's error, if no other call has returned it; 0 for none. */
  takeError(fd: number): number {
    return -Math.max(0, this.#get(fd, SO_ERROR));
  }

  /** Makes `close` reset the connection. */
  resetWhenClosed(fd: number): void {
    this.#c.setsockopt(fd, SOL_SOCKET, SO_LINGER, RESETTING, RESETTING.length);
  }

  /** Ends the sending side. A failure is ignored: the peer has reset the connection then, as the next read tells. */
  shutdown(fd: number): void {
    this.#c.shutdown(fd, SHUT_WR);
  }

  /** Frees a listener's port at once: `close` alone does so later if another thread is using the descriptor now. */
  unlisten(fd: number): void {
    this.#c.shutdown(fd, SHUT_RD);
  }

  close(fd: number): void {
    this.#c.close(fd);
  }

  /** Returns another descriptor of the same socket. */
  duplicate(fd: number): number {
    return this.#result(this.#c.fcntl(fd, F_DUPFD_CLOEXEC, 0));
  }

  eventfd(): number {
    return this.#result(this.#c.eventfd(0, NONBLOCK_CLOEXEC));
  }

  eventfdWrite(fd: number): void {
    this.#c.eventfd_write(fd, 1n);
  }

  /** Opens a descriptor that is readable once the calling thread has ended. */
  thisThread(): number {
    return this.#result(this.#c.syscall(PIDFD_OPEN, this.#c.gettid(), PIDFD_THREAD));
  }

  epollCreate(): number {
    return this.#result(this.#c.epoll_create1(EPOLL_CLOEXEC));
  }

  epollAdd(epoll: number, fd: number, flags: number): number {
    this.#event.set(0, fd, flags);
    return this.#result(this.#c.epoll_ctl(epoll, EPOLL_CTL_ADD, fd, this.#event.bytes));
  }

  /** Sets a descriptor's events anew, so that the next wait reports its present state again. */
  epollAgain(epoll: number, fd: number, flags: number): void {
    this.#event.set(0, fd, flags);
    this.#c.epoll_ctl(epoll, EPOLL_CTL_MOD, fd, this.#event.bytes);
  }

  epollDelete(epoll: number, fd: number): void {
    this.#c.epoll_ctl(epoll, EPOLL_CTL_DEL, fd, this.#event.bytes);
  }

  /** Fills `events` with what is ready now, without waiting; returns how many there are. */
  epollWait(epoll: number, events: Events): number {
    return this.#result(this.#c.epoll_wait(epoll, events.bytes, events.length, 0));
  }

  #result(result: number): number {
    return result < 0 ? -this.#errno[0] : result;
  }

  #encode(hostname: string, port: number): number | undefined {
    // Checked here too: C ignores whatever follows a NUL.
    if (!isIP(hostname)) return undefined;
    const text = new TextEncoder().encode(`${hostname}\0`);
    const bytes = this.#sockaddr.fill(0);
    bytes[2] = port >> 8;
    bytes[3] = port;
    const isIpv6 = hostname.includes(":");
    bytes[0] = isIpv6 ? AF_INET6 : AF_INET;
    const [from, size] = isIpv6 ? [8, SOCKADDR_IN6_BYTES] : [4, SOCKADDR_IN_BYTES];
    return this.#c.inet_pton(bytes[0], text, bytes.subarray(from)) === 1 ? size : undefined;
  }

  #text(ipv6: Uint8Array<ArrayBuffer>): string {
    const text = new Uint8Array(ADDRESS_CHARS);
    this.#c.inet_ntop(AF_INET6, ipv6, text, text.length);
    return new TextDecoder().decode(text.subarray(0, text.indexOf(0)));
  }
}
