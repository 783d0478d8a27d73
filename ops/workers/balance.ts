/**
 * Spreads connections evenly among workers.
 *
 * @module
 */

import type { Clock } from "../../internal/api/serve_options.ts";
import type { Slot } from "./supervisor.ts";

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
  readonly #slots: readonly Slot[];
  readonly #clock: Clock;
  readonly #held = new Set<Slot>();
  /** The workers that have to answer, and those that have not done so in time. */
  readonly #asked = new Set<Slot>();
  readonly #stuck = new Set<Slot>();
  #watching = false;
  #closed = false;
  #cancelTimer = () => {};

  /**
   * @param slots The workers.
   * @param clock The source of time.
   */
  constructor(slots: readonly Slot[], clock: Clock) {
    this.#slots = slots;
    this.#clock = clock;
  }

  /** The load of a worker has changed, or a worker has begun or ended. */
  update(): void {
    const serving = this.#slots.filter((slot) => slot.state === "serving");
    const least = Math.min(...serving.filter((slot) => !this.#stuck.has(slot)).map(({ load }) => load));
    const most = MOST_AHEAD + Math.floor(least * SHARE_AHEAD);
    for (const slot of serving) {
      const ahead = slot.load - least;
      if (!this.#held.has(slot) && ahead > most) this.#hold(slot, true);
      else if (this.#held.has(slot) && !(ahead > most / 2)) this.#hold(slot, false);
    }
    if (this.#held.size > 0 && !this.#watching && !this.#closed) this.#watch();
  }

  /** Lets all workers do as they like, since they accept no more. */
  close(): void {
    this.#closed = true;
    this.#cancelTimer();
  }

  /** A worker has answered. */
  answered(slot: Slot): void {
    this.#asked.delete(slot);
    if (this.#stuck.delete(slot)) this.update();
  }

  /** A worker has ended. */
  gone(slot: Slot): void {
    this.#held.delete(slot);
    this.#asked.delete(slot);
    this.#stuck.delete(slot);
    this.update();
  }

  #hold(slot: Slot, held: boolean): void {
    if (held) this.#held.add(slot);
    else this.#held.delete(slot);
    slot.send({ type: "hold", held });
  }

  #watch(): void {
    this.#watching = true;
    for (const slot of this.#slots) {
      if (slot.state !== "serving" || this.#held.has(slot)) continue;
      this.#asked.add(slot);
      slot.send({ type: "ping" });
    }
    this.#cancelTimer = this.#clock.setTimer(() => this.#judge(), ANSWER_MS, false);
  }

  #judge(): void {
    this.#watching = false;
    for (const slot of this.#asked) this.#stuck.add(slot);
    this.update();
  }
}
