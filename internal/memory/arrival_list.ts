/**
 * A list in the order of arrival.
 *
 * @module
 */

/** An object that can be in one {@linkcode ArrivalList} at a time. */
export interface Arrival<T> {
  /** The members before and behind it; written by {@linkcode ArrivalList} alone. */
  before: T | undefined;
  behind: T | undefined;
}

/**
 * A list from which a member is removed in constant time, and of which the first is always known.
 *
 * It is no `Set`, for the reason that `MemberList` gives. A member that is removed points to no other, so that it keeps
 * none alive.
 */
export class ArrivalList<T extends Arrival<T>> {
  #first: T | undefined;
  #last: T | undefined;
  #size = 0;

  /** The number of members. */
  get size(): number {
    return this.#size;
  }

  /** The member that came first; undefined if there is none. */
  get first(): T | undefined {
    return this.#first;
  }

  /** Adds a member, which must not be in the list. */
  add(member: T): void {
    member.before = this.#last;
    if (this.#last === undefined) this.#first = member;
    else this.#last.behind = member;
    this.#last = member;
    this.#size++;
  }

  /** Removes a member, which must be in the list. */
  delete(member: T): void {
    const { before, behind } = member;
    if (before === undefined) this.#first = behind;
    else before.behind = behind;
    if (behind === undefined) this.#last = before;
    else behind.before = before;
    member.before = member.behind = undefined;
    this.#size--;
  }

  /** Returns the members, the first one first. */
  all(): T[] {
    const members: T[] = [];
    for (let member = this.#first; member !== undefined; member = member.behind) members.push(member);
    return members;
  }
}
