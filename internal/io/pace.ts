/**
 * Limits the speed at which the server reads from one connection.
 *
 * @module
 */

import type { Clock } from "../api/serve_options.ts";
import { Rate } from "../time/rate.ts";

/** Maximum lines and bytes read from one connection per second. */
export interface PaceLimits {
  readonly maxLinesPerSecond: number;
  readonly maxBytesPerSecond: number;
}

/**
 * Maximum part of a wait that is added to it at random. Without it, connections that began together would all be read
 * at the same moment, again and again, and all other connections would have to wait for them.
 */
const SPREAD = 0.25;

/**
 * Maximum number of groups per second in which lines that wait are passed on, and of reads while bytes wait. A timer, a
 * block and a write for each line, or for a few bytes, would cost more.
 */
const GROUPS_PER_SECOND = 10;

/** Assumed length of a line, in bytes, from which a line rate gives the size of a read. */
const LINE_BYTES = 64;

/** Minimum size of a read that follows from a line rate, in bytes. */
const LEAST_READ_BYTES = 256;

/** Delays reads, so that the kernel's buffer fills and TCP slows the peer down. The peer gets no error. */
export class Pace {
  readonly #clock: Clock;
  readonly #bytes: Rate;
  readonly #lines: Rate;
  readonly #groupLines: number;
  /** The number of bytes that a read waits for, if bytes have to wait. */
  readonly #groupBytes: number;
  /** Maximum bytes of one read: those of a second. So few wait in memory here, and the rest in the kernel. */
  readonly secondBytes: number;
  #mostBytes = Infinity;
  /** Whether the last read was as large as the rates allowed, so that the kernel probably has more. */
  filled = false;
  /** The wait for the next read, which outlasts a handler's read that is interrupted. */
  #reading: Promise<void> | undefined;
  /** End the current waits: one for a read, and one for a line. */
  readonly #wakes = new Set<() => void>();
  /** The random time added to the last wait, in milliseconds. The rate is charged as if it had not been added. */
  #late = 0;
  /** The number of lines that may pass without a further wait. */
  #granted = 0;
  #stopped = false;

  /** Makes the pace of a connection; `undefined` if neither limit is set. */
  static of(limits: PaceLimits, clock: Clock): Pace | undefined {
    const { maxLinesPerSecond, maxBytesPerSecond } = limits;
    const isSet = maxLinesPerSecond !== Infinity || maxBytesPerSecond !== Infinity;
    return isSet ? new Pace(limits, clock) : undefined;
  }

  /** Whether limits have changed. */
  static changes(before: PaceLimits, limits: PaceLimits): boolean {
    return limits.maxLinesPerSecond !== before.maxLinesPerSecond ||
      limits.maxBytesPerSecond !== before.maxBytesPerSecond;
  }

  constructor(limits: PaceLimits, clock: Clock) {
    this.#clock = clock;
    this.#bytes = new Rate(limits.maxBytesPerSecond);
    this.#lines = new Rate(limits.maxLinesPerSecond);
    this.#groupLines = Math.ceil(limits.maxLinesPerSecond / GROUPS_PER_SECOND);
    this.#groupBytes = Math.ceil(limits.maxBytesPerSecond / GROUPS_PER_SECOND);
    const linesBytes = Math.max(LEAST_READ_BYTES, limits.maxLinesPerSecond * LINE_BYTES);
    this.secondBytes = Math.max(1, Math.floor(Math.min(limits.maxBytesPerSecond, linesBytes)));
  }

  /** Whether the rate of lines is limited, so that each line has to ask whether it may pass. */
  get limitsLines(): boolean {
    return this.#groupLines !== Infinity;
  }

  /** Returns the maximum bytes of a read that begins now. */
  beginRead(): number {
    const allowed = Math.min(this.#bytes.available(this.#clock.now()), this.secondBytes);
    return this.#mostBytes = Math.max(1, allowed);
  }

  /** Whether the next read has to wait. */
  get holdsUp(): boolean {
    return this.#readWait() > 0;
  }

  /** Waits until more may be read. */
  read(): Promise<void> {
    return this.#reading ??= this.#sleep(this.#readWait()).finally(() => this.#reading = undefined);
  }

  #readWait(): number {
    return this.#bytes.wait(this.#clock.now(), this.#groupBytes);
  }

  /** Counts bytes that were read. */
  took(bytes: number): void {
    this.filled = bytes === this.#mostBytes;
    this.#bytes.take(this.#clock.now() - this.#late, bytes);
  }

  /**
   * Asks whether one more line may pass.
   *
   * @param atHand Counts the lines that wait, up to the given number.
   * @returns A promise that settles when the line may pass; `undefined` if it may pass now.
   */
  line(atHand: (most: number) => number): Promise<void> | undefined {
    if (!this.limitsLines || this.#stopped) return undefined;
    if (this.#granted === 0) return this.#nextGroup(atHand);
    this.#granted--;
  }

  async #nextGroup(atHand: (most: number) => number): Promise<void> {
    const group = Math.max(1, atHand(this.#groupLines));
    await this.#sleep(this.#lines.wait(this.#clock.now(), group));
    if (this.#stopped) return;
    // A timer may expire up to a millisecond early, so the whole group may pass even if the rate allows one line less.
    const count = Math.max(1, atHand(Math.max(group, this.#lines.available(this.#clock.now()))));
    this.#lines.take(this.#clock.now() - this.#late, count);
    this.#granted = count - 1;
  }

  /** Ends the current waits, and makes all later ones end at once. */
  stop(): void {
    this.#stopped = true;
    for (const wake of this.#wakes) wake();
  }

  async #sleep(milliseconds: number): Promise<void> {
    this.#late = 0;
    if (milliseconds === 0 || this.#stopped) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#late = milliseconds * SPREAD * Math.random();
    // No read is outstanding meanwhile, so only this timer keeps the process alive.
    const cancel = this.#clock.setTimer(resolve, milliseconds + this.#late, true);
    this.#wakes.add(resolve);
    await promise;
    this.#wakes.delete(resolve);
    cancel();
  }
}
