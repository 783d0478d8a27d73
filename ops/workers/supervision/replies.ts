/**
 * Waits until several workers have replied.
 *
 * @module
 */

/** A question to some workers, which have not all replied. */
interface Pending {
  readonly workers: Set<number>;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** The questions that workers have not answered. A worker that ends counts as one that has. */
export class Replies {
  readonly #pending = new Map<number, Pending>();
  #key = 0;

  /**
   * Asks workers.
   *
   * @param workers Their numbers.
   * @param ask Sends the question, with the key of its replies.
   * @returns When all have replied; rejects with the first error.
   */
  async all(workers: readonly number[], ask: (key: number) => void): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const key = this.#key++;
    this.#pending.set(key, { workers: new Set(workers), resolve, reject });
    if (workers.length === 0) resolve();
    try {
      ask(key);
      await promise;
    } finally {
      this.#pending.delete(key);
    }
  }

  /** A worker has replied. */
  replied(key: number, worker: number, error?: Error): void {
    const pending = this.#pending.get(key);
    if (pending === undefined) return;
    if (error !== undefined) pending.reject(error);
    else if (pending.workers.delete(worker) && pending.workers.size === 0) pending.resolve();
  }

  /** A worker has ended. */
  gone(worker: number): void {
    for (const key of this.#pending.keys()) this.replied(key, worker);
  }
}
