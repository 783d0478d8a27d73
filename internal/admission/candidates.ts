/**
 * Connections about which the caller's hook decides.
 *
 * @module
 */

import { type ConnLimits, mergeLimits } from "../api/conn_options.ts";
import type { AdmitResult, Clock } from "../api/serve_options.ts";
import { setDeadline } from "../time/alarms.ts";

/** What the hook `admit` has decided: limits if the connection is admitted; an error if the hook failed. */
export interface Verdict {
  readonly limits?: ConnLimits;
  readonly error?: unknown;
}

/** Connections about which the hook `admit` has not decided. */
export class Candidates {
  readonly #clock: Clock;
  readonly #timeout: number;
  /** The peer's address of each, and what rejects it. */
  readonly #drops = new Map<() => void, Deno.Addr>();

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
    return this.#drops.size;
  }

  /** The addresses of their peers. */
  get addrs(): Iterable<Deno.Addr> {
    return this.#drops.values();
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
    const drop = () => resolve({});
    this.#drops.set(drop, addr);
    this.#verdictOf(limits, ask).then(resolve);
    const verdict = await promise;
    this.#drops.delete(drop);
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
    for (const drop of this.#drops.keys()) drop();
  }
}
