/**
 * The clocks of one connection.
 *
 * @module
 */

import type { Alarms, Sleeper } from "./alarms.ts";

/** The time limit of each clock of a connection, in milliseconds; `Infinity` switches a clock off. */
export interface Timeouts {
  readonly firstLineTimeout: number;
  readonly idleTimeout: number;
  readonly lineTimeout: number;
  readonly writeTimeout: number;
  readonly handlerTimeout: number;
  readonly halfCloseTimeout: number;
  readonly maxAge: number;
}

/**
 * The clock that has expired. Most names are the close reason of the same name. The others:
 *
 * - `stuck`: the peer has not taken a large block for {@linkcode STUCK_MS}, so the block's memory counts from now on
 * - `listen`: the handler has worked for {@linkcode LISTEN_MS}, and the peer may have reset the connection since
 * - `overdue`: the handler still works {@linkcode OVERDUE_MS} after `maxAge`
 * - `linger`: the time of a graceful close is up
 */
export type Expiry =
  | "first-line-timeout"
  | "idle"
  | "line-timeout"
  | "write-timeout"
  | "stuck"
  | "handler-timeout"
  | "max-age"
  | "listen"
  | "overdue"
  | "linger";

/**
 * Maximum part by which a limit on a connection's whole life is changed at random, so that clients that connected
 * together do not all reconnect together.
 */
const JITTER = 0.1;

/** Time for which a handler works without reading before the server checks for a reset by the peer, in milliseconds. */
export const LISTEN_MS = 250;

/** Time for which a large block may wait for the peer before its memory counts, in milliseconds. */
const STUCK_MS = 250;

/** Time that a handler has to come to a line boundary after `maxAge`, in milliseconds. */
const OVERDUE_MS = 10_000;

/** Returns a limit, changed by up to 10 % at random. */
export function jitter(limit: number): number {
  return limit * (1 + JITTER * (2 * Math.random() - 1));
}

/**
 * The clocks of one connection. The peer's clocks run only while the server waits for the peer, and the handler's only
 * while it does not.
 */
export class ConnectionClocks implements Sleeper {
  readonly #alarms: Alarms;
  readonly #timeouts: Timeouts;
  readonly #owner: { expire(expiry: Expiry): void };
  wakeAt: number = Infinity;
  place = 0;
  #waiting = false;
  #waitFrom = 0;
  #idleAt = Infinity;
  #lineAt = Infinity;
  #lineLeft: number;
  #firstAt = Infinity;
  /** Whether the peer has not sent anything yet. */
  #silent = true;
  #halfClosed = false;
  #working = false;
  #handlerAt = Infinity;
  #listenAt = Infinity;
  #writeAt = Infinity;
  #stuckAt = Infinity;
  #ageAt = Infinity;
  /** Whether `maxAge` has passed, so that `#ageAt` is the end of the time that the handler has left. */
  #aged = false;
  #lingerAt = Infinity;
  #leaving = false;

  constructor(alarms: Alarms, timeouts: Timeouts, owner: { expire(expiry: Expiry): void }) {
    this.#alarms = alarms;
    this.#timeouts = timeouts;
    this.#owner = owner;
    this.#lineLeft = timeouts.lineTimeout;
    if (timeouts.maxAge === Infinity) return;
    this.#ageAt = this.#now() + jitter(timeouts.maxAge);
    this.#watch(this.#ageAt);
  }

