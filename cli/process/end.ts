/**
 * Ending the process.
 *
 * @module
 */

import { isTelemetryOn } from "../serve/metrics.ts";

/** Maximum time in milliseconds for which something that is still open can keep the process alive. */
const GRACE_MS = 1000;

let ending = false;

/**
 * Ends the process. Only the first call counts: a second signal has its own exit code, and ends the connections, after
 * which the command comes to its end, too.
 *
 * While Deno exports telemetry, the process ends after the last exports, for which Deno waits in each way out, also in
 * `Deno.exit`: up to `OTEL_EXPORTER_OTLP_TIMEOUT` for the spans, and again for the figures. A signal that ends a process
 * takes a permission that the command has given up, and an abort leaves a core dump and another exit code.
 *
 * @param exitCode The exit code.
 */
export function endProcess(exitCode: number): void {
  if (!isTelemetryOn()) Deno.exit(exitCode);
  if (ending) return;
  ending = true;
  // While Deno exports telemetry, `Deno.exit` may never return, if rarely. A process with nothing left to do ends by
  // itself, after the last export; `Deno.exit` is for one that something keeps alive, such as an outstanding read.
  Deno.exitCode = exitCode;
  Deno.unrefTimer(setTimeout(() => Deno.exit(exitCode), GRACE_MS));
}
