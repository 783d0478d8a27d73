/**
 * Leaves out log lines when too many of one kind come within a second.
 *
 * @module
 */

import type { Clock } from "../../internal/api/serve_options.ts";
import type { Level } from "./log.ts";

/** Time in which the lines of each kind are counted, in milliseconds. */
const WINDOW_MS = 1000;

/** The lines of one kind in the present second. */
interface Kind {
  readonly level: Level;
  lines: number;
}

/**
 * Lets the first lines of each kind in a second pass, and says at the end of the second how many of that kind it has
 * left out. The next second begins with the next line.
 */
export class Sampler {
  readonly #most: number;
  readonly #clock: Clock;
  readonly #report: (level: Level, kind: string, lines: number, ms: number) => void;
  /** The kinds of the present second. There are few: an event, or an event and one of the reasons. */
  readonly #kinds = new Map<string, Kind>();
  #since = -Infinity;
  #cancel = () => {};

  /**
   * @param most Maximum lines of one kind in a second; `Infinity` for no limit.
   * @param clock Tells when a second is over.
   * @param report Called with each kind of which lines were left out, how many they are, and within which time.
   */
  constructor(
    most: number,
    clock: Clock,
    report: (level: Level, kind: string, lines: number, ms: number) => void,
  ) {
    this.#most = most;
    this.#clock = clock;
    this.#report = report;
  }

  /** Counts a line; returns whether it is to be written. */
  takes(level: Level, name: string): boolean {
    if (this.#most === Infinity) return true;
    const now = this.#clock.now();
    // The timer may be late, because the event loop is busy: that is when thousands of lines come.
    if (now - this.#since >= WINDOW_MS) this.#begin(now);
    let kind = this.#kinds.get(name);
    if (kind === undefined) this.#kinds.set(name, kind = { level, lines: 0 });
    return ++kind.lines <= this.#most;
  }

  /** Ends the present second, and reports what was left out. */
  tell(): void {
    this.#cancel();
    const ms = this.#clock.now() - this.#since;
    this.#since = -Infinity;
    for (const [name, { level, lines }] of this.#kinds) {
      if (lines > this.#most) this.#report(level, name, lines - this.#most, ms);
    }
    this.#kinds.clear();
  }

  #begin(now: number): void {
    this.tell();
    this.#since = now;
    this.#cancel = this.#clock.setTimer(() => this.tell(), WINDOW_MS, false);
  }
}
