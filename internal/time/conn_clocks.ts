/**
 * The clocks of one connection.
 *
 * @module
 */

import type { WaitsFor } from "../api/handlers.ts";
import type { Alarms, Sleeper } from "./alarms.ts";
import { type Begun, type Expiry, inMessage, isLine, type Timeouts } from "./expiry.ts";

/**
 * Maximum part by which a limit on a connection's whole life is changed at random, so that clients that connected
 * together do not all reconnect together.
 */
const JITTER = 0.1;

/** Time for which a handler works without reading before the server checks for a reset by the peer, in milliseconds. */
const READ_AHEAD_MS = 250;

/** Time that a body has before `minBytesPerSecond` applies, in milliseconds. */
const RATE_GRACE_MS = 5000;

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
  #timeouts: Timeouts;
  readonly #owner: { expire(expiry: Expiry): void };
  wakeAt: number = Infinity;
  place = 0;
  #waiting = false;
  #idleAt = Infinity;
  /** What is left of `idleTimeout`, and of `firstLineTimeout`, if a read was interrupted; undefined for all of it. */
  #idleLeft: number | undefined;
  #firstLeft: number | undefined;
  /** What has begun, when it must have come, since when the server waits, and how long it has waited before. */
  #begun: Begun | undefined;
  #begunAt = Infinity;
  #waitFrom = 0;
  #waited = 0;
  /** When the current read must have settled; while it is set, `idleTimeout` does not apply. */
  #readAt: number | undefined;
  /** For clocks that seldom run, `undefined` takes less memory than `Infinity`. */
  #deadlineAt: number | undefined;
  #firstAt: number | undefined;
  /** Whether the peer has not sent anything yet. */
  #silent = true;
  #halfClosed = false;
  #working = false;
  /** Whether the handler knows that there is no more input. */
  #knowsEnd = false;
  #handlerAt = Infinity;
  #readAheadAt = Infinity;
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
    this.#alarms = alarms;
    this.#timeouts = timeouts;
    this.#owner = owner;
    if (timeouts.maxAge !== Infinity) this.#startAge();
  }

  #startAge(): void {
    this.#watch(this.#ageAt = this.#now() + jitter(this.#timeouts.maxAge));
  }

  /** What the connection waits for. */
  get waitsFor(): WaitsFor {
    if (this.#leaving) return "close";
    if (this.#writing) return "write";
    if (!this.#waiting) return this.#working ? "handler" : "turn";
    if (this.#begun !== undefined) return isLine(this.#begun) ? "line" : "body";
    return this.#silent ? "first-byte" : "peer";
  }

  /** For how many milliseconds the connection has waited for its peer; 0 if it does not. */
  get idleMs(): number {
    if (!this.#waiting) return 0;
    const quietFrom = this.#idleAt === Infinity ? this.#waitFrom : this.#idleAt - this.#timeouts.idleTimeout;
    return this.#now() - quietFrom;
  }

  /** Changes the limits; a clock whose limit has changed starts anew. */
  set timeouts(timeouts: Timeouts) {
    const before = this.#timeouts;
    const changed = (name: keyof Timeouts) => before[name] !== timeouts[name];
    this.#timeouts = timeouts;
    if (changed("maxAge") && !this.#aged && !this.#leaving) this.#startAge();
    if (changed(isLine(this.#begun) ? "lineTimeout" : "minBytesPerSecond")) {
      this.#waited = 0;
      if (this.#waiting) this.#startBegun(this.#now());
    }
    if (this.#working && (changed("handlerTimeout") || changed("halfCloseTimeout"))) this.#startHandler();
    if (changed("idleTimeout") || changed("idleOn")) this.#idleLeft = undefined;
    if (changed("firstLineTimeout")) this.#firstLeft = undefined;
    if (this.#waiting && changed("idleTimeout")) this.#startIdle(this.#now());
    if (this.#waiting && changed("firstLineTimeout")) this.#startFirst(this.#now());
  }

  #now(): number {
    return this.#alarms.clock.now();
  }

  #watch(at: number): void {
    if (at < this.wakeAt) this.#alarms.watch(this, at);
  }

  /**
   * The server begins to wait for the peer's bytes. In mid-line and in a body, the clock goes on from where it stopped.
   *
   * @param begun What has begun and is waited for; undefined if nothing has begun.
   */
  wait(begun: Begun | undefined): void {
    this.#waiting = true;
    this.stopHandler();
    this.#begun = begun;
    const now = this.#now();
    this.#startIdle(now);
    this.#startFirst(now);
    this.#startBegun(now);
  }

  #startFirst(now: number): void {
    if (!this.#silent || this.#readAt !== undefined) return;
    this.#firstAt = now + (this.#firstLeft ?? this.#timeouts.firstLineTimeout);
    this.#watch(this.#firstAt);
  }

  #startBegun(now: number): void {
    this.#waitFrom = now;
    this.#begunAt = now + this.#allowed() - this.#waited;
    this.#watch(this.#begunAt);
  }

  /** How long the server waits in all for the rest of what has begun, in milliseconds. */
  #allowed(): number {
    const begun = this.#begun;
    if (isLine(begun)) return this.#timeouts.lineTimeout;
    const { minBytesPerSecond } = this.#timeouts;
    if (begun === undefined || begun === 0 || minBytesPerSecond === 0) return Infinity;
    return Math.max(RATE_GRACE_MS, begun / minBytesPerSecond * 1000);
  }

  /**
   * Bytes have come, so the server no longer waits for the peer.
   *
   * @param ended Whether a line ended with these bytes: the next line has its whole time.
   */
  came(ended: boolean): void {
    this.rest();
    if (ended) this.#waited = 0;
  }

  /** A read begins: what it reads has its whole time. */
  begin(): void {
    this.#waited = 0;
  }

  /** The time limit of one read begins, in place of that of `idleTimeout`; undefined ends it. */
  limitRead(milliseconds: number | undefined): void {
    if (this.#leaving) return;
    this.#readAt = milliseconds === undefined ? undefined : this.#now() + milliseconds;
    this.#watch(this.#readAt ?? Infinity);
  }

  /** Sets the handler's deadline; `Infinity` takes it back. */
  setDeadline(milliseconds: number): void {
    this.#watch(this.#deadlineAt = this.#now() + milliseconds);
  }

  /** A read has given something: the next one has the whole time. */
  gave(): void {
    this.#idleLeft = this.#firstLeft = undefined;
  }

  /** Bytes have come that the server did not wait for. */
  heard(): void {
    this.#silent = false;
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
    this.#waiting = false;
    this.stopHandler();
    if (heard) this.#silent = false, this.#idleLeft = this.#firstLeft = undefined;
    else this.#keepRest(this.#now());
    this.#idleAt = Infinity;
    this.#firstAt = undefined;
    if (this.#begunAt === Infinity) return;
    this.#waited += this.#now() - this.#waitFrom;
    this.#begunAt = Infinity;
  }

  /** Keeps what is left of the peer's clocks for the next wait. */
  #keepRest(now: number): void {
    if (this.#idleAt !== Infinity) this.#idleLeft = this.#idleAt - now;
    if (this.#firstAt !== undefined) this.#firstLeft = this.#firstAt - now;
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
    else this.#watch(this.#handlerAt = handlerAt);
  }

  /** Sets the time of the next check for a reset by the peer while the handler works. */
  readAheadLater(): void {
    if (!this.#working) return;
    this.#readAheadAt = this.#now() + READ_AHEAD_MS;
    this.#watch(this.#readAheadAt);
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
    this.#handlerAt = this.#readAheadAt = Infinity;
    return handlerAt;
  }

  /** Expires the handler's clock if its time, which {@linkcode stopHandler} has returned, is up. */
  handlerIsDue(at: number): void {
    if (!this.#writing && !this.#leaving && at <= this.#now()) this.#owner.expire("handler-timeout");
  }

  /** A read has told the handler that there is no more input. */
  toldEnd(): void {
    this.#knowsEnd = true;
  }

  /**
   * Whether the handler works, or reads within a message, so that it comes to no line boundary. Once it knows of the end of input,
   * it works also while another read waits for its turn.
   */
  get #atWork(): boolean {
    return this.#working || this.#knowsEnd || this.#waiting && inMessage(this.#begun);
  }

  #startHandler(): void {
    const { handlerTimeout, halfCloseTimeout } = this.#timeouts;
    const timeout = this.#halfClosed ? Math.min(handlerTimeout, halfCloseTimeout) : handlerTimeout;
    if (timeout === Infinity) return void (this.#handlerAt = Infinity);
    this.#handlerAt = this.#now() + timeout;
    this.#watch(this.#handlerAt);
  }

  /**
   * The writing of a block has begun, or has made progress.
   *
   * @param large Whether the block is so large that its memory counts if it has to wait.
   * @param part The part of `writeTimeout` after which the clock expires.
   */
  writing(large: boolean, part = 1): void {
    const now = this.#now();
    this.#writing = true;
    this.#writeAt = now + part * this.#timeouts.writeTimeout;
    this.#watch(this.#writeAt);
    // While the write clock is off, the idle clock runs, and a peer that takes a part is not idle.
    if (this.#writeAt === Infinity) this.#restartIdle();
    if (large) this.grown();
  }

  /**
   * What waits has become so large that its memory counts in a while. Progress does not start that time anew: a peer that
   * takes little, again and again, could otherwise make others wait for memory for as long as it likes.
   */
  grown(): void {
    if (this.#stuckAt !== undefined) return;
    this.#watch(this.#stuckAt = this.#now() + STUCK_MS);
  }

  /**
   * The block has been written. This restarts the idle clock, and the handler's clock, which stood still meanwhile.
   *
   * @param backlog Whether more than a block waits behind it. That has waited as long, so its time goes on.
   */
  wrote(backlog = false): void {
    this.#writing = false;
    this.#writeAt = Infinity;
    if (!backlog) this.#stuckAt = undefined;
    this.handlerActed();
    this.#restartIdle();
  }

  /** Something was written to the peer, which restarts the idle clock. */
  #restartIdle(): void {
    if (this.#timeouts.idleOn === "read" && !this.#leaving) return;
    this.#idleLeft = undefined;
    if (this.#waiting) this.#startIdle(this.#now());
  }

  #startIdle(now: number): void {
    if (this.#readAt !== undefined) return;
    this.#idleAt = now + (this.#idleLeft ?? this.#timeouts.idleTimeout);
    this.#watch(this.#idleAt);
  }

  /** The connection is about to end: from now on, only its last writes are timed. */
  leave(): void {
    this.#rest(true);
    this.#leaving = true;
    this.#deadlineAt = this.#closingAt = this.#ageAt = undefined;
    this.#readAt = undefined;
  }

  /** The last writes wait for the peer: with the write clock off, a peer that takes nothing of them is idle. */
  lastWrites(): void {
    // Nothing has begun any more: with a line or a body, a change of its limit would start its clock.
    this.wait(undefined);
  }

  /** A step of the connection's end has begun: from now on, only its own time and that of a write are measured. */
  close(milliseconds: number): void {
    this.leave();
    this.#watch(this.#closingAt = this.#now() + milliseconds);
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
    this.#alarms.drop(this);
  }

  /**
   * The earliest of the deadlines that apply. While a block waits to be written, that of the handler does not: it may be
   * waiting for the peer. The write clock replaces that of the peer, which is slow and not idle; if it is off, a peer that
   * neither sends nor takes anything is idle.
   */
  deadline(): number {
    const peerAt = this.#writeAt === Infinity ? this.#idleAt : this.#writeAt;
    const handlerAt = this.#writing ? Infinity : this.#handlerAt;
    const lookAt = Math.min(this.#readAheadAt, this.#stuckAt ?? Infinity, this.#readAt ?? Infinity);
    const lifeAt = Math.min(this.#ageAt ?? Infinity, this.#deadlineAt ?? Infinity, this.#closingAt ?? Infinity);
    return Math.min(peerAt, handlerAt, this.#begunAt, this.#firstAt ?? Infinity, lookAt, lifeAt);
  }

  wake(now: number): void {
    if (this.#readAheadAt <= now) this.#once("read-ahead", () => this.#readAheadAt = Infinity);
    else if (isDue(this.#readAt, now)) this.#once("read-timeout", () => this.#readAt = undefined);
    else if (isDue(this.#stuckAt, now)) this.#once("stuck", () => this.#stuckAt = undefined);
    else if (isDue(this.#ageAt, now) && !(this.#aged && this.#atWork)) {
      this.#ageAt = now + OVERDUE_MS;
      if (!this.#aged) this.#once("max-age", () => this.#aged = true);
      // No handler works: the last replies are being written, at the peer's speed or at that of a rate limit.
      else this.#watch(this.deadline());
    } else {
      this.#owner.expire(this.#expired(now));
      // A peer that has made progress goes on, and so do its other clocks; at the end, that of the last writes.
      this.#watch(this.deadline());
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
    if (this.#begunAt <= now) return isLine(this.#begun) ? "line-timeout" : "read-rate";
    if (this.#writeAt === Infinity && this.#idleAt <= now) return "idle";
    if (!this.#writing && this.#handlerAt <= now) return "handler-timeout";
    if (isDue(this.#firstAt, now)) return "first-line-timeout";
    if (isDue(this.#deadlineAt, now)) return "deadline";
    return isDue(this.#ageAt, now) ? "overdue" : "closing";
  }
}

/** Whether a moment has come; undefined never comes. */
function isDue(at: number | undefined, now: number): boolean {
  return at !== undefined && at <= now;
}
