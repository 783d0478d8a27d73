/**
 * The clocks of a connection that run while the server waits for the peer.
 *
 * @module
 */

import type { WaitsFor } from "../api/handlers.ts";
import type { Alarms, Sleeper } from "./alarms.ts";
import { allowedMs, type Begun, isLine, type Timeouts } from "./expiry.ts";

/** The peer's clocks: for its first byte, for silence, for the rest of what it has begun, and for one read. */
export abstract class PeerClocks implements Sleeper {
  protected readonly alarms: Alarms;
  /** The time limits. */
  protected times: Timeouts;
  wakeAt: number = Infinity;
  place = 0;
  protected waiting = false;
  protected idleAt: number = Infinity;
  /** What is left of `idleTimeout`, and of `firstLineTimeout`, if a read was interrupted; undefined for all of it. */
  #idleLeft: number | undefined;
  #firstLeft: number | undefined;
  /** What has begun. */
  protected begun: Begun | undefined;
  /** When the rest of that must have come. */
  protected begunAt: number = Infinity;
  /** Since when the server waits for it, and for how long it has waited before, in milliseconds. */
  #waitFrom = 0;
  #waited = 0;
  /** When the current read must have settled; while it is set, `idleTimeout` does not apply. */
  protected readAt: number | undefined;
  /** For clocks that seldom run, `undefined` takes less memory than `Infinity`. */
  protected firstAt: number | undefined;
  /** Whether the peer has not sent anything yet. */
  #silent = true;

  constructor(alarms: Alarms, timeouts: Timeouts) {
    this.alarms = alarms;
    this.times = timeouts;
  }

  abstract deadline(): number;
  abstract wake(now: number): void;

  protected now(): number {
    return this.alarms.clock.now();
  }

  protected watch(at: number): void {
    if (at < this.wakeAt) this.alarms.watch(this, at);
  }

  /** What the server waits for from the peer. */
  protected get awaited(): WaitsFor {
    if (this.begun !== undefined) return isLine(this.begun) ? "line" : "body";
    return this.#silent ? "first-byte" : "peer";
  }

  /** For how many milliseconds the connection has waited for its peer; 0 if it does not. */
  get idleMs(): number {
    if (!this.waiting) return 0;
    const quietFrom = this.idleAt === Infinity ? this.#waitFrom : this.idleAt - this.times.idleTimeout;
    return this.now() - quietFrom;
  }

  /** The limits have changed; a clock whose limit has changed starts anew. */
  protected timesChanged(changed: (name: keyof Timeouts) => boolean): void {
    if (changed(isLine(this.begun) ? "lineTimeout" : "minBytesPerSecond")) {
      this.#waited = 0;
      if (this.waiting) this.#startBegun(this.now());
    }
    if (changed("idleTimeout") || changed("idleOn")) this.#idleLeft = undefined;
    if (changed("firstLineTimeout")) this.#firstLeft = undefined;
    if (this.waiting && changed("idleTimeout")) this.#startIdle(this.now());
    if (this.waiting && changed("firstLineTimeout")) this.#startFirst(this.now());
  }

  /**
   * The server begins to wait for the peer's bytes. In mid-line and in a body, the clock goes on from where it stopped.
   *
   * @param begun What has begun and is waited for; undefined if nothing has begun.
   */
  wait(begun: Begun | undefined): void {
    this.waiting = true;
    this.begun = begun;
    const now = this.now();
    this.#startIdle(now);
    this.#startFirst(now);
    this.#startBegun(now);
  }

  #startFirst(now: number): void {
    if (!this.#silent || this.readAt !== undefined) return;
    this.firstAt = now + (this.#firstLeft ?? this.times.firstLineTimeout);
    this.watch(this.firstAt);
  }

  #startBegun(now: number): void {
    this.#waitFrom = now;
    this.begunAt = now + allowedMs(this.begun, this.times) - this.#waited;
    this.watch(this.begunAt);
  }

  #startIdle(now: number): void {
    if (this.readAt !== undefined) return;
    this.idleAt = now + (this.#idleLeft ?? this.times.idleTimeout);
    this.watch(this.idleAt);
  }

  /** A read begins: what it reads has its whole time. */
  begin(): void {
    this.#waited = 0;
  }

  /** The time limit of one read begins, in place of that of `idleTimeout`; undefined ends it. */
  limitRead(milliseconds: number | undefined): void {
    this.readAt = milliseconds === undefined ? undefined : this.now() + milliseconds;
    this.watch(this.readAt ?? Infinity);
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
   * The server no longer waits for the peer.
   *
   * @param heard Whether the peer has sent something, or no longer needs to.
   */
  protected endWait(heard: boolean): void {
    this.waiting = false;
    if (heard) this.#silent = false, this.#idleLeft = this.#firstLeft = undefined;
    else this.#keepRest(this.now());
    this.idleAt = Infinity;
    this.firstAt = undefined;
    if (this.begunAt === Infinity) return;
    this.#waited += this.now() - this.#waitFrom;
    this.begunAt = Infinity;
  }

  /** Keeps what is left of the peer's clocks for the next wait. */
  #keepRest(now: number): void {
    if (this.idleAt !== Infinity) this.#idleLeft = this.idleAt - now;
    if (this.firstAt !== undefined) this.#firstLeft = this.firstAt - now;
  }

  /** Something was written to the peer: it has the whole `idleTimeout` again. */
  protected restartIdle(): void {
    this.#idleLeft = undefined;
    if (this.waiting) this.#startIdle(this.now());
  }
}
