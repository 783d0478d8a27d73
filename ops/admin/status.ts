/**
 * The state of a server, as the admin port tells it.
 *
 * @module
 */

import type { Clock } from "../../internal/api/serve_options.ts";
import { formatAddr } from "../../internal/api/transport.ts";
import type { ServerStats } from "../../internal/server/counters.ts";
import type { ServerState } from "../../internal/server/running.ts";
import type { MetricsSnapshot, ServerMetrics } from "../metrics/metrics.ts";
import type { WorkerInfo } from "../workers/workers_server.ts";
import type { Readiness } from "./readiness.ts";
import type { Steered } from "./steered.ts";

/** The state of a server. */
export interface Status {
  /** The server's name; the page shows it. */
  readonly name: string;
  /** The version of the program; `null` if it has told none. */
  readonly version: string | null;
  readonly pid: number;
  readonly state: ServerState;
  readonly paused: boolean;
  readonly ready: boolean;
  /** Why it is not ready. */
  readonly reasons: readonly string[];
  /** When the admin port got its server, in ISO 8601. */
  readonly startedAt: string;
  readonly uptimeMs: number;
  readonly addrs: readonly string[];
  readonly limits: Steered["limits"];
  readonly stats: ServerStats;
  /** The workers, if the server has any. */
  readonly workers?: readonly WorkerInfo[];
  /** What the metrics know; `null` without any. */
  readonly metrics: MetricsSnapshot | null;
}

/** What a status is made of. */
export interface Observed {
  readonly server: Steered;
  readonly metrics: ServerMetrics | undefined;
  readonly readiness: Readiness;
  readonly name: string;
  readonly version: string | undefined;
  readonly clock: Clock;
}

/** Makes the status of a server. */
export class StatusReport {
  readonly #observed: Observed;
  readonly #startedAt = new Date().toISOString();
  readonly #since: number;

  /** @param observed What a status is made of. */
  constructor(observed: Observed) {
    this.#observed = observed;
    this.#since = observed.clock.now();
  }

  /** Returns the status now. */
  now(): Status {
    const { server, metrics, readiness, name, version = null, clock } = this.#observed;
    const reasons = readiness.reasons(server);
    return {
      ...{ name, version, pid: Deno.pid, state: server.state, paused: server.paused },
      ...{ ready: reasons.length === 0, reasons },
      ...{ startedAt: this.#startedAt, uptimeMs: Math.round(clock.now() - this.#since) },
      ...{ addrs: server.addrs.map(formatAddr), limits: server.limits, stats: server.stats() },
      ...server.workers !== undefined && { workers: server.workers },
      metrics: metrics?.snapshot() ?? null,
    };
  }
}
