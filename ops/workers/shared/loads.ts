/**
 * How many connections each worker has, in memory that all of them share with the main isolate: a message would come too
 * late for the next connection.
 *
 * @module
 */

/** Index of the number of connections at which a worker leaves the next to others; the numbers of the workers follow. */
const ENOUGH = 0;

/** More connections than a worker can have. */
export const NO_LIMIT = 0x7fff_ffff;

/** The memory. */
export type LoadCells = Int32Array<SharedArrayBuffer>;

/** What the main isolate reads, and the limit that it sets. */
export class Loads {
  readonly cells: LoadCells;

  /** @param workers The number of workers. */
  constructor(workers: number) {
    this.cells = new Int32Array(new SharedArrayBuffer(4 * (1 + workers)));
    this.enough = NO_LIMIT;
  }

  /** The number of connections at which a worker leaves the next to others. */
  set enough(connections: number) {
    Atomics.store(this.cells, ENOUGH, connections);
  }

  /** Returns the number of connections of a worker. */
  of(worker: number): number {
    return Atomics.load(this.cells, 1 + worker);
  }

  /** A worker has ended, and its connections with it. */
  clear(worker: number): void {
    Atomics.store(this.cells, 1 + worker, 0);
  }
}

/** What one worker tells and reads. */
export class WorkerLoads {
  readonly #cells: LoadCells;
  readonly #index: number;

  /**
   * @param cells The memory.
   * @param index The number of the worker.
   */
  constructor(cells: LoadCells, index: number) {
    this.#cells = cells;
    this.#index = index;
  }

  /** Tells how many connections the worker has; returns whether it may accept another one. */
  mayHaveMore(connections: number): boolean {
    Atomics.store(this.#cells, 1 + this.#index, connections);
    return connections < Atomics.load(this.#cells, ENOUGH);
  }
}
