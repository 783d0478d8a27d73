/**
 * Accepts the connections of one listener, and goes on after errors of peers and of the kernel.
 *
 * @module
 */

import { checkAccepted, LONGEST_MS } from "../api/check.ts";
import { AcceptRejection } from "../api/errors.ts";
import type { Clock } from "../api/serve_options.ts";
import { closeQuietly, type Listener, type Transport } from "../api/transport.ts";
import { ACCEPT_TURNS } from "../time/turns.ts";

/** The functions that acceptors call. */
export interface AcceptorHooks {
  /**
   * Returns for how many milliseconds to leave the next connection in the kernel's backlog; `Infinity` until
   * {@linkcode Acceptor.hurry} is called.
   */
  delay(): number;
  /** `accept` threw; the acceptor tries again after `retryMs` milliseconds. */
  acceptFailed(error: unknown, retryMs: number): void;
}

/**
 * Iterates over the connections of a listener until it is closed. It owns the listener. The iterator of a
 * `Deno.Listener` would end at the first client that resets its connection before it is accepted, and the server would
 * accept no more.
 */
export class Acceptor implements AsyncIterableIterator<Transport, undefined> {
  readonly #listener: Listener;
  readonly #clock: Clock;
  readonly #hooks: AcceptorHooks;
  readonly #backoff = new Backoff();
  #closed = false;
  #cutWait = () => {};

  /**
   * @param listener The listener.
   * @param clock The source of time.
   * @param hooks The functions that it calls.
   */
  constructor(listener: Listener, clock: Clock, hooks: AcceptorHooks) {
    this.#listener = listener;
    this.#clock = clock;
    this.#hooks = hooks;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /**
   * Accepts the next connection. Throws only if the listener was closed from outside, so that it cannot accept any
   * more.
   */
  async next(): Promise<IteratorResult<Transport, undefined>> {
    while (!this.#closed) {
      const delay = this.#hooks.delay();
      if (delay > 0) {
        await this.#wait(delay);
        continue;
      }
      try {
        const turn = ACCEPT_TURNS.take(1);
        if (turn !== undefined) await turn;
        const value = await this.#listener.accept();
        // A listener of the caller's own may return anything; without a pause, it could do so for ever.
        checkAccepted(value);
        this.#backoff.reset();
        if (!this.#closed) return { value, done: false };
        // The acceptor was closed during `accept`, so this connection has no owner.
        closeQuietly(value);
      } catch (cause) {
        if (this.#closed) break;
        if (cause instanceof Deno.errors.BadResource) throw cause;
        const error = isEarlyReset(cause) ? new Deno.errors.NotConnected(cause.message, { cause }) : cause;
        const retryMs = this.#backoff.next(error);
        this.#hooks.acceptFailed(error, retryMs);
        if (retryMs > 0) await this.#wait(retryMs);
      }
    }
    return { value: undefined, done: true };
  }

  /**
   * Stops accepting. The iteration ends when an outstanding `accept` has settled. After that, and when the listener has
   * closed, the port is free.
   *
   * @returns A promise that settles when the listener has closed; it rejects if that was closed before.
   */
  async close(): Promise<void> {
    this.#closed = true;
    this.#cutWait();
    await this.#listener.close();
  }

  /** Ends a wait early, because the next connection may be acceptable now. */
  hurry(): void {
    this.#cutWait();
  }

  async #wait(milliseconds: number): Promise<void> {
    // The hook may have closed this acceptor.
    if (this.#closed) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    // No `accept` is outstanding: in a paused server without connections, only this timer keeps the process alive.
    const cancel = this.#clock.setTimer(resolve, Math.min(milliseconds, LONGEST_MS), true);
    this.#cutWait = resolve;
    await promise;
    cancel();
  }
}

/**
 * Whether an error is that of Deno's sockets on macOS for a client that reset its connection before it was accepted: there,
 * the kernel refuses to tell the address of such a peer.
 */
function isEarlyReset(error: unknown): error is TypeError {
  return Deno.build.os === "darwin" && error instanceof TypeError && "code" in error && error.code === "EINVAL";
}

/** Minimum and maximum pause after an error of the machine, in milliseconds. */
const FIRST_MS = 5;
const LAST_MS = 1000;

/**
 * Maximum number of errors in a row, each of one peer, before a short pause. A single one needs no pause; after many,
 * it lets other work run.
 */
const FREE_FAILURES = 100;

/**
 * Returns pauses that double from 5 ms to 1 s while `accept` keeps failing. Without descriptors, for example, it fails
 * again at once, and would keep the processor busy until a connection ends.
 */
export class Backoff {
  #delay = FIRST_MS;
  #failures = 0;

  /**
   * @param error What `accept` threw.
   * @returns How many milliseconds to wait; 0 if the error concerns one connection only.
   */
  next(error: unknown): number {
    // Rejections by the listener, in any number, mean that accepting works.
    if (error instanceof AcceptRejection) return 0;
    // If this pause grew, a client that resets connections could keep all other clients out.
    if (isOnePeers(error)) return ++this.#failures % FREE_FAILURES === 0 ? FIRST_MS : 0;
    const delay = this.#delay;
    this.#delay = Math.min(2 * delay, LAST_MS);
    return delay;
  }

  /** Notes that accepting works again. */
  reset(): void {
    this.#delay = FIRST_MS;
    this.#failures = 0;
  }
}

/** Whether an error of `accept` means that a client reset its connection before it was accepted. */
function isOnePeers(error: unknown): boolean {
  const { NotConnected, ConnectionReset, ConnectionAborted } = Deno.errors;
  return [NotConnected, ConnectionReset, ConnectionAborted].some((kind) => error instanceof kind);
}
