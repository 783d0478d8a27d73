/**
 * One connection on `epoll`.
 *
 * @module
 */

import type { Transport } from "../../internal/api/transport.ts";
import type { Pollable, Poller } from "./poller.ts";
import { EAGAIN, EPOLLERR, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP, errorOf, type Libc } from "./libc.ts";

/** It is told once each time that it could read or write, and if the peer has ended or sent urgent data. */
const INTEREST = EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET;

/** A read or write that waits for the kernel. */
interface Waiting<T> {
  readonly bytes: Uint8Array;
  readonly resolve: (value: T) => void;
  readonly reject: (error: unknown) => void;
}

/** A transport that calls the kernel when it is ready, and at once for a write, as that nearly always is. */
export class EpollSocket implements Transport, Pollable {
  readonly remoteAddr: Deno.NetAddr;
  readonly localAddr: Deno.NetAddr;
  readonly #libc: Libc;
  readonly #poller: Poller;
  /** Its descriptor, which may be another's as soon as it is closed; negative then. */
  #fd: number;
  /** Whether a read need not wait for news. */
  #readable = false;
  /** Whether there will be no more news, as the peer has ended its side. */
  #ended = false;
  /** Whether a read may have stopped short at an urgent byte. */
  #urgent = false;
  /** Whether the peer's end has been read. */
  #drained = false;
  /** The error of a peer that reset while neither a read nor a write waited: a negative result, 0 for none. */
  #error = 0;
  #onReset: ((error: unknown) => void) | undefined;
  /** The number of bytes that the kernel has taken. */
  #sent = 0;
  /** The number of them that the peer's side had when that was counted last. */
  #acknowledged = 0;
  #reading: Waiting<number | null> | undefined;
  #writing: Waiting<number> | undefined;

  /** @throws {Error} If the kernel has no room for it; it is not closed then. */
  constructor(libc: Libc, poller: Poller, fd: number, remoteAddr: Deno.NetAddr, localAddr: Deno.NetAddr) {
    this.#libc = libc;
    this.#poller = poller;
    this.#fd = fd;
    this.remoteAddr = remoteAddr;
    this.localAddr = localAddr;
    poller.add(fd, INTEREST, this);
  }

  read(into: Uint8Array): Promise<number | null> {
    if (this.#fd < 0) return Promise.reject(closed());
    if (this.#reading !== undefined) return Promise.reject(busy("read"));
    if (this.#readable) {
      const count = this.#receive(into);
      if (count >= 0) return Promise.resolve(this.#drained ? null : count);
      if (count !== EAGAIN) return Promise.reject(errorOf(count));
    }
    return new Promise((resolve, reject) => this.#reading = { bytes: into, resolve, reject });
  }

  write(bytes: Uint8Array): Promise<number> {
    if (this.#fd < 0) return Promise.reject(closed());
    if (this.#writing !== undefined) return Promise.reject(busy("write"));
    const count = this.#send(bytes);
    if (count >= 0) return Promise.resolve(count);
    if (count !== EAGAIN) return Promise.reject(errorOf(count));
    this.#countAcknowledged();
    return new Promise((resolve, reject) => this.#writing = { bytes, resolve, reject });
  }

  closeWrite(): Promise<void> {
    if (this.#fd < 0) return Promise.reject(closed());
    this.#libc.shutdown(this.#fd);
    return Promise.resolve();
  }

  close(): void {
    // Where input is unread, the kernel sends RST when it is closed; behind an end, that destroys nothing.
    if (!this.#drained && this.#fd >= 0) this.#libc.shutdown(this.#fd);
    this.#free();
  }

  reset(): void {
    if (this.#fd >= 0) this.#libc.resetWhenClosed(this.#fd);
    this.#free();
  }

  #free(): void {
    if (this.#fd < 0) throw closed();
    const fd = this.#fd;
    this.#fd = -1;
    this.#libc.close(fd);
    this.#poller.remove(fd);
    this.#reading?.reject(interrupted());
    this.#writing?.reject(interrupted());
    this.#reading = this.#writing = undefined;
  }

  /** Sends on first, if a write waits: the kernel tells of room only when a third of its buffer is free. */
  progress(): number {
    if (this.#fd < 0) return 0;
    if (this.#writing !== undefined) this.#goOnWriting(this.#writing);
    const before = this.#acknowledged;
    this.#countAcknowledged();
    return this.#acknowledged - before;
  }

  #countAcknowledged(): void {
    // An end that is not acknowledged counts as one byte more than was sent.
    this.#acknowledged = Math.max(this.#acknowledged, this.#sent - this.#libc.unacknowledged(this.#fd));
  }

  onReset(callback: (error: unknown) => void): void {
    this.#onReset = callback;
    if (this.#error < 0) this.#tellReset();
  }

  /** Being reset counts as reading, writing and ending as well. */
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

  /** Keeps an error that no call has handed out, for the next read behind what had come before it. */
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

  /** A read that did not fill its buffer has taken all there was: there will be news of what comes after. */
  #receive(into: Uint8Array): number {
    const count = this.#libc.recv(this.#fd, into);
    if (count < into.length && !this.#ended) this.#readable = false;
    if (count < into.length && this.#urgent) {
      this.#urgent = false;
      // Reading on at once would let a peer that sends bit by bit keep everybody else waiting.
      this.#poller.again(this.#fd, INTEREST);
    }
    if (count === 0 && into.length > 0) return this.#end();
    return count;
  }

  /** The end of input, in place of which a kept error is handed out once. */
  #end(): number {
    const error = this.#error;
    this.#error = 0;
    if (error === 0) this.#drained = true;
    return error;
  }
}

function interrupted(): Error {
  return new Deno.errors.Interrupted("The connection was closed");
}

function closed(): Error {
  return new Deno.errors.BadResource("The connection is closed");
}

function busy(what: string): Error {
  return new Deno.errors.Busy(`Cannot ${what}: another ${what} is outstanding`);
}
