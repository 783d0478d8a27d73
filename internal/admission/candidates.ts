/**
 * Connections about which the caller's hook decides.
 *
 * @module
 */

import { type ConnLimits, mergeLimits } from "../api/conn_options.ts";
import type { AdmitResult, Clock } from "../api/serve_options.ts";
import { type Member, MemberList } from "../memory/member_list.ts";
import { setDeadline } from "../time/alarms.ts";

/** What the hook `admit` has decided: limits if the connection is admitted; an error if the hook failed. */
export interface Verdict {
  readonly limits?: ConnLimits;
  readonly error?: unknown;
}

/** A connection about which the hook `admit` has not decided. */
interface Candidate extends Member {
  /** The peer's address. */
  readonly addr: Deno.Addr;
  /** Rejects the connection. */
  readonly drop: () => void;
}

/** Connections about which the hook `admit` has not decided. */
export class Candidates {
  readonly #clock: Clock;
  readonly #timeout: number;
  readonly #undecided = new MemberList<Candidate>();

  /**
   * @param clock The source of time.
   * @param timeout Maximum time for a decision, in milliseconds.
   */
  constructor(clock: Clock, timeout: number) {
    this.#clock = clock;
    this.#timeout = timeout;
  }

  /** The number of these connections. */
  get size(): number {
    return this.#undecided.size;
  }

  /** The addresses of their peers. */
  get addrs(): Iterable<Deno.Addr> {
    return Array.from(this.#undecided, ({ addr }) => addr);
  }

  /**
   * Asks the hook about a connection, but waits no longer than the time limit.
   *
   * @param addr The peer's address.
   * @param limits The limits of the server, which the hook can change.
   * @param ask Calls the hook.
   * @param decided Gets the decision, in the moment in which the connection is no longer one of these: changed limits
   * count each connection either here or as an open one.
   */
  async ask(
    addr: Deno.Addr,
    limits: ConnLimits,
    ask: () => AdmitResult | Promise<AdmitResult>,
    decided: (verdict: Verdict) => void,
  ): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<Verdict>();
    const timeout = this.#timeout;
    const late = () => resolve({ error: new Deno.errors.TimedOut(`No decision of admit within ${timeout} ms`) });
    const cancel = setDeadline(this.#clock, late, timeout);
    const candidate: Candidate = { addr, drop: () => resolve({}), place: 0 };
    this.#undecided.add(candidate);
    this.#verdictOf(limits, ask).then(resolve);
    const verdict = await promise;
    this.#undecided.delete(candidate);
    cancel();
    decided(verdict);
  }

  async #verdictOf(limits: ConnLimits, ask: () => AdmitResult | Promise<AdmitResult>): Promise<Verdict> {
    try {
      const result = await ask();
      return result === false ? {} : { limits: mergeLimits(limits, result === true ? {} : result ?? {}) };
    } catch (error) {
      return { error };
    }
  }

  /** Rejects all of them: the server has stopped accepting. */
  close(): void {
    for (const { drop } of this.#undecided) drop();
  }
}
