/**
 * What a listener has ready for the server, which takes one connection at a time.
 *
 * @module
 */

import { closeQuietly, type Transport } from "../api/transport.ts";

/** What an `accept` settles with. */
export type Outcome<T = Transport> = { readonly transport: T } | { readonly error: unknown };

/** Connections and errors that no `accept` has returned yet, in their order, and the `accept` that waits for the next. */
export class AcceptQueue<T extends Transport = Transport> {
  readonly #outcomes: Outcome<T>[] = [];
  #call: PromiseWithResolvers<T> | undefined;
  #closed = false;

  /** Whether an `accept` waits. */
  get isAwaited(): boolean {
    return this.#call !== undefined;
  }

  /** The number of connections and errors that wait for an `accept`. */
  get length(): number {
    return this.#outcomes.length;
  }

  /** The connections that wait for an `accept`. */
  get transports(): T[] {
    return this.#outcomes.flatMap((outcome) => "transport" in outcome ? outcome.transport : []);
  }

  /** Waits for the next outcome. Rejects if another call does, and once the queue is closed. */
  accept(): Promise<T> {
    if (this.#closed) return Promise.reject(new Deno.errors.BadResource("The listener is closed"));
    if (this.#call !== undefined) {
      return Promise.reject(new Deno.errors.Busy("Cannot accept: another accept is outstanding"));
    }
    const { promise } = this.#call = Promise.withResolvers<T>();
    this.#settle();
    return promise;
  }

  /** Adds an outcome for the `accept` that waits, or for a later one. A closed queue drops errors; no connection comes then. */
  add(outcome: Outcome<T>): void {
    if (this.#closed) return;
    this.#outcomes.push(outcome);
    this.#settle();
  }

  /** Closes the connections that wait, and drops the errors. */
  clear(): void {
    for (const transport of this.transports) closeQuietly(transport);
    this.#outcomes.length = 0;
  }

  /** Clears the queue for good, and rejects the `accept` that waits. */
  close(): void {
    this.#closed = true;
    this.clear();
    this.#call?.reject(new Deno.errors.BadResource("The listener was closed"));
    this.#call = undefined;
  }

  #settle(): void {
    if (this.#call === undefined || this.#outcomes.length === 0) return;
    const { resolve, reject } = this.#call;
    this.#call = undefined;
    const outcome = this.#outcomes.shift()!;
    if ("error" in outcome) reject(outcome.error);
    else resolve(outcome.transport);
  }
}
