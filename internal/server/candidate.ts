/**
 * A connection about which the caller's hook decides.
 *
 * @module
 */

import type { AdmitResult, Clock } from "../api/serve_options.ts";
import type { ConnOptions } from "../api/conn_options.ts";

/** What the hook has decided: limits if the connection is admitted; an error if the hook failed. */
export interface Verdict {
  readonly limits?: ConnOptions;
  readonly error?: unknown;
}

/** Waits for the decision of the hook `admit`, but not for ever. */
export class Candidate {
  /** Resolves with the decision; never rejects. */
  readonly verdict: Promise<Verdict>;
  #decide!: (verdict: Verdict) => void;

  /**
   * @param ask Asks the hook.
   * @param clock The source of time.
   * @param timeout Maximum time for the decision, in milliseconds.
   */
  constructor(ask: () => AdmitResult | Promise<AdmitResult>, clock: Clock, timeout: number) {
    const decision = new Promise<Verdict>((resolve) => this.#decide = resolve);
    const late = () => this.#decide({ error: new Deno.errors.TimedOut(`No decision of admit within ${timeout} ms`) });
    const cancel = timeout === Infinity ? () => {} : clock.setTimer(late, timeout, true);
    this.verdict = decision.finally(cancel);
    this.#ask(ask);
  }

  /** Ends the wait: the server has stopped accepting. */
  drop(): void {
    this.#decide({});
  }

  async #ask(ask: () => AdmitResult | Promise<AdmitResult>): Promise<void> {
    try {
      const result = await ask();
      this.#decide(result === false ? {} : { limits: result ?? {} });
    } catch (error) {
      this.#decide({ error });
    }
  }
}
