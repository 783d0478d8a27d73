/**
 * The loop that asks the kernel which sockets are ready.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import { registerAsker, turn } from "../../internal/time/event_loop.ts";
import { Waiter } from "./waiter.ts";
import { checked } from "./errno.ts";
import { Events, type Libc } from "./libc.ts";

/** A listener or a connection, whose descriptor a poller watches. */
export interface Pollable {
  /** Called when something may have happened to the descriptor; `flags` are those of `epoll_wait`. */
  ready(flags: number): void;
  /** Closes the descriptor; called when the program ends. */
  close(): void;
}

/** Maximum events handled in one turn of the event loop; the next turn handles the rest. */
const EVENTS = 64;

/**
 * Asks the kernel which descriptors are ready, and calls their owners. While there are events, it asks once per turn of
 * the event loop, which costs one system call for all sockets; once there are none, a thread waits for the next. It also
 * asks whenever {@linkcode askNow} is called.
 */
export class Poller {
  readonly #libc: Libc;
  readonly #epoll: number;
  readonly #waiter: Waiter;
  readonly #events = new Events(EVENTS);
  /**
   * The owners of descriptors, by descriptor. Not a `Map`: V8 chains its old tables, so that closed connections outlive
   * young collections, whose pauses were four times as long as with this array.
   */
  readonly #pollables: (Pollable | undefined)[] = [];
  /** The number of descriptors. */
  #count = 0;
  readonly #closed: () => void;
  readonly #unregister: () => void;
  readonly #release = () => this.#closeAll();
  #ended: Promise<void> | undefined;

  /**
   * @param libc The C library.
   * @param closed Called when the poller has closed itself, because its last descriptor was removed.
   * @throws {Error} If the kernel has no descriptors left for the poller and its thread.
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
    // When a program ends, or restarts under --watch, Deno closes its own sockets, but not these.
    addEventListener("unload", this.#release);
    this.#wait();
  }

  /** Settles when the thread has ended, and Deno has removed it; `undefined` while there are descriptors. */
  get ended(): Promise<void> | undefined {
    return this.#ended;
  }

  /**
   * Begins to watch a descriptor.
   *
   * @param fd The descriptor.
   * @param flags The events to watch for, as `epoll_ctl` takes them.
   * @param pollable What to call at each event.
   * @throws {Error} If the kernel refuses.
   */
  add(fd: number, flags: number, pollable: Pollable): void {
    const result = this.#libc.epollAdd(this.#epoll, fd, flags);
    if (result >= 0) this.#put(fd, pollable);
    else this.#endIfUnused();
    checked(result);
  }

  #put(fd: number, pollable: Pollable): void {
    // Without gaps: V8 keeps an array with large ones as a table.
    while (this.#pollables.length < fd) this.#pollables.push(undefined);
    this.#pollables[fd] = pollable;
    this.#count++;
  }

  /** Reports the descriptor's present state once more, as an event of a later turn. */
  again(fd: number, flags: number): void {
    this.#libc.epollAgain(this.#epoll, fd, flags);
  }

  /**
   * Stops watching a descriptor that is about to be closed here and stays open in another process or worker: the kernel
   * would go on to report its events, under a number that may be another descriptor's then.
   */
  forget(fd: number): void {
    this.#libc.epollDelete(this.#epoll, fd);
  }

  /** Forgets a descriptor that was closed; the last one ends the poller. */
  remove(fd: number): void {
    this.#pollables[fd] = undefined;
    this.#count--;
    this.#endIfUnused();
  }

  /** Has the thread wait for an event, and then asks. */
  async #wait(): Promise<void> {
    await this.#waiter.wait();
    this.#poll();
  }

  #poll(): void {
    if (this.#ended !== undefined) return;
    if (this.#ask() === 0) this.#wait();
    else setImmediate(() => this.#poll());
  }

  /** Handles up to {@linkcode EVENTS} events; returns how many there were. */
  #ask(): number {
    const count = this.#libc.epollWait(this.#epoll, this.#events);
    for (let index = 0; index < count; index++) {
      this.#pollables[this.#events.fd(index)]?.ready(this.#events.flags(index));
    }
    return count;
  }

  /** Asks about every descriptor. One round for each is enough: later rounds would be about events that came meanwhile. */
  #askAll(): void {
    for (let left = this.#count; left > 0 && this.#ended === undefined; left -= EVENTS) {
      if (this.#ask() < EVENTS) return;
    }
  }

  #closeAll(): void {
    for (const pollable of this.#pollables) pollable?.close();
  }

  #endIfUnused(): void {
    if (this.#count > 0 || this.#ended !== undefined) return;
    this.#unregister();
    removeEventListener("unload", this.#release);
    this.#waiter.end();
    this.#libc.close(this.#epoll);
    this.#ended = turn();
    this.#closed();
  }
}
