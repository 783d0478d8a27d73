/**
 * The loop that asks the kernel which sockets are ready.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import { registerAsker, turn } from "../../internal/time/turns.ts";
import { Waiter } from "./waiter.ts";
import { checked, Events, type Libc } from "./libc.ts";

/** What owns a descriptor. */
export interface Pollable {
  /** Something may have happened to the descriptor. */
  ready(flags: number): void;
  /** Closes the descriptor, as the program ends. */
  close(): void;
}

/** Maximum events told in one turn of this process's loop; what is left is told right after the next. */
const EVENTS = 64;

/**
 * Asks between the turns of this process's loop as long as there is something to tell, which costs one system call for
 * all sockets, and waits in a thread when there is nothing. Whatever it is doing, {@linkcode askNow} asks it as well.
 */
export class Poller {
  readonly #libc: Libc;
  readonly #epoll: number;
  readonly #waiter: Waiter;
  readonly #events = new Events(EVENTS);
  readonly #pollables = new Map<number, Pollable>();
  readonly #closed: () => void;
  readonly #unregister: () => void;
  readonly #release = () => this.#closeAll();
  #ended: Promise<void> | undefined;

  /**
   * @param libc Where the calls go.
   * @param closed Called when it has closed itself, as it has no descriptor left to tell of.
   * @throws {Error} If the kernel has no descriptors for it.
   */
  constructor(libc: Libc, closed: () => void) {
    this.#libc = libc;
    this.#closed = closed;
    this.#epoll = checked(libc.epollCreate());
    try {
      this.#waiter = new Waiter(libc, this.#epoll);
    } catch (error) {
      libc.close(this.#epoll);
      throw error;
    }
    this.#unregister = registerAsker(() => this.#askAll());
    // Deno closes its own sockets when a program ends, or begins anew under --watch, but not these.
    addEventListener("unload", this.#release);
    this.#wait();
  }

  /** Settles when its thread has ended, and Deno has forgotten the thread; `undefined` while it has descriptors. */
  get ended(): Promise<void> | undefined {
    return this.#ended;
  }

  /**
   * Tells of a descriptor from now on.
   *
   * @param flags What of.
   * @throws {Error} If the kernel does not.
   */
  add(fd: number, flags: number, pollable: Pollable): void {
    const result = this.#libc.epollAdd(this.#epoll, fd, flags);
    if (result >= 0) this.#pollables.set(fd, pollable);
    else this.#endIfUnused();
    checked(result);
  }

  /** Tells once more of what is there already, in a later turn. */
  again(fd: number, flags: number): void {
    this.#libc.epollAgain(this.#epoll, fd, flags);
  }

  /** Tells no more of a descriptor, which is closed now. */
  remove(fd: number): void {
    this.#pollables.delete(fd);
    this.#endIfUnused();
  }

  /** Waits in the thread, and asks when it has rung. */
  async #wait(): Promise<void> {
    await this.#waiter.wait();
    this.#poll();
  }

  #poll(): void {
    if (this.#ended !== undefined) return;
    if (this.#ask() === 0) this.#wait();
    else setImmediate(() => this.#poll());
  }

  /** Asks about some descriptors; the number of them that had something to tell. */
  #ask(): number {
    const count = this.#libc.epollWait(this.#epoll, this.#events);
    for (let index = 0; index < count; index++) {
      this.#pollables.get(this.#events.fd(index))?.ready(this.#events.flags(index));
    }
    return count;
  }

  /** Asks about all of them: the kernel tells of each once, but more may happen meanwhile. */
  #askAll(): void {
    for (let left = this.#pollables.size; left > 0 && this.#ended === undefined; left -= EVENTS) {
      if (this.#ask() < EVENTS) return;
    }
  }

  #closeAll(): void {
    for (const pollable of this.#pollables.values()) pollable.close();
  }

  #endIfUnused(): void {
    if (this.#pollables.size > 0 || this.#ended !== undefined) return;
    this.#unregister();
    removeEventListener("unload", this.#release);
    this.#waiter.end();
    this.#libc.close(this.#epoll);
    this.#ended = turn();
    this.#closed();
  }
}
