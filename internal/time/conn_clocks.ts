/**
 * The clocks of one connection.
 *
 * @module
 */

import type { WaitsFor } from "../api/handlers.ts";
import type { Alarms } from "./alarms.ts";
import { type Begun, type Expiry, inMessage, isLine, type Timeouts } from "./expiry.ts";
import { PeerClocks } from "./peer_clocks.ts";

/**
 * Maximum part by which a limit on a connection's whole life is changed at random, so that clients that connected
 * together do not all reconnect together.
 */
const JITTER = 0.1;

/** Time for which a handler works without reading before the server checks for a reset by the peer, in milliseconds. */
const READ_AHEAD_MS = 250;

/** Time for which a large block may wait for the peer before its memory counts, in milliseconds. */
const STUCK_MS = 250;

/** Time that a handler has to come to a line boundary after `maxAge`, in milliseconds. */
const OVERDUE_MS = 10_000;

/** Returns a limit, changed by up to 10 % at random. */
function jitter(limit: number): number {
  return limit * (1 + JITTER * (2 * Math.random() - 1));
}

/** The same for a whole number; `undefined`, which takes less memory than `Infinity`, if there is no limit. */
export function jitteredCount(limit: number): number | undefined {
  return limit === Infinity ? undefined : Math.round(jitter(limit));
}

/**
 * The clocks of one connection. The peer's clocks run only while the server waits for the peer, and the handler's only
 * while it does not.
 */
export class ConnectionClocks extends PeerClocks {
  readonly #owner: { expire(expiry: Expiry): void };
  /** For clocks that seldom run, `undefined` takes less memory than `Infinity`. */
  #deadlineAt: number | undefined;
  #halfClosed = false;
  #working = false;
  /** Whether the handler knows that there is no more input. */
  #knowsEnd = false;
  #handlerAt = Infinity;
  #readAheadAt: number | undefined;
  /** Whether a block is being written, also if the write clock is off. */
  #writing = false;
  #writeAt = Infinity;
  #stuckAt: number | undefined;
  #ageAt: number | undefined;
  /** Whether `maxAge` has passed, so that `#ageAt` is the end of the time that the handler has left. */
  #aged = false;
  #closingAt: number | undefined;
  #leaving = false;

  constructor(alarms: Alarms, timeouts: Timeouts, owner: { expire(expiry: Expiry): void }) {
    super(alarms, timeouts);
    this.#owner = owner;
    if (timeouts.maxAge !== Infinity) this.#startAge();
  }

  #startAge(): void {
    this.watch(this.#ageAt = this.now() + jitter(this.times.maxAge));
  }

