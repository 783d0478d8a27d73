/**
 * What the signals do to the server.
 *
 * @module
 */

import type { Log } from "../log/log.ts";
import { endProcess } from "../process/end.ts";
import type { Host } from "../process/host.ts";
import { onOthers, onSignals } from "../process/signals.ts";
import { isTelemetryOn } from "../serve/metrics.ts";
import type { Running } from "./serving.ts";

/** What the signals act on. */
export interface Watched {
  readonly log: Log;
  /** Aborted by the first signal that ends the server. */
  readonly stop: AbortController;
  readonly host: Host;
  /** The server, once it serves. */
  readonly running: Promise<Running>;
  /** Whether there is a certificate to read again. */
  readonly reloads: boolean;
}

/**
 * Handles signals from now on. SIGHUP reloads the certificate, once the server serves. SIGUSR2 has another process take
 * over.
 */
export function watchSignals({ log, stop, host, running, reloads }: Watched): void {
  onSignals((signal) => {
    log.write("debug", "signal", () => `received ${signal}`, () => ({ signal }));
    stop.abort();
  }, async (signal, after, exitCode) => {
    const afterMs = Math.ceil(after);
    const text = `ending at once: ${signal}, ${afterMs} ms after the first signal`;
    log.write("warn", "ending", () => text, () => ({ signal, afterMs, exitCode }));
    await log.flush();
    // Connections keep the process alive. While telemetry is on, it has to end by itself all the same.
    if (isTelemetryOn()) running.then(({ server }) => server.shutdown({ delay: 0, drainTimeout: 1 }));
    endProcess(exitCode);
  });
  onOthers(async () => {
    // SIGHUP may come while the listener is being opened. The files may have been read already, so they are read again.
    if (reloads) return await (await running).reload?.();
    const text = "ignored SIGHUP: there is no certificate to read again";
    log.write("info", "ignored-signal", () => text, () => ({ signal: "SIGHUP" }));
  }, () => host.upgrade());
}
