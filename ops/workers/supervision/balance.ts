/**
 * Spreads connections evenly among workers.
 *
 * @module
 */

import type { Clock } from "../../../internal/api/serve_options.ts";
import { Loads, NO_LIMIT } from "../shared/loads.ts";
import type { Supervisor } from "./supervisor.ts";

/** Number of connections that a worker may have beyond the least loaded one, before it leaves the next to others. */
const MOST_AHEAD = 3;

/**
 * A worker may exceed `MOST_AHEAD` by this share of the least loaded worker's connections and of those that have ended
 * lately. Where connections come and go, a lead is soon made up for, and to wait for others would take up to twice the time.
 */
const SHARE_AHEAD = 1 / 16;

/** Time in milliseconds after which half of the connections that have ended are forgotten. */
const FORGET_MS = 50;

/** Time in which a worker has to answer that others leave connections to, in milliseconds. */
const ANSWER_MS = 250;

/**
 * Makes workers that are ahead of others accept no connections for a while. All are woken by each connection, and the
 * first takes it: of connections that come one by one, or all at once, that could always be the same worker.
 *
 * Each worker tells in shared memory how many connections it has, and reads there how many are enough. When it has them,
 * it says so, and gets a message when it may go on. The one that has the fewest may always.
 *
 * A worker whose handler computes for long takes no connections, however few it has. So, while other workers hold back
 * for it, it gets pings; if it does not answer one within `ANSWER_MS`, they stop holding back until it answers.
 */
export class Balance {
  readonly loads: Loads;
  readonly #supervisors: readonly Supervisor[];
  readonly #clock: Clock;
  /** The workers that leave connections to others. */
  readonly #ahead = new Set<Supervisor>();
  /** The workers that have to answer, and those that have not done so in time. */
  readonly #asked = new Set<Supervisor>();
  readonly #stuck = new Set<Supervisor>();
  #watching = false;
  #closed = false;
  /** The number of connections that have ended lately; more than 0 while the timer that forgets them runs. */
  #ended = 0;
  #cancelTimer = () => {};
  #cancelForgetting = () => {};

  /**
   * @param supervisors The workers.
   * @param clock The source of time.
   */
  constructor(supervisors: readonly Supervisor[], clock: Clock) {
    this.loads = new Loads(supervisors.length);
    this.#supervisors = supervisors;
    this.#clock = clock;
  }

  /** The load of a worker has changed, or a worker has begun or ended. */
  update(): void {
    const serving = this.#supervisors.filter((supervisor) => supervisor.state === "serving");
    const others = serving.filter((supervisor) => !this.#stuck.has(supervisor));
    const least = Math.min(...others.map(({ index }) => this.loads.of(index)));
    const most = MOST_AHEAD + Math.floor((least + this.#ended) * SHARE_AHEAD);
    this.loads.enough = others.length > 1 ? least + most : NO_LIMIT;
    for (const supervisor of this.#ahead) {
      if (this.loads.of(supervisor.index) - least > most / 2) continue;
      this.#ahead.delete(supervisor);
      supervisor.send({ type: "go-on" });
    }
    if (this.#ahead.size > 0 && !this.#watching && !this.#closed) this.#watch();
  }

  /** A connection has ended. */
  left(): void {
    this.#ended++;
    if (this.#ended === 1 && !this.#closed) this.#forgetLater();
    this.update();
  }

  /** A worker has enough connections, and leaves the next to others. */
  leaves(supervisor: Supervisor): void {
    this.#ahead.add(supervisor);
    this.update();
  }

  /** Stops balancing, because the workers accept no more connections. */
  close(): void {
    this.#closed = true;
    this.#cancelTimer();
    this.#cancelForgetting();
  }

  /** A worker has answered. */
  answered(supervisor: Supervisor): void {
    this.#asked.delete(supervisor);
    if (this.#stuck.delete(supervisor)) this.update();
  }

  /** A worker has ended. */
  gone(supervisor: Supervisor): void {
    this.loads.clear(supervisor.index);
    this.#ahead.delete(supervisor);
    this.#asked.delete(supervisor);
    this.#stuck.delete(supervisor);
    this.update();
  }

  #forgetLater(): void {
    this.#cancelForgetting = this.#clock.setTimer(() => this.#forget(), FORGET_MS, false);
  }

  #forget(): void {
    this.#ended >>= 1;
    if (this.#ended > 0) this.#forgetLater();
    this.update();
  }

  #watch(): void {
    this.#watching = true;
    for (const supervisor of this.#supervisors) {
      if (supervisor.state !== "serving" || this.#ahead.has(supervisor)) continue;
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
