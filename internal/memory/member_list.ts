/**
 * The connections that are there.
 *
 * @module
 */

/** What a roster needs of its members. */
export interface Member {
  /** Kept by {@linkcode MemberList}: where it is in there. */
  place: number;
}

/**
 * Members in no order.
 *
 * A `Set` would do, but not where members come and go: whenever it makes room, its old table goes on pointing to the
 * new one, so that with one old table every member since survives until the next full collection. With thousands of
 * connections per second, those were pauses of 8 ms.
 */
export class MemberList<T extends Member> implements Iterable<T> {
  readonly #members: T[] = [];

  /** How many there are. */
  get size(): number {
    return this.#members.length;
  }

  /** Takes a member in, which is not there yet. */
  add(member: T): void {
    member.place = this.#members.push(member) - 1;
  }

  /** Lets a member go, which is there. */
  delete(member: T): void {
    const last = this.#members.pop()!;
    if (last === member) return;
    this.#members[member.place] = last;
    last.place = member.place;
  }

  /** Goes backwards, so that whoever is let go meanwhile is replaced by one that has been met. */
  *[Symbol.iterator](): Generator<T, undefined> {
    for (let place = this.size - 1; place >= 0; place = Math.min(place, this.size) - 1) yield this.#members[place];
  }
}
