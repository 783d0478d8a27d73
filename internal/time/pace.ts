/**
 * Limits the speed at which the server reads from one connection.
 *
 * @module
 */

import type { Clock } from "../api/clock.ts";
import { Rate } from "./rate.ts";

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
 * Maximum number of groups per second in which lines that wait are passed on. A timer, a block and a write for each
 * line would cost more.
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
  /**
   * Maximum bytes of one read: what may be read in one second. So little waits in memory here, and the rest in the
   * kernel.
   */
  readonly maxReadBytes: number;
  #wake = () => {};
  /** The random time added to the last wait, in milliseconds. The rate is charged as if it had not been added. */
  #late = 0;
  #stopped = false;

  /** Whether either limit is set. */
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

  /** Whether the next read has to wait. */
  get holdsUp(): boolean {
    return this.#bytes.wait(this.#clock.now()) > 0;
  }

  /** Waits until more may be read. */
  read(): Promise<void> {
    return this.#sleep(this.#bytes.wait(this.#clock.now()));
  }

  /** Counts bytes that were read. */
  took(bytes: number): void {
    this.#bytes.take(this.#clock.now() - this.#late, bytes);
  }

  /** The lines that are held back. */
  later = "";

  /**
   * Waits until lines may pass, and holds back those that may not pass yet.
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

  /** Returns the lines that are held back, and no longer holds them. */
  takeLater(): string {
    const { later } = this;
    this.later = "";
    return later;
  }

  /**
   * Waits until lines may pass.
   *
   * @param lines One or more lines, each ended by LF.
   * @returns Where the last line ends that may pass now; at least one line may. After {@linkcode stop}, all lines may.
   */
  async pass(lines: string): Promise<number> {
    // Without a limit on lines, there is no need to look for their ends.
    if (this.#groupLines === Infinity) return lines.length;
    const group = firstLines(lines, this.#groupLines).count;
    await this.#sleep(this.#lines.wait(this.#clock.now(), group));
    if (this.#stopped) return lines.length;
    // A timer may expire up to a millisecond early, so the whole group may pass even if the rate allows one line less.
    const { count, end } = firstLines(lines, Math.max(group, this.#lines.available(this.#clock.now())));
    this.#lines.take(this.#clock.now() - this.#late, count);
    return end;
  }

  /** Ends the current wait, and makes all later ones end at once. */
  stop(): void {
    this.#stopped = true;
    this.#wake();
  }

  async #sleep(milliseconds: number): Promise<void> {
    this.#late = 0;
    if (milliseconds === 0 || this.#stopped) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#late = milliseconds * SPREAD * Math.random();
    // No read is outstanding meanwhile, so only this timer keeps the process alive.
    const cancel = this.#clock.setTimer(resolve, milliseconds + this.#late, true);
    this.#wake = resolve;
    await promise;
    cancel();
  }
}

/** Counts the lines, up to `most`; returns their number and where they end. */
function firstLines(lines: string, most: number): { count: number; end: number } {
  let end = 0;
  let count = 0;
  while (count < most && end < lines.length) {
    end = lines.indexOf("\n", end) + 1;
    count++;
  }
  return { count, end };
}
