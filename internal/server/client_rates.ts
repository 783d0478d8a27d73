/**
 * A rate for each client, in memory that only recent clients take.
 *
 * @module
 */

import { Rate } from "../time/rate.ts";

/** Connections per second and client. */
export class ClientRates {
  readonly #perSecond: number;
  /** By client, the one that took last at the end. */
  readonly #rates = new Map<string, Rate>();

  /** @param perSecond How many connections per second one client may open, and at once after a quiet second. */
  constructor(perSecond: number) {
    this.#perSecond = perSecond;
  }

  /** The number of clients that are remembered. */
  get size(): number {
    return this.#rates.size;
  }

  /**
   * Takes one connection of a client's rate.
   *
   * @param client The client.
   * @param now The time, in milliseconds.
   * @returns Whether the rate allowed it; if not, nothing is taken, so that a client that goes on trying is admitted at
   * its rate all the same.
   */
  take(client: string, now: number): boolean {
    this.#forget(now);
    const rate = this.#rates.get(client) ?? new Rate(this.#perSecond);
    if (rate.available(now) < 1) return false;
    rate.take(now, 1);
    this.#rates.delete(client);
    this.#rates.set(client, rate);
    return true;
  }

  /** A client whose bucket is full again is as good as one that has never come; the oldest ones fill up first. */
  #forget(now: number): void {
    for (const [client, rate] of this.#rates) {
      if (!rate.isFull(now)) return;
      this.#rates.delete(client);
    }
  }
}
