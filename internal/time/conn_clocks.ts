/**
 * The clocks of one connection.
 *
 * @module
 */

import type { Alarms, Sleeper } from "./alarms.ts";

/** How long each clock of a connection runs, in milliseconds; `Infinity` switches one off. */
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
 * What the clocks find out. Most are the close reason of the same name. The others:
 *
 * - `stuck`: a large block has waited for the peer for so long that its memory counts
 * - `listen`: the handler has worked for so long that the peer may be gone unnoticed
 * - `overdue`: the handler still works long after `maxAge`
 * - `linger`: the time of a polite end is up
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

/** Limits of a whole life differ by up to this part, so that clients that came together do not come back together. */
const JITTER = 0.1;

/** A handler that has worked for this many milliseconds without reading is listened for: its peer may be gone. */
export const LISTEN_MS = 250;

/** A large block that has waited for this many milliseconds is stuck. */
const STUCK_MS = 250;

/** After `maxAge`, a handler has this many milliseconds to come to a line boundary. */
const OVERDUE_MS = 10_000;

/** A limit, give or take 10 % by chance. */
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
  /** Whether the peer has sent nothing yet. */
  #silent = true;
  #halfClosed = false;
  #working = false;
  #handlerAt = Infinity;
  #listenAt = Infinity;
  #writeAt = Infinity;
  #stuckAt = Infinity;
  #ageAt = Infinity;
  #overdueAt = Infinity;
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

  /** The server begins to wait for the peer's bytes; in mid-line the line's clock goes on from where it stood. */
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
   * Bytes have come, so that the server no longer waits for the peer.
   *
   * @param lineEnded Whether a line ended with them: the next one has its time whole.
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

  /** The handler begins to work: until it reads again, the server waits for it and not for the peer. */
  work(): void {
    if (this.#leaving) return;
    this.#working = true;
    this.listenLater();
    this.#startHandler();
  }

  /** Has the handler's peer listened for in a while. */
  listenLater(): void {
    this.#listenAt = this.#now() + LISTEN_MS;
    this.#watch(this.#listenAt);
  }

  /** The handler has written something, so it has not hung. */
  handlerWrote(): void {
    if (this.#handlerAt !== Infinity) this.#startHandler();
  }

  /** The peer has ended its side: from here on, `halfCloseTimeout` holds for the handler. */
  halfClose(): void {
    this.#halfClosed = true;
    if (this.#working) this.#startHandler();
  }

  /** The handler no longer works: it has settled, or asks for more. */
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
   * A block begins to be written, or its writing has made progress.
   *
   * @param large Whether its memory counts if it has to wait.
   */
  writing(large: boolean): void {
    const now = this.#now();
    this.#writeAt = now + this.#timeouts.writeTimeout;
    this.#watch(this.#writeAt);
    if (!large) return;
    this.#stuckAt = now + STUCK_MS;
    this.#watch(this.#stuckAt);
  }

  /** The block has left, which is progress for the idle clock too; the handler's clock stood still meanwhile. */
  wrote(): void {
    this.#writeAt = this.#stuckAt = Infinity;
    if (this.#handlerAt !== Infinity) this.#startHandler();
    if (!this.#waiting) return;
    this.#idleAt = this.#now() + this.#timeouts.idleTimeout;
    this.#watch(this.#idleAt);
  }

  /** The connection is about to end: what it still has to write is all that is timed. */
  leave(): void {
    this.rest();
    this.#leaving = true;
  }

  /** Nothing is timed any more but these last milliseconds. */
  linger(milliseconds: number): void {
    this.leave();
    this.#writeAt =
      this.#stuckAt =
      this.#ageAt =
      this.#overdueAt =
        Infinity;
    this.#lingerAt = this.#now() + milliseconds;
    this.#watch(this.#lingerAt);
  }

  /** Stops for good. */
  stop(): void {
    this.leave();
    this.#alarms.drop(this);
  }

  /** While a block is on its way the peer is slow, not idle, and the handler may be waiting for it. */
  deadline(): number {
    const peerAt = this.#writeAt === Infinity ? Math.min(this.#idleAt, this.#handlerAt) : this.#writeAt;
    const ageAt = Math.min(this.#ageAt, this.#overdueAt);
    const lookAt = Math.min(this.#listenAt, this.#stuckAt);
    return Math.min(peerAt, this.#lineAt, this.#firstAt, lookAt, ageAt, this.#lingerAt);
  }

  wake(now: number): void {
    if (this.#listenAt <= now) this.#once("listen", () => this.#listenAt = Infinity);
    else if (this.#stuckAt <= now) this.#once("stuck", () => this.#stuckAt = Infinity);
    else if (this.#ageAt <= now) {
      this.#once("max-age", () => {
        this.#ageAt = Infinity;
        this.#overdueAt = now + OVERDUE_MS;
      });
    } else if (this.#overdueAt <= now && !this.#working) {
      // What is owed is on its way, at the peer's pace or at that of the limits.
      this.#overdueAt = now + OVERDUE_MS;
      this.#watch(this.deadline());
    } else this.#owner.expire(this.#expired(now));
  }

  /** Tells of something that does not end the connection by itself, so that the clocks run on. */
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
    return this.#overdueAt <= now ? "overdue" : "linger";
  }
}
