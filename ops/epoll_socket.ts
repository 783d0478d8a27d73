/**
 * One connection on `epoll`.
 *
 * @module
 */

import type { Transport } from "../internal/transport.ts";
import type { Pollable, Poller } from "./epoll_poller.ts";
import { EAGAIN, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP, errorOf, type Libc } from "./libc.ts";

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
    const count = this.#libc.send(this.#fd, bytes);
    if (count >= 0) return Promise.resolve(count);
    if (count !== EAGAIN) return Promise.reject(errorOf(count));
    return new Promise((resolve, reject) => this.#writing = { bytes, resolve, reject });
  }

  closeWrite(): Promise<void> {
    if (this.#fd < 0) return Promise.reject(closed());
    this.#libc.shutdown(this.#fd);
    return Promise.resolve();
  }

  close(): void {
    if (this.#fd < 0) throw closed();
    const fd = this.#fd;
    this.#fd = -1;
    // Where input is unread, the kernel sends RST when it is closed; behind an end, that destroys nothing.
    if (!this.#drained) this.#libc.shutdown(fd);
    this.#libc.close(fd);
    this.#poller.remove(fd);
    this.#reading?.reject(interrupted());
    this.#writing?.reject(interrupted());
    this.#reading = this.#writing = undefined;
  }

  /** Being reset counts as all three. */
  ready(flags: number): void {
    if (flags & EPOLLRDHUP) this.#ended = true;
    if (flags & EPOLLPRI) this.#urgent = true;
    if (flags & EPOLLIN) {
      this.#readable = true;
      if (this.#reading !== undefined) this.#goOnReading(this.#reading);
    }
    if (flags & EPOLLOUT && this.#writing !== undefined) this.#goOnWriting(this.#writing);
  }

  #goOnReading({ bytes, resolve, reject }: Waiting<number | null>): void {
    const count = this.#receive(bytes);
    if (count === EAGAIN) return;
    this.#reading = undefined;
    if (count < 0) reject(errorOf(count));
    else resolve(this.#drained ? null : count);
  }

  #goOnWriting({ bytes, resolve, reject }: Waiting<number>): void {
    const count = this.#libc.send(this.#fd, bytes);
    if (count === EAGAIN) return;
    this.#writing = undefined;
    if (count < 0) reject(errorOf(count));
    else resolve(count);
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
    if (count === 0 && into.length > 0) this.#drained = true;
    return count;
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
