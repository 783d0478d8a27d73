/**
 * One connection on `epoll`.
 *
 * @module
 */

import type { Transport } from "../../internal/api/transport.ts";
import type { Pollable, Poller } from "./poller.ts";
import { busyError, closedError, interruptedError } from "../sockets/socket_errors.ts";
import { EAGAIN, errorOf } from "./errno.ts";
import { EPOLLERR, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP, type Libc } from "./libc.ts";

/** Edge-triggered: one event each time that input or room for output has come, the peer has ended, or sent urgent data. */
const INTEREST = EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET;

/** A read or write that waits for the kernel. */
interface Waiting<T> {
  readonly bytes: Uint8Array;
  readonly resolve: (value: T) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * A connection. It reads when the kernel has told of input, and tries to write at once: there is nearly always room.
 */
export class EpollSocket implements Transport, Pollable {
  readonly remoteAddr: Deno.NetAddr;
  readonly localAddr: Deno.NetAddr;
  readonly #libc: Libc;
  readonly #poller: Poller;
  /** The descriptor; negative once it is closed, as the kernel may give its number to another socket then. */
  #fd: number;
  /** Whether a read may find input without waiting for an event. */
  #readable = false;
  /** Whether the peer has ended its side, after which no event tells of input. */
  #ended = false;
  /** Whether a read may have stopped before an urgent byte, with input behind it. */
  #urgent = false;
  /** Whether the end of input has been read. */
  #drained = false;
  /** The error of a reset that no read or write has met, as a negative result; 0 for none. */
  #error = 0;
  #onReset: ((error: unknown) => void) | undefined;
  /** Number of bytes that the kernel has accepted for sending. */
  #sent = 0;
  /** Number of those bytes that the peer's kernel had acknowledged when they were last counted. */
  #acknowledged = 0;
  #reading: Waiting<number | null> | undefined;
  #writing: Waiting<number> | undefined;

  /** @throws {Error} If the kernel cannot watch the descriptor; the caller closes it then. */
  constructor(libc: Libc, poller: Poller, fd: number, remoteAddr: Deno.NetAddr, localAddr: Deno.NetAddr) {
    this.#libc = libc;
    this.#poller = poller;
    this.#fd = fd;
    this.remoteAddr = remoteAddr;
    this.localAddr = localAddr;
    poller.add(fd, INTEREST, this);
  }

  read(into: Uint8Array): Promise<number | null> {
    if (this.#fd < 0) return Promise.reject(closedError("connection"));
    if (this.#reading !== undefined) return Promise.reject(busyError("read"));
    if (this.#readable) {
      const count = this.#receive(into);
      if (count >= 0) return Promise.resolve(this.#drained ? null : count);
      if (count !== EAGAIN) return Promise.reject(errorOf(count));
    }
    return new Promise((resolve, reject) => this.#reading = { bytes: into, resolve, reject });
  }

  write(bytes: Uint8Array): Promise<number> {
    if (this.#fd < 0) return Promise.reject(closedError("connection"));
    if (this.#writing !== undefined) return Promise.reject(busyError("write"));
    const count = this.#send(bytes);
    if (count >= 0) return Promise.resolve(count);
    if (count !== EAGAIN) return Promise.reject(errorOf(count));
    this.#countAcknowledged();
    return new Promise((resolve, reject) => this.#writing = { bytes, resolve, reject });
  }

  closeWrite(): Promise<void> {
    if (this.#fd < 0) return Promise.reject(closedError("connection"));
    this.#libc.shutdown(this.#fd);
    return Promise.resolve();
  }

  close(): void {
    // With unread input, closing sends RST. If FIN goes first, the peer can still read what was sent before it.
    if (!this.#drained && this.#fd >= 0) this.#libc.shutdown(this.#fd);
    this.#free();
  }

  reset(): void {
    if (this.#fd >= 0) this.#libc.resetWhenClosed(this.#fd);
    this.#free();
  }

  #free(): void {
    if (this.#fd < 0) throw closedError("connection");
    const fd = this.#fd;
    this.#fd = -1;
    this.#libc.close(fd);
    this.#poller.remove(fd);
    this.#reading?.reject(interruptedError());
    this.#writing?.reject(interruptedError());
    this.#reading = this.#writing = undefined;
  }

  /** Tries a waiting write again first: the kernel tells of room only once a third of its buffer is free. */
  progress(): number {
    if (this.#fd < 0) return 0;
    if (this.#writing !== undefined) this.#goOnWriting(this.#writing);
    const before = this.#acknowledged;
    this.#countAcknowledged();
    return this.#acknowledged - before;
  }

  #countAcknowledged(): void {
    // The kernel counts an unacknowledged FIN as one more byte, so the difference can fall by one.
    this.#acknowledged = Math.max(this.#acknowledged, this.#sent - this.#libc.unacknowledged(this.#fd));
  }

  onReset(callback: (error: unknown) => void): void {
    this.#onReset = callback;
    if (this.#error < 0) this.#tellReset();
  }

  /** A reset sets the flags of input, of room for output and of the peer's end, too. */
  ready(flags: number): void {
    if (flags & EPOLLRDHUP) this.#ended = true;
    if (flags & EPOLLPRI) this.#urgent = true;
    if (flags & EPOLLIN) {
      this.#readable = true;
      if (this.#reading !== undefined) this.#goOnReading(this.#reading);
    }
    if (flags & EPOLLOUT && this.#writing !== undefined) this.#goOnWriting(this.#writing);
    if (flags & EPOLLERR) this.#keepError();
  }

  /** Keeps an error that no call has returned; a read gets it once it has read what came before. */
  #keepError(): void {
    const error = this.#libc.takeError(this.#fd);
    if (error === 0) return;
    this.#error = error;
    this.#tellReset();
  }

  #tellReset(): void {
    const error = errorOf(this.#error);
    queueMicrotask(() => {
      if (this.#fd >= 0) this.#onReset?.(error);
      this.#onReset = undefined;
    });
  }

  #goOnReading({ bytes, resolve, reject }: Waiting<number | null>): void {
    const count = this.#receive(bytes);
    if (count === EAGAIN) return;
    this.#reading = undefined;
    if (count < 0) reject(errorOf(count));
    else resolve(this.#drained ? null : count);
  }

  #goOnWriting({ bytes, resolve, reject }: Waiting<number>): void {
    const count = this.#send(bytes);
    if (count === EAGAIN) return;
    this.#writing = undefined;
    if (count < 0) reject(errorOf(count));
    else resolve(count);
  }

  #send(bytes: Uint8Array): number {
    const count = this.#libc.send(this.#fd, bytes);
    if (count > 0) this.#sent += count;
    return count;
  }

  /** Reads. If that does not fill the buffer, no input is left, and an event will tell of the next. */
  #receive(into: Uint8Array): number {
    const count = this.#libc.recv(this.#fd, into);
    if (count < into.length && !this.#ended) this.#readable = false;
    if (count < into.length && this.#urgent) {
      this.#urgent = false;
      // Not read at once: a peer that sends one urgent byte after the other would keep the event loop to itself.
      this.#poller.again(this.#fd, INTEREST);
    }
    if (count === 0 && into.length > 0) return this.#end();
    return count;
  }

  /** Ends the input, with the kept error if there is one; the read after it gets the end. */
  #end(): number {
    const error = this.#error;
    this.#error = 0;
    if (error === 0) this.#drained = true;
    return error;
  }
}
