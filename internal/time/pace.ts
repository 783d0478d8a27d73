/**
 * Reading more slowly than a peer sends.
 *
 * @module
 */

import type { Clock } from "../api/clock.ts";
import { Rate } from "./rate.ts";

/** How much one connection may send per second. */
export interface PaceLimits {
  readonly maxLinesPerSecond: number;
  readonly maxBytesPerSecond: number;
}

/** Peers that came together are not woken together, again and again, which everybody else would have to wait for. */
const SPREAD = 0.25;

/** Lines that wait pass in groups, so many times a second at most: a timer, a block and a write for each would cost more. */
const GROUPS_PER_SECOND = 10;

/** So long a line is taken to be before it has come; but no read is smaller for it than this, whose lines may be empty. */
const LINE_BYTES = 64;
const LEAST_READ_BYTES = 256;

/** Holds reading up, so that the kernel's buffer fills and TCP slows the peer down: nobody gets an error. */
export class Pace {
  readonly #clock: Clock;
  readonly #bytes: Rate;
  readonly #lines: Rate;
  readonly #groupLines: number;
  /** The largest read, so that what waits here is little, and the rest waits in the kernel: a second's worth of bytes. */
  readonly maxReadBytes: number;
  #wake = () => {};
  /** How much later than it had to be the last wait was over: our doing, which the rate does not count. */
  #late = 0;
  #stopped = false;

  /** Whether there is a pace to keep. */
  static isSet({ maxLinesPerSecond, maxBytesPerSecond }: PaceLimits): boolean {
    return maxLinesPerSecond !== Infinity || maxBytesPerSecond !== Infinity;
  }

  constructor(limits: PaceLimits, clock: Clock) {
    this.#clock = clock;
    this.#bytes = new Rate(limits.maxBytesPerSecond);
    this.#lines = new Rate(limits.maxLinesPerSecond);
    this.#groupLines = Math.max(1, Math.floor(limits.maxLinesPerSecond / GROUPS_PER_SECOND));
    const linesBytes = Math.max(LEAST_READ_BYTES, limits.maxLinesPerSecond * LINE_BYTES);
    this.maxReadBytes = Math.max(1, Math.floor(Math.min(limits.maxBytesPerSecond, linesBytes)));
  }

  /** Whether no more may be read for now. */
  get holdsUp(): boolean {
    return this.#bytes.wait(this.#clock.now()) > 0;
  }

  /** Waits until more may be read. */
  read(): Promise<void> {
    return this.#sleep(this.#bytes.wait(this.#clock.now()));
  }

  /** So much was read. */
  took(bytes: number): void {
    this.#bytes.take(this.#clock.now() - this.#late, bytes);
  }

  /** Lines that are held back. */
  later = "";

  /**
   * Waits until lines may pass, and holds the others back.
   *
   * @param read Reads one or more lines, each ended by LF; `undefined` if there are no more.
   * @returns The lines that may pass, or `undefined`.
   */
  async next(read: () => Promise<string | undefined>): Promise<string | undefined> {
    const lines = this.later || await read();
    if (lines === undefined) return undefined;
    const end = await this.pass(lines);
    this.later = lines.slice(end);
    return lines.slice(0, end);
  }

  /** Takes the lines that are held back. */
  takeLater(): string {
    const { later } = this;
    this.later = "";
    return later;
  }

  /**
   * Waits until lines may pass.
   *
   * @param lines One or more lines, each ended by LF.
   * @returns Where those end that may pass now, at least one; all, once nothing is held up any more.
   */
  async pass(lines: string): Promise<number> {
    // Where bytes alone are limited, nobody need look for the ends of lines.
    if (this.#groupLines === Infinity) return lines.length;
    const group = firstLines(lines, this.#groupLines).count;
    await this.#sleep(this.#lines.wait(this.#clock.now(), group));
    if (this.#stopped) return lines.length;
    // A timer may be early by less than a millisecond.
    const { count, end } = firstLines(lines, Math.max(group, this.#lines.available(this.#clock.now())));
    this.#lines.take(this.#clock.now() - this.#late, count);
    return end;
  }

  /** Waits no more. */
  stop(): void {
    this.#stopped = true;
    this.#wake();
  }

  async #sleep(milliseconds: number): Promise<void> {
    this.#late = 0;
    if (milliseconds === 0 || this.#stopped) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#late = milliseconds * SPREAD * Math.random();
    // The transport is at rest meanwhile, so this alone keeps the process alive.
    const cancel = this.#clock.setTimer(resolve, milliseconds + this.#late, true);
    this.#wake = resolve;
    await promise;
    cancel();
  }
}

/** How many lines there are, at most so many, and where they end. */
function firstLines(lines: string, most: number): { count: number; end: number } {
  let end = 0;
  let count = 0;
  while (count < most && end < lines.length) {
    end = lines.indexOf("\n", end) + 1;
    count++;
  }
  return { count, end };
}
