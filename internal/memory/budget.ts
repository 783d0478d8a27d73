/**
 * Memory for unfinished lines and replies that wait, which all connections of a server share.
 *
 * @module
 */

import { type Member, MemberList } from "./member_list.ts";

/** A connection, as far as the budget needs it. */
export interface Holder {
  /** Whether a line has begun in its memory and not ended. */
  readonly midLine: boolean;
  /** Gives its memory back at once. */
  giveWay(): void;
}

/** The memory of one connection: its input, and its output that waits for the peer. */
export class Account implements Member {
  place = 0;
  /** Kept by {@linkcode Budget}. */
  bytes = 0;
  output = 0;
  readonly holder: Holder;
  readonly budget: Budget;
  #input = 0;
  #output = 0;
  #stuck = false;

  constructor(budget: Budget, holder: Holder) {
    this.budget = budget;
    this.holder = holder;
  }

  /** Whether giving its memory back would free anything: a line that is being answered keeps it. */
  get canGiveWay(): boolean {
    return this.#stuck || this.holder.midLine;
  }

  /** Notes how many bytes the unfinished input takes now. */
  holdInput(bytes: number): void {
    if (bytes === this.#input) return;
    this.#input = bytes;
    this.#set();
  }

  /** Notes how many bytes the output takes now. */
  holdOutput(bytes: number): void {
    if (bytes === this.#output) return;
    this.#output = bytes;
    this.#set();
  }

  /** Notes whether the peer has not taken the output for a while. */
  get stuck(): boolean {
    return this.#stuck;
  }

  set stuck(stuck: boolean) {
    if (stuck === this.#stuck) return;
    this.#stuck = stuck;
    this.#set();
  }

  #set(): void {
    this.budget.set(this, this.#stuck ? this.#input + this.#output : this.#input, this.#output);
  }
}

/**
 * Keeps count of the memory. When unfinished lines and stuck output take too much, the connection that holds the most
 * gives way. When all output takes too much, those who have more to answer wait until some of it has left, or is stuck.
 */
export class Budget {
  readonly #maxBytes: number;
  /** Accounts by the number of bits of their bytes: with thousands of connections, to look at each takes 1 ms. */
  readonly #bySize: MemberList<Account>[] = [];
  /** Input, and output that is stuck; and all output. */
  #bytes = 0;
  #output = 0;
  /** Those who wait for output to leave, in the order in which they came. */
  readonly #waiting = new Set<() => void>();
  #waking = false;

  /** @param maxBytes How much memory there is. */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /**
   * Whether more than half is taken: from here on, buffers are no larger than what has begun in them needs, so that
   * replies are short, too. Output that is on its way counts here, and is no reason for anybody to give way.
   */
  tight = false;
  /** Whether output takes more than there is, or others wait for it to leave: more lines have to wait with {@linkcode room}. */
  crowded = false;

  /** Notes how much of what cannot leave, and how much output, an account holds; if it is too much, the largest give way. */
  set(account: Account, bytes: number, output: number): void {
    const more = output - account.output;
    this.#output += more;
    account.output = output;
    const grown = bytes - account.bytes;
    const before = sizeOf(account.bytes);
    const after = sizeOf(bytes);
    account.bytes = bytes;
    this.#bytes += grown;
    if (before !== after) {
      if (before > 0) this.#bySize[before].delete(account);
      if (after > 0) (this.#bySize[after] ??= new MemberList()).add(account);
    }
    this.#look();
    if (grown > 0 || more > 0) this.#settle();
    this.#wakeNext();
  }

  #look(): void {
    this.tight = this.#bytes + this.#output > this.#maxBytes / 2;
    this.crowded = this.#output > this.#maxBytes || this.#waiting.size > 0;
  }

  /** Waits until output takes no more than there is, behind those that wait already. */
  room(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.add(resolve);
    this.#look();
    this.#settle();
    queueMicrotask(() => this.#wakeNext());
    return promise;
  }

  /** Lets one that waits go on; the next goes when that one's output is known, which it is in the next microtask. */
  #wakeNext(): void {
    if (this.#waking || this.#output > this.#maxBytes) return;
    const [first] = this.#waiting;
    if (first === undefined) return;
    this.#waiting.delete(first);
    this.#look();
    first();
    this.#waking = true;
    queueMicrotask(() => {
      this.#waking = false;
      this.#wakeNext();
    });
  }

  #settle(): void {
    const tooMuch = () =>
      this.#bytes > this.#maxBytes && this.#largest(({ canGiveWay }) => canGiveWay) ||
      this.#output > this.#maxBytes && this.#waiting.size > 0 && this.#largest(({ stuck }) => stuck);
    for (let largest = tooMuch(); largest; largest = tooMuch()) largest.giveWay();
  }

  /** One of the largest that can: none of the others holds twice as much. */
  #largest(can: (account: Account) => boolean): Holder | undefined {
    for (let size = this.#bySize.length - 1; size > 0; size--) {
      for (const account of this.#bySize[size] ?? []) if (can(account)) return account.holder;
    }
  }
}

/** The number of bits of a number, 0 for 0. */
function sizeOf(bytes: number): number {
  return 32 - Math.clz32(bytes);
}
