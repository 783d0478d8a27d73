/**
 * A map whose members come and go fast.
 *
 * @module
 */

/**
 * A `Map` whose values can be collected as soon as they are removed. Whenever a `Map` makes room, its old table goes on
 * pointing to the new one. One old table that the garbage collector has promoted then keeps every later entry alive
 * until the next full collection: here that is a cell, which a removed value has left.
 */
export class ClearingMap<K, V> {
  readonly #cells = new Map<K, { value: V | undefined }>();

  /** The number of entries. */
  get size(): number {
    return this.#cells.size;
  }

  /** Returns the value of a key; undefined if there is none. */
  get(key: K): V | undefined {
    return this.#cells.get(key)?.value;
  }

  /** Sets the value of a key. */
  set(key: K, value: V): void {
    this.#cells.set(key, { value });
  }

  /** Removes a key; returns whether it was there. */
  delete(key: K): boolean {
    const cell = this.#cells.get(key);
    if (cell !== undefined) cell.value = undefined;
    return this.#cells.delete(key);
  }

  /** The entries, in the order in which their keys were added. */
  *entries(): Generator<[K, V]> {
    for (const [key, { value }] of this.#cells) yield [key, value!];
  }

  /** The values, in the same order. */
  *values(): Generator<V> {
    for (const { value } of this.#cells.values()) yield value!;
  }
}
