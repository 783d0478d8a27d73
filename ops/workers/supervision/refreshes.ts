/**
 * Asks workers for their figures.
 *
 * @module
 */

/** A question that a worker has not answered. */
interface Question {
  readonly answered: PromiseWithResolvers<void>;
  /** Settles with the answer to the next question; undefined if nothing waits for one. */
  next: PromiseWithResolvers<void> | undefined;
}

/**
 * Asks each worker one question at a time; all calls that come meanwhile share the next question.
 *
 * While a handler keeps its worker's thread busy, the worker answers nothing. If each call sent a question, the worker
 * would answer all of them at once later, each answer with all its connections, and the main isolate would read these
 * answers while new clients wait.
 */
export class Refreshes {
  readonly #open = new Map<number, Question>();
  readonly #send: (worker: number) => void;

  /** @param send Sends a question to a worker. */
  constructor(send: (worker: number) => void) {
    this.#send = send;
  }

  /**
   * Asks a worker.
   *
   * @param worker Its number.
   * @returns When the worker has answered a question that was sent after this call, or has ended.
   */
  ask(worker: number): Promise<void> {
    const open = this.#open.get(worker);
    if (open === undefined) return this.#ask(worker, Promise.withResolvers());
    open.next ??= Promise.withResolvers();
    return open.next.promise;
  }

  /** A worker has answered. */
  answered(worker: number): void {
    const open = this.#open.get(worker);
    this.#open.delete(worker);
    open?.answered.resolve();
    if (open?.next !== undefined) this.#ask(worker, open.next);
  }

  /** A worker has ended. */
  gone(worker: number): void {
    const open = this.#open.get(worker);
    this.#open.delete(worker);
    open?.answered.resolve();
    open?.next?.resolve();
  }

  #ask(worker: number, answered: PromiseWithResolvers<void>): Promise<void> {
    this.#open.set(worker, { answered, next: undefined });
    this.#send(worker);
    return answered.promise;
  }
}
