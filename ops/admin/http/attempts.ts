/**
 * Bounds how often a client may try a wrong token.
 *
 * @module
 */

import type { Clock } from "../../../internal/api/serve_options.ts";
import { Refusal } from "./exchange.ts";

/** Number of failures that a client has at once, and the time after which it has one more, in milliseconds. */
export const FREE_FAILURES = 10;
export const FAILURE_MS = 6000;

/** Maximum number of clients that are remembered; the one that failed first is forgotten. */
const MAX_CLIENTS = 10_000;

/** The failures of each client. A client that has failed too often has to wait, also if its next token is right. */
export class Attempts {
  readonly #clock: Clock;
  /** By client, the time at which all its failures are forgotten; the client that failed last is at the end. */
  readonly #clients = new Map<string, number>();

  /** @param clock The source of time. */
  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * Counts a try, before it is known whether it succeeds.
   *
   * @param client Who tries.
   * @throws {Refusal} If the client has to wait.
   */
  take(client: string): void {
    const wait = this.#ahead(client) - (FREE_FAILURES - 1) * FAILURE_MS;
    if (wait > 0) {
      const headers = { "Retry-After": `${Math.ceil(wait / 1000)}` };
      throw new Refusal(429, "Cannot compare the token: too many wrong ones", headers);
    }
    const until = this.#clock.now() + this.#ahead(client) + FAILURE_MS;
    this.#clients.delete(client);
    this.#clients.set(client, until);
    this.#forget();
  }

  /** Takes a try that has succeeded out of the count. */
  giveBack(client: string): void {
    const until = this.#clients.get(client);
    if (until !== undefined) this.#clients.set(client, until - FAILURE_MS);
  }

  #forget(): void {
    for (const first of this.#clients.keys()) {
      if (this.#clients.size <= MAX_CLIENTS && this.#ahead(first) > 0) return;
      this.#clients.delete(first);
    }
  }

  #ahead(client: string): number {
    return Math.max(0, (this.#clients.get(client) ?? 0) - this.#clock.now());
  }
}
