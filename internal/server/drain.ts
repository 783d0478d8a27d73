/**
 * What a shutdown does while connections are there.
 *
 * @module
 */

import type { Clock } from "../api/clock.ts";
import type { DrainMode } from "../api/serve_options.ts";

/** A connection that is to end. */
interface Draining {
  /** Ends it at a line boundary. */
  finish(reason: "drained"): void;
  /** Ends it at once. */
  abort(reason: "drain-timeout"): void;
}

/** How often a shutdown tells how many it waits for. */
const WAITING_MS = 500;

/** A drain: its mode and its deadline, which can only be brought forward. */
export class Drain {
  readonly #conns: Iterable<Draining>;
  readonly #clock: Clock;
  #mode: DrainMode = "linger";
  #deadline = Infinity;
  #cancelDeadline = () => {};
  #cancelWord = () => {};
  readonly #over = Promise.withResolvers<void>();

  /**
   * @param conns The connections that are there.
   * @param clock Where time comes from.
   * @param tell Called every 500 ms.
   */
  constructor(conns: Iterable<Draining>, clock: Clock, tell: () => void) {
    this.#conns = conns;
    this.#clock = clock;
    this.#tellLater(tell);
  }

  /** Settles at the deadline, when the connections that are left have been aborted. */
  get over(): Promise<void> {
    return this.#over.promise;
  }

  /** A later call can only bring the deadline forward, or turn `linger` into `finish`. */
  hurry(mode: DrainMode, timeout: number): void {
    if (mode === "finish" && this.#mode !== "finish") {
      this.#mode = mode;
      for (const conn of this.#conns) conn.finish("drained");
    }
    const deadline = this.#clock.now() + timeout;
    if (deadline >= this.#deadline) return;
    this.#deadline = deadline;
    this.#cancelDeadline();
    this.#cancelDeadline = this.#clock.setTimer(
      () => {
        for (const conn of this.#conns) conn.abort("drain-timeout");
        this.#over.resolve();
      },
      timeout,
      true,
    );
  }

  /** Nobody is left. */
  stop(): void {
    this.#cancelDeadline();
    this.#cancelWord();
  }

  #tellLater(tell: () => void): void {
    this.#cancelWord = this.#clock.setTimer(
      () => {
        tell();
        this.#tellLater(tell);
      },
      WAITING_MS,
      true,
    );
  }
}