  #now(): number {
    return this.#alarms.clock.now();
  }

  #watch(at: number): void {
    if (at < this.wakeAt) this.#alarms.watch(this, at);
  }

  /** The server begins to wait for the peer's bytes. In mid-line the line clock goes on from where it stopped. */
  wait(midLine: boolean): void {
    this.#waiting = true;
    this.stopHandler();
    const now = this.#now();
    this.#idleAt = now + this.#timeouts.idleTimeout;
    this.#watch(this.#idleAt);
    if (this.#silent) {
      this.#firstAt = now + this.#timeouts.firstLineTimeout;
      this.#watch(this.#firstAt);
    }
    if (!midLine) return;
    this.#waitFrom = now;
    this.#lineAt = now + this.#lineLeft;
    this.#watch(this.#lineAt);
  }

  /**
   * Bytes have come, so the server no longer waits for the peer.
   *
   * @param lineEnded Whether a line ended with these bytes: the next line has its whole time.
   */
  came(lineEnded: boolean): void {
    this.rest();
    if (lineEnded) this.#lineLeft = this.#timeouts.lineTimeout;
  }

  /** The server waits neither for the peer nor for the handler. */
  rest(): void {
    this.#waiting = false;
    this.stopHandler();
    this.#idleAt = Infinity;
    this.#silent = false;
    this.#firstAt = Infinity;
    if (this.#lineAt === Infinity) return;
    this.#lineLeft = Math.max(0, this.#lineLeft - (this.#now() - this.#waitFrom));
    this.#lineAt = Infinity;
  }

  /** The handler begins to work. Until it reads again, the server waits for the handler and not for the peer. */
  work(): void {
    if (this.#leaving) return;
    this.#working = true;
    this.listenLater();
    this.#startHandler();
  }

  /** Sets the time of the next check for a reset by the peer while the handler works. */
  listenLater(): void {
    this.#listenAt = this.#now() + LISTEN_MS;
    this.#watch(this.#listenAt);
  }

  /** The handler has written something, so it does not hang: its clock restarts. */
  handlerWrote(): void {
    if (this.#handlerAt !== Infinity) this.#startHandler();
  }

  /** The peer has ended its side. From now on, `halfCloseTimeout` applies to the handler. */
  halfClose(): void {
    this.#halfClosed = true;
    if (this.#working) this.#startHandler();
  }

  /** The handler no longer works: it has settled, or it asks for more input. */
  stopHandler(): void {
    this.#working = false;
    this.#handlerAt = this.#listenAt = Infinity;
  }

  #startHandler(): void {
    const { handlerTimeout, halfCloseTimeout } = this.#timeouts;
    const timeout = this.#halfClosed ? Math.min(handlerTimeout, halfCloseTimeout) : handlerTimeout;
    if (timeout === Infinity) return;
    this.#handlerAt = this.#now() + timeout;
    this.#watch(this.#handlerAt);
  }

  /**
   * The writing of a block has begun, or has made progress.
   *
   * @param large Whether the block is so large that its memory counts if it has to wait.
   */
  writing(large: boolean): void {
    const now = this.#now();
    this.#writeAt = now + this.#timeouts.writeTimeout;
    this.#watch(this.#writeAt);
    if (!large) return;
    this.#stuckAt = now + STUCK_MS;
    this.#watch(this.#stuckAt);
  }

  /** The block has been written. This restarts the idle clock, and the handler's clock, which stood still meanwhile. */
  wrote(): void {
    this.#writeAt = this.#stuckAt = Infinity;
    if (this.#handlerAt !== Infinity) this.#startHandler();
    if (!this.#waiting) return;
    this.#idleAt = this.#now() + this.#timeouts.idleTimeout;
    this.#watch(this.#idleAt);
  }

  /** The connection is about to end: from now on, only its last writes are timed. */
  leave(): void {
    this.rest();
    this.#leaving = true;
  }

  /** The graceful close has begun: from now on, only its own time is measured. */
  linger(milliseconds: number): void {
    this.leave();
    this.#writeAt = this.#stuckAt = this.#ageAt = Infinity;
    this.#lingerAt = this.#now() + milliseconds;
    this.#watch(this.#lingerAt);
  }

  /** Stops all clocks for good. */
  stop(): void {
    this.leave();
    this.#alarms.drop(this);
  }

  /**
   * The earliest of the deadlines that apply. While a block waits to be written, the write clock replaces those of the
   * peer and the handler: the peer is slow and not idle, and the handler may be waiting for it.
   */
  deadline(): number {
    const peerAt = this.#writeAt === Infinity ? Math.min(this.#idleAt, this.#handlerAt) : this.#writeAt;
    const lookAt = Math.min(this.#listenAt, this.#stuckAt);
    return Math.min(peerAt, this.#lineAt, this.#firstAt, lookAt, this.#ageAt, this.#lingerAt);
  }

  wake(now: number): void {
    if (this.#listenAt <= now) this.#once("listen", () => this.#listenAt = Infinity);
    else if (this.#stuckAt <= now) this.#once("stuck", () => this.#stuckAt = Infinity);
    else if (this.#ageAt <= now && !(this.#aged && this.#working)) {
      this.#ageAt = now + OVERDUE_MS;
      if (!this.#aged) this.#once("max-age", () => this.#aged = true);
      // No handler works: the last replies are being written, at the peer's speed or at that of a rate limit.
      else this.#watch(this.deadline());
    } else {
      this.#owner.expire(this.#expired(now));
      // A peer that has made progress goes on, and so do its other clocks.
      if (!this.#leaving) this.#watch(this.deadline());
    }
  }

  /** Reports a clock that does not end the connection by itself; the other clocks go on. */
  #once(expiry: Expiry, done: () => void): void {
    done();
    this.#watch(this.deadline());
    this.#owner.expire(expiry);
  }

  #expired(now: number): Expiry {
    if (this.#writeAt <= now) return "write-timeout";
    if (this.#lineAt <= now) return "line-timeout";
    if (this.#writeAt === Infinity && this.#idleAt <= now) return "idle";
    if (this.#writeAt === Infinity && this.#handlerAt <= now) return "handler-timeout";
    if (this.#firstAt <= now) return "first-line-timeout";
    return this.#ageAt <= now ? "overdue" : "linger";
  }
}
