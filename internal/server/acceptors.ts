/**
 * Accepts the connections of all listeners of a server.
 *
 * @module
 */

import { LONGEST_MS } from "../api/check.ts";
import type { Clock } from "../api/serve_options.ts";
import { closeQuietly, type Listener, queuedIn, type Transport } from "../api/transport.ts";
import { DelayedQueue } from "../time/delayed_queue.ts";
import { Acceptor, type AcceptorHooks } from "./acceptor.ts";

/** The functions that the acceptors of a server call. */
export interface AcceptorsHooks extends AcceptorHooks {
  /** A connection was accepted, and there is room for it. */
  enter(transport: Transport): void;
}

/** A connection that was accepted when there was no room any more. */
interface Held {
  readonly transport: Transport;
  /** Lets its listener go on. */
  readonly over: () => void;
}

/** The listeners from which servers accept. */
const taken = new WeakSet<Listener>();

/**
 * Accepts connections from all listeners of a server, under one `delay`. It owns the listeners.
 *
 * An `accept` cannot be taken back. So, when a connection of one listener has taken the last room, each of the others can
 * still accept one: that is held here until there is room, and its listener accepts no other meanwhile. Held connections
 * are admitted in the order in which they were accepted, so no listener can keep another's clients out.
 */
export class Acceptors {
  /** The addresses of the listeners, in their order. */
  readonly addrs: readonly Deno.Addr[];
  readonly #listeners: readonly Listener[];
  readonly #acceptors: readonly Acceptor[];
  readonly #hooks: AcceptorsHooks;
  readonly #held: DelayedQueue<Held>;
  #closed = false;
  #loops: readonly Promise<void>[] = [];

  /**
   * @param listeners The listeners.
   * @param clock The source of time.
   * @param hooks The functions that they call.
   * @throws {TypeError} If another server accepts from one of the listeners.
   */
  constructor(listeners: readonly Listener[], clock: Clock, hooks: AcceptorsHooks) {
    this.addrs = listeners.map(({ addr }) => addr);
    // A listener has one outstanding `accept` at most: two servers would keep each other's from beginning.
    if (listeners.some((listener) => taken.has(listener))) {
      throw new TypeError("Cannot use listener: another server accepts from it already");
    }
    for (const listener of listeners) taken.add(listener);
    this.#listeners = listeners;
    this.#acceptors = listeners.map((listener) => new Acceptor(listener, clock, hooks));
    this.#hooks = hooks;
    // No `accept` may be outstanding: in a paused server without connections, only its timer keeps the process alive.
    this.#held = new DelayedQueue(clock, () => Math.min(hooks.delay(), LONGEST_MS), ({ transport, over }) => {
      hooks.enter(transport);
      over();
    });
  }

  /**
   * Accepts until it is closed. Rejects as soon as one listener cannot accept any more; the others go on until they are
   * closed.
   */
  async run(): Promise<void> {
    this.#loops = this.#acceptors.map((acceptor) => this.#run(acceptor));
    await Promise.all(this.#loops);
  }

  /**
   * Stops accepting, and closes the connections that are held.
   *
   * @param late Settles when listeners that have not closed are given up.
   * @returns The number of those, when all other addresses are free.
   */
  async close(late: Promise<void>): Promise<number> {
    this.#closed = true;
    let left = this.#listeners.length;
    const closed = this.#acceptors.map(async (acceptor, i) => {
      // A listener that is closed already is closed, as it should be.
      await Promise.allSettled([acceptor.close(), this.#loops[i]]);
      taken.delete(this.#listeners[i]);
      left--;
    });
    for (const { transport, over } of this.#held.clear()) {
      closeQuietly(transport);
      over();
    }
    await Promise.race([late, Promise.all(closed)]);
    return left;
  }

  /** Ends all waits early, because there may be room now. */
  hurry(): void {
    // First, as they have waited longer than any connection that is still to be accepted.
    this.#held.hurry();
    for (let i = 0; i < this.#acceptors.length; i++) this.#acceptors[i].hurry();
  }

  /** The number of connections that were accepted, and wait in a listener, or until there is room or a pause ends. */
  get queued(): number {
    return this.#listeners.reduce((sum, listener) => sum + queuedIn(listener), this.#held.size);
  }

  /** Makes the listeners keep the process alive. */
  ref(): void {
    for (const listener of this.#listeners) listener.ref?.();
  }

  /** Lets the process end while the listeners are open. */
  unref(): void {
    for (const listener of this.#listeners) listener.unref?.();
  }

  async #run(acceptor: Acceptor): Promise<void> {
    for await (const transport of acceptor) {
      // The acceptors were closed just after this connection was accepted: it has no owner.
      if (this.#closed) closeQuietly(transport);
      else if (this.#held.size === 0 && this.#hooks.delay() <= 0) this.#hooks.enter(transport);
      else await this.#hold(transport);
    }
  }

  #hold(transport: Transport): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#held.add({ transport, over: resolve });
    return promise;
  }
}
