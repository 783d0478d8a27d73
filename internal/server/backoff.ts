/**
 * The pauses after errors of `accept`.
 *
 * @module
 */

import { AcceptRejection } from "../api/errors.ts";

/** Minimum and maximum pause after an error of the machine, in milliseconds. */
const FIRST_MS = 5;
const LAST_MS = 1000;

/**
 * Maximum number of errors in a row, each of one peer, before a short pause. A single one needs no pause; after many,
 * it lets other work run.
 */
const FREE_FAILURES = 100;

/**
 * Returns pauses that double from 5 ms to 1 s while `accept` keeps failing. Without descriptors, for example, it fails
 * again at once, and would keep the processor busy until a connection ends.
 */
export class Backoff {
  #delay = FIRST_MS;
  #failures = 0;

  /**
   * @param error What `accept` threw.
   * @returns How many milliseconds to wait; 0 if the error concerns one connection only.
   */
  next(error: unknown): number {
    // Rejections by the listener, in any number, mean that accepting works.
    if (error instanceof AcceptRejection) return 0;
    // If this pause grew, a client that resets connections could keep all other clients out.
    if (isOnePeers(error)) return ++this.#failures % FREE_FAILURES === 0 ? FIRST_MS : 0;
    const delay = this.#delay;
    this.#delay = Math.min(2 * delay, LAST_MS);
    return delay;
  }

  /** Notes that accepting works again. */
  reset(): void {
    this.#delay = FIRST_MS;
    this.#failures = 0;
  }
}

/** Whether an error of `accept` means that a client reset its connection before it was accepted. */
function isOnePeers(error: unknown): boolean {
  const { NotConnected, ConnectionReset, ConnectionAborted } = Deno.errors;
  return [NotConnected, ConnectionReset, ConnectionAborted].some((kind) => error instanceof kind);
}
