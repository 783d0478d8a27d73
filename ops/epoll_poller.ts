/**
 * The loop that asks the kernel which sockets are ready.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import { ASKING } from "../internal/turn.ts";
import { EPOLLIN, errorOf, Events, type Libc } from "./libc.ts";

/** Who is told. */
export interface Pollable {
  /** Something has happened to the descriptor; it may be stale, so what is tried because of it can be in vain. */
  ready(flags: number): void;
}

/** So many are told in one turn of this process's loop; the others' turn comes right after the next. */
const EVENTS = 64;

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
  #running = false;

  /**
   * @param libc Where the calls go.
   * @param closed Called when nobody is left, and it has closed itself.
   * @throws {Error} If the kernel has no descriptors for it.
   */
  constructor(libc: Libc, closed: () => void) {
    this.#libc = libc;
    this.#closed = closed;
    this.#epoll = checked(libc.epollCreate());
    try {
      this.#alarm = checked(libc.eventfd());
    } catch (error) {
      libc.close(this.#epoll);
      throw error;
    }
    libc.epollAdd(this.#epoll, this.#alarm, EPOLLIN);
  }

  /**
   * Tells of a descriptor from now on.
   *
   * @returns A negative result, if the kernel does not.
   */
  add(fd: number, flags: number, pollable: Pollable): number {
    const result = this.#libc.epollAdd(this.#epoll, fd, flags);
    if (result < 0) return result;
    this.#pollables.set(fd, pollable);
    if (!this.#running) this.#wait();
    return result;
  }

  /** Tells no more of a descriptor, which is closed now. */
  remove(fd: number): void {
    this.#pollables.delete(fd);
    if (this.#pollables.size === 0) this.#libc.eventfdWrite(this.#alarm);
  }

  async #wait(): Promise<void> {
    this.#running = ASKING.everyRound = true;
    this.#tell(await this.#libc.epollWaitAside(this.#epoll, this.#events));
    this.#askLater();
  }

  #askLater(): void {
    if (this.#pollables.size > 0) setImmediate(() => this.#ask());
    else this.#close();
  }

  #ask(): void {
    const count = this.#libc.epollWait(this.#epoll, this.#events);
    if (count === 0 && this.#pollables.size > 0) {
      this.#wait();
    } else {
      this.#tell(count);
      this.#askLater();
    }
  }

  #tell(count: number): void {
    for (let index = 0; index < count; index++) {
      const fd = this.#events.fd(index);
      if (fd === this.#alarm) this.#libc.eventfdRead(fd);
      else this.#pollables.get(fd)?.ready(this.#events.flags(index));
    }
  }

  #close(): void {
    ASKING.everyRound = false;
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
