/**
 * How long to wait after an `accept` that failed.
 *
 * @module
 */

import { AcceptRejection } from "../api/errors.ts";

const FIRST_MS = 5;
const LONGEST_MS = 1000;

/** One peer's misfortune is no reason to wait; after so many in a row a short pause lets others have their turn. */
const FREE_FAILURES = 100;

/**
 * Delays that double from 5 ms to 1 s while accepting goes on failing: running out of descriptors fails again at once,
 * and would otherwise keep the processor busy until somebody leaves.
 */
export class Backoff {
  #delay = FIRST_MS;
  #failures = 0;

  /**
   * @param error What `accept` threw.
   * @returns How many milliseconds to wait; 0 where only one connection is lost.
   */
  next(error: unknown): number {
    // However many are turned away, accepting works.
    if (error instanceof AcceptRejection) return 0;
    // A pause that grew would let anybody who resets connections keep all others out.
    if (isOnePeers(error)) return ++this.#failures % FREE_FAILURES === 0 ? FIRST_MS : 0;
    const delay = this.#delay;
    this.#delay = Math.min(2 * delay, LONGEST_MS);
    return delay;
  }

  /** Accepting works again. */
  reset(): void {
    this.#delay = FIRST_MS;
    this.#failures = 0;
  }
}

/** A client that resets its connection before it is accepted makes `accept` fail so. */
function isOnePeers(error: unknown): boolean {
  const { NotConnected, ConnectionReset, ConnectionAborted } = Deno.errors;
  return [NotConnected, ConnectionReset, ConnectionAborted].some((kind) => error instanceof kind);
}