  /** What the connection waits for. */
  get waitsFor(): WaitsFor {
    if (this.#leaving) return "close";
    if (this.#writing) return "write";
    if (!this.waiting) return this.#working ? "handler" : "turn";
    return this.awaited;
  }

  /** Changes the limits; a clock whose limit has changed starts anew. */
  set timeouts(timeouts: Timeouts) {
    const before = this.times;
    const changed = (name: keyof Timeouts) => before[name] !== timeouts[name];
    this.times = timeouts;
    if (changed("maxAge") && !this.#aged && !this.#leaving) this.#startAge();
    if (this.#working && (changed("handlerTimeout") || changed("halfCloseTimeout"))) this.#startHandler();
    this.timesChanged(changed);
  }

  override wait(begun: Begun | undefined): void {
    this.stopHandler();
    super.wait(begun);
  }

  /**
   * Bytes have come, so the server no longer waits for the peer.
   *
   * @param ended Whether a line ended with these bytes: the next line has its whole time.
   */
  bytesCame(ended: boolean): void {
    this.rest();
    if (ended) this.begin();
  }

  /**
   * The server waits neither for the peer nor for the handler.
   *
   * @param heard Whether the peer has sent something, or no longer needs to.
   */
  rest(heard = true): void {
    // A read that ends with the connection must not stop the clock of the last writes.
    if (!this.#leaving) this.#rest(heard);
  }

  #rest(heard: boolean): void {
    this.stopHandler();
    this.endWait(heard);
  }

  override limitRead(milliseconds: number | undefined): void {
    if (!this.#leaving) super.limitRead(milliseconds);
  }

  /** Sets the handler's deadline; `Infinity` takes it back. */
  setDeadline(milliseconds: number): void {
    this.watch(this.#deadlineAt = this.now() + milliseconds);
  }

  /**
   * The handler begins to work. Until it reads again, the server waits for the handler and not for the peer.
   *
   * @param handlerAt When its clock expires; by default it starts anew.
   */
  work(handlerAt?: number): void {
    if (this.#leaving) return;
    this.#working = true;
    this.readAheadLater();
    if (handlerAt === undefined) this.#startHandler();
    else this.watch(this.#handlerAt = handlerAt);
  }

  /** Sets the time of the next check for a reset by the peer while the handler works. */
  readAheadLater(): void {
    if (!this.#working) return;
    this.watch(this.#readAheadAt = this.now() + READ_AHEAD_MS);
  }

  /** The handler has read or written something, so it does not hang: its clock restarts. */
  handlerActed(): void {
    if (this.#handlerAt !== Infinity) this.#startHandler();
  }

  /** The peer has ended its side. From now on, `halfCloseTimeout` applies to the handler. */
  halfClose(): void {
    this.#halfClosed = true;
    if (this.#working) this.#startHandler();
  }

  /** The handler no longer works: it has settled, or it asks for more input. Returns when its clock would expire. */
  stopHandler(): number {
    const handlerAt = this.#handlerAt;
    this.#working = false;
    this.#handlerAt = Infinity;
    this.#readAheadAt = undefined;
    return handlerAt;
  }

  /** Expires the handler's clock if its time, which {@linkcode stopHandler} has returned, is up. */
  handlerIsDue(at: number): void {
    if (!this.#writing && !this.#leaving && at <= this.now()) this.#owner.expire("handler-timeout");
  }

  /** A read has told the handler that there is no more input. */
  toldEnd(): void {
    this.#knowsEnd = true;
  }

  /**
   * Whether the connection may never come to a line boundary: the handler works, or reads within a message, or waits for
   * the rest of a line that no clock bounds. Once the handler knows of the end of input, it works also while another read
   * waits for its turn.
   */
  get #atWork(): boolean {
    if (this.#working || this.#knowsEnd) return true;
    return this.waiting && (inMessage(this.begun) || isLine(this.begun) && this.begunAt === Infinity);
  }

  #startHandler(): void {
    const { handlerTimeout, halfCloseTimeout } = this.times;
    const timeout = this.#halfClosed ? Math.min(handlerTimeout, halfCloseTimeout) : handlerTimeout;
    if (timeout === Infinity) return void (this.#handlerAt = Infinity);
    this.#handlerAt = this.now() + timeout;
    this.watch(this.#handlerAt);
  }

  /**
   * The writing of a block has begun, or has made progress.
   *
   * @param large Whether the block is so large that its memory counts if it has to wait.
   * @param part The part of `writeTimeout` after which the clock expires.
   */
  writing(large: boolean, part = 1): void {
    const now = this.now();
    this.#writing = true;
    this.#writeAt = now + part * this.times.writeTimeout;
    this.watch(this.#writeAt);
    // While the write clock is off, the idle clock runs, and a peer that takes a part is not idle.
    if (this.#writeAt === Infinity) this.#tookSome();
    if (large) this.grown();
  }

  /**
   * What waits has become so large that its memory counts in a while. Progress does not start that time anew: a peer that
   * takes little, again and again, could otherwise make others wait for memory for as long as it likes.
   */
  grown(): void {
    if (this.#stuckAt !== undefined) return;
    this.watch(this.#stuckAt = this.now() + STUCK_MS);
  }

  /**
   * The block has been written. This restarts the idle clock, and the handler's clock, which stood still meanwhile.
   *
   * @param backlog Whether more than a block of output waits behind it. That output has waited as long, so the clock of
   * stuck output goes on.
   */
  wrote(backlog = false): void {
    this.#writing = false;
    this.#writeAt = Infinity;
    if (!backlog) this.#stuckAt = undefined;
    this.handlerActed();
    this.#tookSome();
  }

  /** The peer has taken something. */
  #tookSome(): void {
    if (this.times.idleOn === "both" || this.#leaving) this.restartIdle();
  }

  /** The connection is about to end: from now on, only its last writes are timed. */
  leave(): void {
    this.#rest(true);
    this.#leaving = true;
    this.#deadlineAt = this.#closingAt = this.#ageAt = undefined;
    this.readAt = undefined;
  }

  /** The last writes wait for the peer: with the write clock off, a peer that takes nothing of them is idle. */
  lastWrites(): void {
    // Nothing has begun any more: with a line or a body, a change of its limit would start its clock.
    this.wait(undefined);
  }

  /** A step of the connection's end has begun: from now on, only its own time and that of a write are measured. */
  close(milliseconds: number): void {
    this.leave();
    this.watch(this.#closingAt = this.now() + milliseconds);
  }

  /** The last write has been written: only the time of the graceful close is measured. */
  linger(milliseconds: number): void {
    this.#writing = false;
    this.#writeAt = Infinity;
    this.#stuckAt = undefined;
    this.close(milliseconds);
  }

  /** Stops all clocks for good. */
  stop(): void {
    this.linger(Infinity);
    this.alarms.drop(this);
  }

  /**
   * Returns the earliest deadline that applies. While a block is being written, that of the handler does not: it may be
   * waiting for the peer. The write clock then replaces the idle clock, as the peer is slow and not idle; if the write clock
   * is off, a peer that neither sends nor takes anything is idle.
   */
  deadline(): number {
    const peerAt = this.#writeAt === Infinity ? this.idleAt : this.#writeAt;
    const handlerAt = this.#writing ? Infinity : this.#handlerAt;
    const lookAt = Math.min(this.#readAheadAt ?? Infinity, this.#stuckAt ?? Infinity, this.readAt ?? Infinity);
    const lifeAt = Math.min(this.#ageAt ?? Infinity, this.#deadlineAt ?? Infinity, this.#closingAt ?? Infinity);
    return Math.min(peerAt, handlerAt, this.begunAt, this.firstAt ?? Infinity, lookAt, lifeAt);
  }

  wake(now: number): void {
    if (isDue(this.#readAheadAt, now)) {
      this.#readAheadAt = undefined;
      this.#report("read-ahead");
    } else if (isDue(this.readAt, now)) {
      this.readAt = undefined;
      this.#report("read-timeout");
    } else if (isDue(this.#stuckAt, now)) {
      this.#stuckAt = undefined;
      this.#report("stuck");
    } else if (isDue(this.#ageAt, now) && !(this.#aged && this.#atWork)) {
      this.#ageAt = now + OVERDUE_MS;
      // If it has expired before: a line has begun, which has its own clock; or the last replies leave at the peer's speed,
      // or that of a rate.
      if (this.#aged) return this.watch(this.deadline());
      this.#aged = true;
      this.#report("max-age");
    } else {
      this.#owner.expire(this.#expired(now));
      // A peer that has made progress goes on, and so do its other clocks; at the end, that of the last writes.
      this.watch(this.deadline());
    }
  }

  /** Reports a clock that does not end the connection by itself; the other clocks go on. */
  #report(expiry: Expiry): void {
    this.watch(this.deadline());
    this.#owner.expire(expiry);
  }

  #expired(now: number): Expiry {
    if (this.#writeAt <= now) return "write-timeout";
    if (this.begunAt <= now) return isLine(this.begun) ? "line-timeout" : "read-rate";
    if (this.#writeAt === Infinity && this.idleAt <= now) return "idle";
    if (!this.#writing && this.#handlerAt <= now) return "handler-timeout";
    if (isDue(this.firstAt, now)) return "first-line-timeout";
    if (isDue(this.#deadlineAt, now)) return "deadline";
    return isDue(this.#ageAt, now) ? "overdue" : "closing";
  }
}

/** Whether a moment has come; undefined never comes. */
function isDue(at: number | undefined, now: number): boolean {
  return at !== undefined && at <= now;
}
