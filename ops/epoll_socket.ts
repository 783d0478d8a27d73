/**
 * One connection on `epoll`.
 *
 * @module
 */

import type { Transport } from "../internal/transport.ts";
import type { Pollable, Poller } from "./epoll_poller.ts";
import { EAGAIN, EPOLLET, EPOLLIN, EPOLLOUT, EPOLLRDHUP, errorOf, type Libc } from "./libc.ts";

/** What it wants to be told, once each time that it happens. */
export const NEWS = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;

/** Where input goes that came too late. */
const DISCARD = new Uint8Array(64 * 1024);

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
  /** Its descriptor, which is another's as soon as it is closed. */
  #fd: number;
  /** Whether a read need not wait for news; and whether none will come any more, as the peer has ended its side. */
  #readable = false;
  #ended = false;
  #reading: Waiting<number | null> | undefined;
  #writing: Waiting<number> | undefined;

  constructor(libc: Libc, poller: Poller, fd: number, remoteAddr: Deno.NetAddr, localAddr: Deno.NetAddr) {
    this.#libc = libc;
    this.#poller = poller;
    this.#fd = fd;
    this.remoteAddr = remoteAddr;
    this.localAddr = localAddr;
  }

  read(into: Uint8Array): Promise<number | null> {
    if (this.#fd < 0) return Promise.reject(closed());
    if (this.#readable) {
      const count = this.#receive(into);
      if (count >= 0) return Promise.resolve(count > 0 ? count : null);
      if (count !== EAGAIN) return Promise.reject(errorOf(count));
    }
    return new Promise((resolve, reject) => this.#reading = { bytes: into, resolve, reject });
  }

  write(bytes: Uint8Array): Promise<number> {
    if (this.#fd < 0) return Promise.reject(closed());
    const count = this.#libc.send(this.#fd, bytes);
    if (count >= 0) return Promise.resolve(count);
    if (count !== EAGAIN) return Promise.reject(errorOf(count));
    return new Promise((resolve, reject) => this.#writing = { bytes, resolve, reject });
  }

  closeWrite(): Promise<void> {
    if (this.#fd < 0) return Promise.reject(closed());
    const result = this.#libc.shutdown(this.#fd);
    return result < 0 ? Promise.reject(errorOf(result)) : Promise.resolve();
  }

  close(): void {
    if (this.#fd < 0) throw closed();
    const fd = this.#fd;
    this.#fd = -1;
    // Input that is never read would make the kernel send RST, which can destroy replies on their way.
    if (!this.#ended) this.#libc.recv(fd, DISCARD);
    this.#libc.close(fd);
    this.#poller.remove(fd);
    this.#reading?.reject(interrupted());
    this.#writing?.reject(interrupted());
    this.#reading = this.#writing = undefined;
  }

  ready(flags: number): void {
    if (flags & ~EPOLLOUT) {
      this.#readable = true;
      this.#ended ||= (flags & ~(EPOLLIN | EPOLLOUT)) !== 0;
      if (this.#reading !== undefined) this.#goOnReading(this.#reading);
    }
    if (flags & ~EPOLLIN && this.#writing !== undefined) this.#goOnWriting(this.#writing);
  }

  #goOnReading({ bytes, resolve, reject }: Waiting<number | null>): void {
    const count = this.#receive(bytes);
    if (count === EAGAIN) return;
    this.#reading = undefined;
    if (count < 0) reject(errorOf(count));
    else resolve(count > 0 ? count : null);
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
    return count;
  }
}

function interrupted(): Error {
  return new Deno.errors.Interrupted("The connection was closed");
}

function closed(): Error {
  return new Deno.errors.BadResource("The connection is closed");
}
