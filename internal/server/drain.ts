/**
 * What a shutdown does while connections are open.
 *
 * @module
 */

import type { Clock } from "../api/serve_options.ts";
import type { DrainMode } from "../api/serve_options.ts";

/** A connection that the shutdown ends. */
interface Draining {
  /** Ends it at a line boundary. */
  finish(reason: "drained"): void;
  /** Ends it at once. */
  abort(reason: "drain-timeout"): void;
}

/** Time between two reports of the number of open connections, in milliseconds. */
const WAITING_MS = 500;

/** The mode and the deadline of a shutdown; the deadline can only be brought forward. */
export class Drain {
  readonly #conns: Iterable<Draining>;
  readonly #clock: Clock;
  #mode: DrainMode = "linger";
  #deadline = Infinity;
  #cancelDeadline = () => {};
  #cancelReport = () => {};
  readonly #over = Promise.withResolvers<void>();

  /**
   * @param conns The open connections.
   * @param clock The source of time.
   * @param report Called every 500 ms.
   */
  constructor(conns: Iterable<Draining>, clock: Clock, report: () => void) {
    this.#conns = conns;
    this.#clock = clock;
    this.#reportLater(report);
  }

  /** Settles at the deadline, after the connections that are left have been aborted. */
  get over(): Promise<void> {
    return this.#over.promise;
  }

  /**
   * Sets the mode and the deadline. A later call can only turn `linger` into `finish`, or bring the deadline forward.
   */
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

  /** Cancels the timers, because no connection is left. */
  stop(): void {
    this.#cancelDeadline();
    this.#cancelReport();
  }

  #reportLater(report: () => void): void {
    this.#cancelReport = this.#clock.setTimer(
      () => {
        report();
        this.#reportLater(report);
      },
      WAITING_MS,
      true,
    );
  }
}
