/**
 * Figures about the server, for the admin port, and for Deno's telemetry if the environment switches it on.
 *
 * @module
 */

import type { ServerMetrics } from "../../ops/metrics/metrics.ts";
import type { Trace } from "../../ops/metrics/spans.ts";

/** What counts the server's events, and finds its connections in the traces. */
export interface Measured {
  readonly metrics: ServerMetrics;
  /** Finds a connection by its number; without telemetry, none is found. */
  traceOf(connId: number): Trace | undefined;
}

/**
 * Begins to count and time what the server does.
 *
 * @param hasAdmin Whether there is an admin port.
 * @returns What counts them; undefined, which costs nothing, if there is neither telemetry nor an admin port.
 */
export async function measure(hasAdmin: boolean): Promise<Measured | undefined> {
  const exporting = isTelemetryOn();
  if (!hasAdmin && !exporting) return undefined;
  const { ServerMetrics } = await import("../../ops/metrics/metrics.ts");
  const metrics = new ServerMetrics();
  if (!exporting) return { metrics, traceOf: () => undefined };
  const { exportTelemetry } = await import("../../ops/metrics/telemetry.ts");
  const { traceOf } = exportTelemetry(metrics);
  return { metrics, traceOf };
}

/** Whether `OTEL_DENO` is `true`: reading the variable would need a permission that only this would need. */
export function isTelemetryOn(): boolean {
  try {
    Deno.telemetry.meterProvider.getMeter("shouty");
    return true;
  } catch {
    return false;
  }
}
