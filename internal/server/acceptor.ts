/**
 * Accepting, whatever peers and the kernel do.
 *
 * @module
 */

import { AcceptRejection } from "../api/errors.ts";
import type { Clock } from "../api/clock.ts";
import { closeQuietly, type Listener, type Transport } from "../api/transport.ts";
import { ENTRIES } from "../time/turns.ts";

/** What an acceptor asks and tells. */
export interface AcceptorHooks {
  /** How many milliseconds to leave the next connection in the kernel; `Infinity` until {@linkcode Acceptor.hurry}. */
  delay(): number;
  /** `accept` threw, and is tried again in so many milliseconds. */
  failed(error: unknown, retryMs: number): void;
}

/**
 * The connections that come to a listener, which it owns, until it is closed. The listener's own iterator would end at
 * the first client that resets its connection before it is accepted, and leave the server deaf.
 */
export class Acceptor implements AsyncIterableIterator<Transport, undefined> {
  readonly #listener: Listener;
  readonly #clock: Clock;
  readonly #hooks: AcceptorHooks;
  readonly #backoff = new Backoff();
  #closed = false;
  #released: Promise<void> | undefined;
  #cutWait = () => {};

  /**
   * @param listener Where connections come from.
   * @param clock Where time comes from.
   * @param hooks What it asks and tells.
   */
  constructor(listener: Listener, clock: Clock, hooks: AcceptorHooks) {
    this.#listener = listener;
    this.#clock = clock;
    this.#hooks = hooks;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** The next connection; throws only if the listener was closed from outside, so that nobody can accept any more. */
  async next(): Promise<IteratorResult<Transport, undefined>> {
    while (!this.#closed) {
      const delay = this.#hooks.delay();
      if (delay > 0) {
        await this.#wait(delay);
        continue;
      }
      try {
        const turn = ENTRIES.take(1);
        if (turn !== undefined) await turn;
        const value = await this.#listener.accept();
        this.#backoff.reset();
        if (!this.#closed) return { value, done: false };
        // It came too late for anybody to own it.
        closeQuietly(value);
      } catch (error) {
        if (this.#closed) break;
        if (error instanceof Deno.errors.BadResource) throw error;
        const retryMs = this.#backoff.next(error);
        this.#hooks.failed(error, retryMs);
        if (retryMs > 0) await this.#wait(retryMs);
      }
    }
    await this.#released;
    return { value: undefined, done: true };
  }

  /** Stops; the port is free when the iteration has ended, which an outstanding `accept` holds up, here or below. */
  close(): void {
    this.#closed = true;
    this.#released = release(this.#listener);
    this.#cutWait();
  }

  /** Ends a wait early: it may be that the next connection can be accepted now. */
  hurry(): void {
    this.#cutWait();
  }

  async #wait(milliseconds: number): Promise<void> {
    // The hook may have closed it.
    if (this.#closed) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    // With its listener at rest, nothing but this keeps the process alive; where it waits for a connection to end, that does.
    const cancel = milliseconds === Infinity ? () => {} : this.#clock.setTimer(resolve, milliseconds, true);
    this.#cutWait = resolve;
    await promise;
    cancel();
    this.#cutWait = () => {};
  }
}

async function release(listener: Listener): Promise<void> {
  try {
    await listener.close();
  } catch {
    // Closed it is, which is what was wanted.
  }
}

const FIRST_MS = 5;
const LONGEST_MS = 1000;

/** One peer's misfortune is no reason to wait; after so many in a row a short pause lets others have their turn. */
const FREE_FAILURES = 100;

/**
 * Delays that double from 5 ms to 1 s while accepting goes on failing: running out of descriptors fails again at once,
 * and would otherwise keep the processor busy until somebody leaves.
 */
export class Backoff {
  #delay = FIRST_MS;
  #failures = 0;

  /**
   * @param error What `accept` threw.
   * @returns How many milliseconds to wait; 0 where only one connection is lost.
   */
  next(error: unknown): number {
    // However many are turned away, accepting works.
    if (error instanceof AcceptRejection) return 0;
    // A pause that grew would let anybody who resets connections keep all others out.
    if (isOnePeers(error)) return ++this.#failures % FREE_FAILURES === 0 ? FIRST_MS : 0;
    const delay = this.#delay;
    this.#delay = Math.min(2 * delay, LONGEST_MS);
    return delay;
  }

  /** Accepting works again. */
  reset(): void {
    this.#delay = FIRST_MS;
    this.#failures = 0;
  }
}

/** A client that resets its connection before it is accepted makes `accept` fail so. */
function isOnePeers(error: unknown): boolean {
  const { NotConnected, ConnectionReset, ConnectionAborted } = Deno.errors;
  return [NotConnected, ConnectionReset, ConnectionAborted].some((kind) => error instanceof kind);
}
