/**
 * One limit on the memory of all connections of a server: their unfinished lines, and the replies that wait.
 *
 * @module
 */

import { type Member, MemberList } from "./member_list.ts";

/** A connection, as the budget sees it. */
export interface Holder {
  /** Whether it holds input whose rest has not come, or for which its handler has not asked for a while. */
  readonly holdsInput: boolean;
  /** Ends, and frees its memory at once. */
  giveWay(): void;
}

/** The memory that one connection holds: unfinished input, and output that waits for the peer. */
export class Account implements Member {
  place = 0;
  /** Bytes that count against the limit, and bytes of output; written by {@linkcode Budget} alone. */
  bytes = 0;
  output = 0;
  /** Bytes of unfinished input; written by {@linkcode holdInput} alone. */
  input = 0;
  readonly holder: Holder;
  readonly budget: Budget;
  #stuck = false;

  constructor(budget: Budget, holder: Holder) {
    this.budget = budget;
    this.holder = holder;
  }

  /** Whether ending the connection would free memory, and that is not about to be free: lines are soon answered. */
  get canGiveWay(): boolean {
    return this.#stuck || this.holder.holdsInput;
  }

  /** Sets how many bytes the unfinished input takes. */
  holdInput(bytes: number): void {
    if (bytes === this.input) return;
    this.input = bytes;
    this.#set();
  }

  /** Sets how many bytes the output takes. */
  holdOutput(bytes: number): void {
    if (bytes !== this.output) this.#set(bytes);
  }

  /** Whether the output is stuck: the peer has not read it for a while. */
  get stuck(): boolean {
    return this.#stuck;
  }

  set stuck(stuck: boolean) {
    if (stuck === this.#stuck) return;
    this.#stuck = stuck;
    this.#set();
  }

  #set(output = this.output): void {
    this.budget.set(this, this.#stuck ? this.input + output : this.input, output);
  }
}

/**
 * Counts the memory of all connections. When unfinished lines and stuck output pass the limit, it ends the connection
 * that holds most of them. When all output passes the limit, connections with more lines to answer wait until some
 * output has been sent, or is stuck.
 */
export class Budget {
  readonly #maxBytes: number;
  /** Accounts by the number of bits of their `bytes`: searching thousands of accounts one by one would take 1 ms. */
  readonly #bySize: MemberList<Account>[] = [];
  /** Bytes of input and of stuck output; and bytes of all output. */
  #bytes = 0;
  #output = 0;
  /** Callbacks of the connections that wait in {@linkcode room}, oldest first. */
  readonly #waiting = new Set<() => void>();
  #waking = false;

  /** @param maxBytes Maximum bytes of input and stuck output, and, counted apart, of all output. */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /**
   * Whether more than half of the limit is taken. Buffers are then no larger than the input in them needs, which makes
   * replies short, too. Output that is moving counts here, but never causes a connection to be ended.
   */
  tight = false;
  /** Whether output passes the limit, or connections wait already: further lines must wait in {@linkcode room}. */
  crowded = false;

  /** Sets an account's bytes of input and stuck output, and of output; past the limit, ends the largest connections. */
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

  /** Waits until output is within the limit, after the connections that wait already. */
  room(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.add(resolve);
    this.#look();
    this.#settle();
    queueMicrotask(() => this.#wakeNext());
    return promise;
  }

  /** Wakes the oldest waiting connection; the next one a microtask later, when the first one's output is counted. */
  #wakeNext(): void {
    if (this.#waiting.size === 0 || this.#waking || this.#output > this.#maxBytes) return;
    const [first] = this.#waiting;
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
    for (let next = this.#tooLarge(); next !== undefined; next = this.#tooLarge()) next.giveWay();
  }

  /** Returns the connection that has to give way, if one has to. */
  #tooLarge(): Holder | undefined {
    const input = this.#bytes > this.#maxBytes ? this.#largest(({ canGiveWay }) => canGiveWay) : undefined;
    if (input !== undefined || this.#output <= this.#maxBytes || this.#waiting.size === 0) return input;
    return this.#largest(({ stuck }) => stuck);
  }

  /** Finds a connection that passes the test and is among the largest: no other that passes it holds twice as much. */
  #largest(can: (account: Account) => boolean): Holder | undefined {
    for (let size = this.#bySize.length - 1; size > 0; size--) {
      for (const account of this.#bySize[size] ?? []) if (can(account)) return account.holder;
    }
  }
}

/** Maximum number whose bits `Math.clz32` counts. */
const MOST_BITS = 2 ** 32 - 1;

/** Returns the number of bits of a number, 0 for 0; at most 32, which stands for all numbers from 2 GiB on. */
function sizeOf(bytes: number): number {
  return 32 - Math.clz32(Math.min(bytes, MOST_BITS));
}
