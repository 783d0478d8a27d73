/**
 * Keeps a number of connections to somewhere else open.
 *
 * @module
 */

import { LONGEST_MS } from "../api/check.ts";
import type { Clock } from "../api/serve_options.ts";
import { closeQuietly, Forwarding, type Listener, type Transport } from "../api/transport.ts";
import { AcceptQueue } from "../server/accept_queue.ts";
import { RefClock } from "../time/clock.ts";

/** Time for which a connection has to live before the pause after it is the shortest again, in milliseconds. */
const GOOD_LIFE_MS = 1000;

/** What a dialer needs. */
export interface DialerOptions {
  /** The address of the target. */
  readonly addr: Deno.Addr;
  /** The number of connections to keep open. */
  readonly size: number;
  /** The shortest and the longest pause before a connection is opened again, in milliseconds. */
  readonly minBackoff: number;
  readonly maxBackoff: number;
  readonly clock: Clock;
  /** Opens a connection; gives up when the signal aborts. */
  readonly dial: (signal: AbortSignal) => Promise<Transport>;
  /** Told that a connection could not be opened, and after how many milliseconds the next attempt begins. */
  readonly failed: (error: unknown, retryMs: number) => void;
}

/**
 * A listener whose connections are opened by this side. When one of them has ended, another is opened after a pause, which
 * doubles until a connection has lived for a second: without the pause, a target that accepts and closes at once would be
 * dialled thousands of times a second.
 */
export class Dialer implements Listener {
  readonly addr: Deno.Addr;
  readonly #options: DialerOptions;
  readonly #clock: RefClock;
  readonly #closing = new AbortController();
  readonly #queue = new AcceptQueue();
  #started = false;
  /** Resolves when connections are opened again; undefined while they are. */
  #resumed: PromiseWithResolvers<void> | undefined;
  #cancelKeepAlive = () => {};
  /** The number of connections that are being opened now. */
  connecting = 0;
  /** The number of attempts that have failed since the start. */
  errors = 0;

  constructor(options: DialerOptions) {
    this.addr = options.addr;
    this.#options = options;
    this.#clock = new RefClock(options.clock);
  }

  /** The number of connections that are open, and that no `accept` has returned. */
  get queued(): number {
    return this.#queue.length;
  }

  /** Whether no connection is opened for now; an attempt that has begun goes on. */
  set paused(paused: boolean) {
    if (!paused) this.#resumed?.resolve();
    this.#resumed = paused ? this.#resumed ?? Promise.withResolvers() : undefined;
  }

  accept(): Promise<Transport> {
    if (!this.#started && !this.#closing.signal.aborted) this.#start();
    return this.#queue.accept();
  }

  close(): void {
    this.#closing.abort();
    this.paused = false;
    this.#cancelKeepAlive();
    this.#queue.close();
  }

  ref(): void {
    this.#clock.ref();
  }

  unref(): void {
    this.#clock.unref();
  }

  #start(): void {
    this.#started = true;
    this.#keepAlive();
    for (let i = 0; i < this.#options.size; i++) this.#keepOneOpen();
  }

  /** Keeps the process alive as a listener does: a connection does not while its handler waits for something else. */
  #keepAlive(): void {
    this.#cancelKeepAlive = this.#clock.setTimer(() => this.#keepAlive(), LONGEST_MS, true);
  }

  /** Opens a connection, again and again. */
  async #keepOneOpen(): Promise<void> {
    const { minBackoff, maxBackoff, failed } = this.#options;
    let pause = minBackoff;
    while (!this.#closing.signal.aborted) {
      while (this.#resumed !== undefined) await this.#resumed.promise;
      const outcome = await this.#openOne();
      if (this.#closing.signal.aborted) return;
      if (outcome.life >= GOOD_LIFE_MS) pause = minBackoff;
      // Half of it at random: connections that ended together are not all opened at the same moment.
      const retryMs = Math.ceil(pause * (1 + Math.random()) / 2);
      if ("error" in outcome) failed(outcome.error, retryMs);
      await this.#wait(retryMs);
      pause = Math.min(2 * pause, maxBackoff);
    }
  }

  /** Opens a connection, and waits until the server has closed it; returns its life in milliseconds, or why it failed. */
  async #openOne(): Promise<{ life: number; error?: unknown }> {
    this.connecting++;
    let transport: Transport;
    try {
      transport = await this.#options.dial(this.#closing.signal);
    } catch (error) {
      // What a shutdown has ended did not fail, and is not reported either.
      if (!this.#closing.signal.aborted) this.errors++;
      return { life: 0, error };
    } finally {
      this.connecting--;
    }
    const since = this.#clock.now();
    const { promise, resolve } = Promise.withResolvers<void>();
    const dialed = new Dialed(transport, resolve);
    if (this.#closing.signal.aborted) closeQuietly(dialed);
    else this.#queue.add({ transport: dialed });
    await promise;
    return { life: this.#clock.now() - since };
  }

  async #wait(milliseconds: number): Promise<void> {
    const { signal } = this.#closing;
    // The function that was told of the failure may have closed this dialer.
    if (signal.aborted) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const cancel = this.#clock.setTimer(resolve, milliseconds, true);
    const abort = () => resolve();
    signal.addEventListener("abort", abort);
    await promise;
    signal.removeEventListener("abort", abort);
    cancel();
  }
}

/** A connection that calls a function when the server closes or resets it. */
class Dialed extends Forwarding {
  readonly #ended: () => void;

  constructor(inner: Transport, ended: () => void) {
    super(inner);
    this.#ended = ended;
  }

  protected override ending(): void {
    this.#ended();
  }
}
