/**
 * The options of a server with several workers.
 *
 * @module
 */

import {
  checkFunction,
  checkHostname,
  checkOptions,
  checkWhole,
  checkWord,
  DEFAULT_HOSTNAME,
  DEFAULT_PORT,
  show,
} from "../../internal/api/check.ts";
import type { ServerEvent } from "../../internal/api/events.ts";
import { resolveFraming } from "../../internal/api/framing.ts";
import { checkServeOptions, type ServeOptions, type ServerLimits } from "../../internal/api/serve_options.ts";
import type { Engine, Place } from "./shared/wire.ts";

/** Maximum number of workers. */
export const MOST_WORKERS = 128;

/** Options of {@linkcode serveWorkers}. */
export interface ServeWorkersOptions extends
  ServerLimits,
  Pick<
    ServeOptions,
    | ("hostname" | "port" | "keepAliveMs" | "maxBufferedBytes" | "framing" | "admitTimeout" | "signal")
    | ("drain" | "drainTimeout" | "drainDelay" | "drainSpread" | "onListen")
  > {
  /**
   * The module that each worker runs, which calls {@linkcode serveInWorker}: `new URL("./worker.ts", import.meta.url)`.
   * Deno needs permission to read it, or to fetch it, for as long as workers may have to be replaced.
   */
  module: URL | string;
  /**
   * The number of workers, from 1 to 128, or `auto` for one per processor.
   *
   * @default {"auto"}
   */
  workers?: number | "auto" | undefined;
  /** Where to listen, if at more than one place; it takes the place of `hostname` and `port`. */
  places?: readonly { hostname?: string | undefined; port?: number | undefined }[] | undefined;
  /**
   * The sockets: Deno's own, or those of {@linkcode listenEpoll}. On Deno's, the workers share a port in a way that Deno
   * does not document. It is tried at the start; where it does not work, one worker serves alone.
   *
   * @default {"deno"}
   */
  engine?: "deno" | "epoll" | undefined;
  /** Data that each worker gets a copy of, as the argument of what it gave to {@linkcode serveInWorker}. */
  data?: unknown;
  /**
   * Maximum size of each worker's heap, in MiB. A worker that needs more ends, at once or after some ten seconds at the
   * limit, and is replaced. The default is that of the process.
   */
  maxHeapMb?: number | undefined;
  /** Called with each event, of whichever worker. What it throws is ignored. */
  onEvent?: ((event: ServerEvent) => void) | undefined;
  /** Called with each event of the workers themselves. What it throws is ignored. */
  onWorker?: ((event: WorkerEvent) => void) | undefined;
}

/** What happens to a worker; its `type` tells what. */
export type WorkerEvent =
  | WorkerStartedEvent
  | WorkerCrashedEvent
  | WorkerStoppedEvent
  | WorkersAloneEvent;

/** A worker serves. */
export interface WorkerStartedEvent {
  /** The kind of event. */
  readonly type: "worker-started";
  /** The number of the worker, from 0; one that replaces another has the same. */
  readonly worker: number;
  /** How many workers with this number have crashed. */
  readonly crashes: number;
}

/** A worker has ended because of an error that nothing has caught. Its connections are closed. */
export interface WorkerCrashedEvent {
  /** The kind of event. */
  readonly type: "worker-crashed";
  /** The number of the worker. */
  readonly worker: number;
  /** The error. */
  readonly error: Error;
  /** The number of connections that were lost. */
  readonly lost: number;
  /** The time until another worker takes its place, in milliseconds; undefined if none does, in a shutdown. */
  readonly retryMs?: number;
}

/** A worker has ended in a shutdown. */
export interface WorkerStoppedEvent {
  /** The kind of event. */
  readonly type: "worker-stopped";
  /** The number of the worker. */
  readonly worker: number;
  /** The number of connections that workers with this number have served. */
  readonly accepted: number;
  /** The number of whole lines that they have read. */
  readonly lines: number;
}

/** Workers cannot share a port here, so that one serves alone. */
export interface WorkersAloneEvent {
  /** The kind of event. */
  readonly type: "workers-alone";
  /** Why not. */
  readonly problem: string;
}

/** The options, checked, with defaults filled in. */
export interface Resolved {
  readonly module: URL;
  readonly workers: number;
  readonly places: readonly Place[];
  readonly engine: Engine;
  readonly maxHeapMb: number | undefined;
}

/**
 * Checks the options that are not checked elsewhere.
 *
 * @throws {RangeError | TypeError} If an option is wrong.
 */
export function resolveWorkers(options: ServeWorkersOptions): Resolved {
  checkOptions("serveWorkers options", options);
  const { workers = "auto", engine = "deno", maxHeapMb, onEvent, onWorker, hostname, port } = options;
  if (workers !== "auto") checkWhole("workers", workers, 1, MOST_WORKERS);
  checkWord("engine", engine, ["deno", "epoll"]);
  if (maxHeapMb !== undefined) checkWhole("maxHeapMb", maxHeapMb, 16, 2 ** 20);
  checkFunction("onEvent", onEvent, true);
  checkFunction("onWorker", onWorker, true);
  // The data of a server's connections is a function, which a worker has of its own.
  const { data: _, ...serving } = options;
  checkServeOptions(serving);
  resolveFraming(options.framing);
  const { places = [{ hostname, port }] } = options;
  const count = workers === "auto" ? Math.min(navigator.hardwareConcurrency, MOST_WORKERS) : workers;
  return { module: moduleOf(options.module), workers: count, places: resolvePlaces(places), engine, maxHeapMb };
}

function resolvePlaces(places: NonNullable<ServeWorkersOptions["places"]>): Place[] {
  if (!Array.isArray(places)) throw new TypeError(`Cannot use places: expected an array, got ${show(places)}`);
  if (places.length === 0) throw new TypeError("Cannot use places: expected at least one, got an empty list");
  return places.map((place, i) => {
    checkOptions(`places[${i}]`, place);
    const { hostname = DEFAULT_HOSTNAME, port = DEFAULT_PORT } = place;
    checkHostname(hostname);
    checkWhole("port", port, 0, 65_535);
    return { hostname, port };
  });
}

function moduleOf(module: unknown): URL {
  try {
    return new URL(module as string | URL);
  } catch {
    throw new TypeError(
      `Cannot use module ${show(module)}: expected a URL, such as new URL("./worker.ts", import.meta.url)`,
    );
  }
}
