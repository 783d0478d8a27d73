/**
 * The loop that asks the kernel which sockets are ready.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import { askInEveryRound } from "../internal/turn.ts";
import { EPOLLIN, errorOf, Events, type Libc } from "./libc.ts";

/** Who is told. */
export interface Pollable {
  /** Something may have happened to the descriptor. */
  ready(flags: number): void;
}

/** So many are told in one turn of this process's loop; the others' turn comes right after the next. */
const EVENTS = 64;

/** So often it looks for itself while it waits: a few handlers that use files or cryptography can hold all threads up. */
const LOOK_MS = 50;

/**
 * Asks between the turns of this process's loop as long as there is something to tell, which costs one system call for
 * all sockets; and waits in another thread when there is nothing.
 */
export class Poller {
  readonly #libc: Libc;
  readonly #epoll: number;
  readonly #alarm: number;
  readonly #events = new Events(EVENTS);
  readonly #pollables = new Map<number, Pollable>();
  readonly #closed: () => void;
  #looking: ReturnType<typeof setInterval> | undefined;
  #waiting = false;
  #pollsSoon = false;

  /**
   * @param libc Where the calls go.
   * @param closed Called when nobody is left, and it has closed itself.
   * @throws {Error} If the kernel has no descriptors for it.
   */
  constructor(libc: Libc, closed: () => void) {
    this.#libc = libc;
    this.#closed = closed;
    this.#epoll = checked(libc.epollCreate());
    this.#alarm = libc.eventfd();
    try {
      checked(libc.epollAdd(this.#epoll, checked(this.#alarm), EPOLLIN));
    } catch (error) {
      for (const fd of [this.#epoll, this.#alarm]) libc.close(fd);
      throw error;
    }
  }

  /**
   * Tells of a descriptor from now on.
   *
   * @param flags What of.
   * @throws {Error} If the kernel does not.
   */
  add(fd: number, flags: number, pollable: Pollable): void {
    checked(this.#libc.epollAdd(this.#epoll, fd, flags));
    this.#pollables.set(fd, pollable);
    if (this.#looking === undefined) this.#start();
  }

  /** Tells once more of what is there already, in a later turn. */
  again(fd: number, flags: number): void {
    this.#libc.epollAgain(this.#epoll, fd, flags);
  }

  /** Tells no more of a descriptor, which is closed now. */
  remove(fd: number): void {
    this.#pollables.delete(fd);
    if (this.#pollables.size === 0) this.#libc.eventfdWrite(this.#alarm);
  }

  #start(): void {
    askInEveryRound(true);
    this.#looking = setInterval(() => this.#poll(), LOOK_MS);
    this.#wait();
  }

  async #wait(): Promise<void> {
    this.#waiting = true;
    await this.#libc.epollReady(this.#epoll);
    this.#waiting = false;
    this.#poll();
  }

  #poll(): void {
    const count = this.#libc.epollWait(this.#epoll, this.#events);
    for (let index = 0; index < count; index++) this.#dispatch(this.#events.fd(index), this.#events.flags(index));
    if (this.#pollsSoon || this.#waiting && count === 0) return;
    if (this.#pollables.size === 0) this.#end();
    else if (count === 0) this.#wait();
    else this.#pollSoon();
  }

  #pollSoon(): void {
    this.#pollsSoon = true;
    setImmediate(() => {
      this.#pollsSoon = false;
      this.#poll();
    });
  }

  #dispatch(fd: number, flags: number): void {
    if (fd !== this.#alarm) this.#pollables.get(fd)?.ready(flags);
    else if (this.#pollables.size > 0) this.#libc.eventfdRead(fd); // it rings on as long as a thread waits in vain
  }

  /** The thread that waits has heard the alarm, or will. */
  #end(): void {
    if (this.#waiting) return;
    askInEveryRound(false);
    clearInterval(this.#looking);
    this.#libc.close(this.#epoll);
    this.#libc.close(this.#alarm);
    this.#closed();
  }
}

/** A result that is none of an error's. */
export function checked(result: number): number {
  if (result < 0) throw errorOf(result);
  return result;
}
