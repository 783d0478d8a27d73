/**
 * Whether a server can take new clients, and why not.
 *
 * @module
 */

import type { ServerEvent } from "../../internal/api/events.ts";
import type { Clock } from "../../internal/api/serve_options.ts";
import type { Steered } from "./steered.ts";

/** Time after the next try, in milliseconds, in which a new error of `accept` would have come if it failed again. */
const GRACE_MS = 2000;

/** Tells whether a server is ready. */
export class Readiness {
  readonly #clock: Clock;
  #failure = "";
  #failsUntil = -Infinity;

  /** @param clock The source of time. */
  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Notes an event of the server. */
  readonly onEvent = (event: ServerEvent): void => {
    // An error that needs no pause is one peer's. Any connection, also one that is rejected, shows that accepting works.
    if (event.type === "accept-error" && event.retryMs > 0) {
      this.#failure = event.error instanceof Error ? event.error.message : String(event.error);
      this.#failsUntil = this.#clock.now() + event.retryMs + GRACE_MS;
    } else if (event.type === "accepted" || event.type === "rejected" || event.type === "gone") {
      this.#failsUntil = -Infinity;
    }
  };

  /** Returns why the server is not ready, in a few words each; nothing if it is. */
  reasons(server: Steered): string[] {
    const reasons: string[] = [];
    if (server.state !== "listening") reasons.push(server.state === "lame-duck" ? "lame duck" : server.state);
    if (server.paused) reasons.push("paused");
    const { maxConnections = Infinity } = server.limits;
    const active = activeOf(server);
    if (active >= maxConnections) reasons.push(`at capacity: ${active} of ${maxConnections} connections`);
    if (server.workers?.every(({ state }) => state !== "serving") === true) reasons.push("no worker serves");
    if (this.#clock.now() < this.#failsUntil) reasons.push(`accepting fails: ${this.#failure}`);
    return reasons;
  }
}

/**
 * The number of open connections. `/readyz` needs no token, so it must be cheap: `active` is a counter, while `stats()`
 * visits every connection.
 */
function activeOf(server: Steered): number {
  return server.active ?? server.stats().active;
}
