/**
 * One server on several processors: workers that share one port.
 *
 * In the main isolate: the call that starts them (here), its options (`options.ts`), the server as its caller sees it
 * (`workers_server.ts`) and what is behind that (`parallel_server.ts`), the workers (`worker_group.ts`) and the
 * decisions about new connections (`shared_admission.ts`). `supervision/` has the workers one by one: each started and
 * replaced (`supervisor.ts`), their connections (`registry.ts`, `remote_conn.ts`), which of them gets the next
 * (`balance.ts`), and requests that all of them answer (`replies.ts`, `refreshes.ts`). `worker/` runs in each worker:
 * a server (`in_worker.ts`), and a listener that asks about its connections (`asking_listener.ts`,
 * `worker_admission.ts`), when it is its turn (`turn_listener.ts`). `shared/` is for both sides: messages (`wire.ts`,
 * `batcher.ts`), the number of connections of each worker (`loads.ts`), and the port (`sharing.ts`).
 *
 * @module
 */

import { DEFAULT_KEEP_ALIVE_MS } from "../../internal/api/check.ts";
import { admissionRules, resolveAdmission } from "../../internal/admission/admission.ts";
import { resolveConnOptions } from "../../internal/api/conn_options.ts";
import { ParallelServer } from "./parallel_server.ts";
import { type Resolved, resolveWorkers, type ServeWorkersOptions } from "./options.ts";
import { findPlace, type SharedPlace, sharePlace, sharingProblem } from "./shared/sharing.ts";
import type { WorkersServer } from "./workers_server.ts";

/**
 * Serves with several workers, each in an isolate and a thread of its own, on one port.
 *
 * All limits hold for all workers together, exactly: this isolate decides about each connection, and a worker asks it.
 * (`maxBufferedBytes` alone is divided among them.) An error that nothing catches ends one worker: its connections close
 * with reason `transport-error`, the others go on, and another worker takes its place, at first after 100 ms, then after
 * twice as long each time, at most 30 s. A shutdown drains all workers, and has one report. Connections have numbers that
 * are unique in all workers.
 *
 * The workers share one socket, on both engines, so whichever has time accepts the next connection; one that has more
 * connections than others leaves the next to them. A port that another socket has is refused, also if that would share it.
 * Connections that the kernel has completed wait for the next worker when one crashes. Unix sockets cannot be shared.
 *
 * Permissions are the process's: what any isolate gives up, all have given up. A worker needs permission to read its
 * modules, and on `epoll` to call foreign code, whenever it replaces another.
 *
 * @param options The module, the number of workers, where to listen, the limits, and the hooks.
 * @returns The running server; all workers serve.
 * @throws {RangeError | TypeError} (As a rejection.) If an option is wrong; nothing is bound then.
 * @throws {Deno.errors.AddrInUse} (As a rejection.) If another socket has the port.
 * @throws {Error} (As a rejection.) If a worker cannot be started.
 *
 * @example Two workers (not run: it needs a module for them)
 * ```ts ignore
 * import { serveWorkers } from "@x/shouty/ops";
 *
 * const server = await serveWorkers({
 *   module: new URL("./worker.ts", import.meta.url), // which calls serveInWorker
 *   workers: 2,
 *   port: 8080,
 *   maxConnections: 1000, // of both together
 * });
 * console.log(server.workers.map(({ lines }) => lines));
 * ```
 */
export async function serveWorkers(options: ServeWorkersOptions): Promise<WorkersServer> {
  const resolved = resolveWorkers(options);
  // A copy: a worker that takes the place of another gets the same options, whatever the caller has changed meanwhile.
  options = { ...options, framing: options.framing && { ...options.framing } };
  const limits = { conn: resolveConnOptions(options), rules: resolveAdmission(options) };
  // Also before anything is bound.
  admissionRules(limits.rules);
  const { places, engine } = resolved;
  const shared: SharedPlace[] = [];
  let server: ParallelServer | undefined;
  try {
    const problem = engine === "deno" ? await sharingProblem() : undefined;
    const alone = problem !== undefined;
    const keepAliveMs = options.keepAliveMs ?? DEFAULT_KEEP_ALIVE_MS;
    for (const place of places) shared.push(alone ? findPlace(place) : sharePlace(place, engine, keepAliveMs));
    const workers = alone ? 1 : resolved.workers;
    const maxHeapMb = await heapOf(resolved);
    server = new ParallelServer({ options, shared, limits, workers, alone, module: resolved.module, maxHeapMb });
    if (problem !== undefined && resolved.workers > 1) server.tell({ type: "workers-alone", problem });
    await server.started;
    return server;
  } catch (error) {
    server?.abandon();
    for (const place of shared) place.close();
    throw error;
  }
}

async function heapOf({ maxHeapMb }: Resolved): Promise<number> {
  if (maxHeapMb !== undefined) return maxHeapMb;
  const { getHeapStatistics } = await import("node:v8");
  return Math.floor(getHeapStatistics().heap_size_limit / 2 ** 20);
}
