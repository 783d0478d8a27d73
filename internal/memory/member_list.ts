/**
 * A list of the objects of one kind that exist, such as connections.
 *
 * @module
 */

/** An object that can be in one {@linkcode MemberList} at a time. */
export interface Member {
  /** Its index in the list; written by {@linkcode MemberList} alone. */
  place: number;
}

/**
 * An unordered list, from which a member is removed in constant time.
 *
 * It is no `Set`, because members come and go fast: whenever a `Set` makes room, its old table goes on pointing to the
 * new one. One old table that the garbage collector has promoted then keeps every later member alive until the next
 * full collection. With thousands of connections per second, this caused pauses of 8 ms.
 */
export class MemberList<T extends Member> implements Iterable<T> {
  readonly #members: T[] = [];

  /** The number of members. */
  get size(): number {
    return this.#members.length;
  }

  /** Adds a member, which must not be in the list. */
  add(member: T): void {
    member.place = this.#members.push(member) - 1;
  }

  /** Removes a member, which must be in the list. */
  delete(member: T): void {
    const last = this.#members.pop()!;
    if (last === member) return;
    this.#members[member.place] = last;
    last.place = member.place;
  }

  /** Iterates backwards: a member that is removed meanwhile is replaced by the last one, which was visited already. */
  *[Symbol.iterator](): Generator<T, undefined> {
    for (let place = this.size - 1; place >= 0; place = Math.min(place, this.size) - 1) yield this.#members[place];
  }
}
