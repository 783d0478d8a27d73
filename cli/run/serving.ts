/**
 * Serving in this isolate, or in workers.
 *
 * @module
 */

import type { ServerEvent } from "../../internal/api/events.ts";
import { shout } from "../../internal/lines/shout.ts";
import type { Server } from "../../internal/server/running.ts";
import type { WorkersServer } from "../../ops/workers/workers_server.ts";
import { serve } from "../../server.ts";
import type { Log } from "../log/log.ts";
import { report } from "../log/report.ts";
import { type Shutdown, shutdownOf } from "../process/leaving.ts";
import { type Opened, openListeners } from "../serve/listen.ts";
import type { Measured } from "../serve/metrics.ts";
import type { serveByWorkers, ServeValues, Surroundings } from "../serve/workers.ts";
import type { PermissionName } from "../system/permissions.ts";

/** Logs and counts the events of a server. */
export function around(log: Log, signal: AbortSignal, { metrics, traceOf }: Partial<Measured> = {}): Surroundings {
  const secure = new Set<string>();
  const onEvent = (event: ServerEvent) => {
    metrics?.onEvent(event);
    report(log, event, { secure, traceOf });
  };
  return { log, signal, metrics, secure, onEvent };
}

/** A server, and what was opened for it here; the listeners of workers are theirs. */
export interface Running extends Pick<Opened, "bound" | "reload"> {
  readonly server: Server | WorkersServer;
  /** Begins its end. */
  readonly shutdown: Shutdown;
}

/** The flags' values, and the permissions that stay. */
type Options = ServeValues & { readonly kept: readonly PermissionName[] };

/** Serves in this isolate or in workers. */
export async function serveAs(
  options: Options,
  given: ReadonlySet<string>,
  around: Surroundings,
): Promise<Running> {
  const running = await (options.workers === null ? serveAlone : serveApart)(options, given, around);
  around.metrics?.watch(running.server);
  return running;
}

/** Serves in workers. */
async function serveApart(...args: Parameters<typeof serveByWorkers>): Promise<Running> {
  const { serveByWorkers } = await import("../serve/workers.ts");
  const { server, reload } = await serveByWorkers(...args);
  return { server, bound: [], reload, shutdown: (options) => server.shutdown(options) };
}

/** Serves in this isolate. */
async function serveAlone(
  options: Options,
  given: ReadonlySet<string>,
  { log, signal, metrics, secure, onEvent }: Surroundings,
): Promise<Running> {
  const flags = { ...options, onHandshake: metrics?.onHandshake };
  const { bound, listeners, secure: encrypted, reload } = await openListeners(flags, given, log);
  for (const addr of encrypted) secure.add(addr);
  const server = serve({ ...options, listener: listeners, onEvent }, metrics?.timed(shout));
  const shutdown = shutdownOf(server, bound, options);
  if (signal.aborted) shutdown();
  else signal.addEventListener("abort", () => shutdown());
  return { server, bound, reload, shutdown };
}
