/**
 * A rate for each client. Only clients that have connected recently take memory, and of these a bounded number.
 *
 * @module
 */

import { Rate } from "../time/rate.ts";

/** Maximum number of clients that are remembered; the one that has connected least recently is forgotten first. */
const MAX_CLIENTS = 100_000;

/** Limits the number of connections per second of each client. */
export class ClientRates {
  readonly #perSecond: number;
  /** The rates by client; the client that connected last is at the end. */
  readonly #rates = new Map<string, Rate>();

  /** @param perSecond Maximum connections per second of one client, and at once after a second without any. */
  constructor(perSecond: number) {
    this.#perSecond = perSecond;
  }

  /** The number of clients that take memory. */
  get size(): number {
    return this.#rates.size;
  }

  /**
   * Counts one connection against its client's rate.
   *
   * @param client The client.
   * @param now The time, in milliseconds.
   * @returns Whether the rate allows it. If not, the connection is not counted, so that a client that keeps trying is
   * still admitted at its rate.
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

  /** Forgets clients whose rate is unused again, or that are too many, as if they had never connected; the oldest first. */
  #forget(now: number): void {
    for (const [client, rate] of this.#rates) {
      if (!rate.isFull(now) && this.#rates.size < MAX_CLIENTS) return;
      this.#rates.delete(client);
    }
  }
}
