/**
 * Spreads connections evenly among workers.
 *
 * @module
 */

import type { Clock } from "../../internal/api/serve_options.ts";
import type { Supervisor } from "./supervisor.ts";

/** Number of connections that a worker may have beyond the least loaded one, before it leaves the next to others. */
const MOST_AHEAD = 2;

/** The share of the least loaded worker's connections that it may have in addition. */
const SHARE_AHEAD = 1 / 16;

/** Time in which a worker has to answer that others leave connections to, in milliseconds. */
const ANSWER_MS = 250;

/**
 * Makes workers that are ahead of others accept no connections for a while. All are woken by each connection, and the
 * first takes it: of connections that come one by one, that could always be the same worker.
 *
 * A worker whose handler computes for long takes no connections, however few it has. So, while others leave connections
 * to it, it has to answer; as long as it does not, they leave it none.
 */
export class Balance {
  readonly #supervisors: readonly Supervisor[];
  readonly #clock: Clock;
  readonly #held = new Set<Supervisor>();
  /** The workers that have to answer, and those that have not done so in time. */
  readonly #asked = new Set<Supervisor>();
  readonly #stuck = new Set<Supervisor>();
  #watching = false;
  #closed = false;
  #cancelTimer = () => {};

  /**
   * @param supervisors The workers.
   * @param clock The source of time.
   */
  constructor(supervisors: readonly Supervisor[], clock: Clock) {
    this.#supervisors = supervisors;
    this.#clock = clock;
  }

  /** The load of a worker has changed, or a worker has begun or ended. */
  update(): void {
    const serving = this.#supervisors.filter((supervisor) => supervisor.state === "serving");
    const least = Math.min(...serving.filter((supervisor) => !this.#stuck.has(supervisor)).map(({ load }) => load));
    const most = MOST_AHEAD + Math.floor(least * SHARE_AHEAD);
    for (const supervisor of serving) {
      const ahead = supervisor.load - least;
      if (!this.#held.has(supervisor) && ahead > most) this.#hold(supervisor, true);
      else if (this.#held.has(supervisor) && !(ahead > most / 2)) this.#hold(supervisor, false);
    }
    if (this.#held.size > 0 && !this.#watching && !this.#closed) this.#watch();
  }

  /** Lets all workers do as they like, since they accept no more. */
  close(): void {
    this.#closed = true;
    this.#cancelTimer();
  }

  /** A worker has answered. */
  answered(supervisor: Supervisor): void {
    this.#asked.delete(supervisor);
    if (this.#stuck.delete(supervisor)) this.update();
  }

  /** A worker has ended. */
  gone(supervisor: Supervisor): void {
    this.#held.delete(supervisor);
    this.#asked.delete(supervisor);
    this.#stuck.delete(supervisor);
    this.update();
  }

  #hold(supervisor: Supervisor, held: boolean): void {
    if (held) this.#held.add(supervisor);
    else this.#held.delete(supervisor);
    supervisor.send({ type: "hold", held });
  }

  #watch(): void {
    this.#watching = true;
    for (const supervisor of this.#supervisors) {
      if (supervisor.state !== "serving" || this.#held.has(supervisor)) continue;
      this.#asked.add(supervisor);
      supervisor.send({ type: "ping" });
    }
    this.#cancelTimer = this.#clock.setTimer(() => this.#markStuck(), ANSWER_MS, false);
  }

  #markStuck(): void {
    this.#watching = false;
    for (const supervisor of this.#asked) this.#stuck.add(supervisor);
    this.update();
  }
}
