/**
 * A server with several workers, as its caller sees it.
 *
 * @module
 */

import type { ConnInfo } from "../../internal/api/events.ts";
import type { Server } from "../../internal/server/running.ts";
import type { WorkerConn } from "./supervision/remote_conn.ts";
import type { WorkerState } from "./supervision/supervisor.ts";

/** One of the workers. */
export interface WorkerInfo {
  /** Its number, from 0. */
  readonly worker: number;
  /** Its state; in `waiting`, the last one has crashed, and the next begins soon. */
  readonly state: WorkerState;
  /** How many workers with this number have crashed. */
  readonly crashes: number;
  /** The number of connections that workers with this number have served. */
  readonly accepted: number;
  /** The number of those that are open. */
  readonly active: number;
  /** The number of whole lines that they have read. */
  readonly lines: number;
  /** The number of bytes that they have read. */
  readonly bytesIn: number;
  /** The number of bytes that they have written. */
  readonly bytesOut: number;
}

/**
 * A running server with several workers. It is a {@linkcode Server}, except that its connections are the workers': the
 * main isolate can see and close them, but not read or write. What workers tell of lines and bytes is up to a second
 * old, unless {@linkcode WorkersServer.refresh} has asked for it; all other counters are exact.
 */
export interface WorkersServer extends Omit<Server, "connections" | "broadcast"> {
  /** The open connections of all workers. */
  readonly connections: Iterable<WorkerConn>;
  /** The workers. */
  readonly workers: readonly WorkerInfo[];
  /**
   * Writes to all open connections of all workers, as `server.broadcast` does.
   *
   * @param data The text or bytes; no line end is added.
   * @param options A connection that is left out.
   * @throws {TypeError | RangeError} If the data is neither text nor bytes, or the number of the connection is none.
   */
  broadcast(data: string | Uint8Array, options?: { except?: Pick<ConnInfo, "id"> | undefined }): void;
  /** Asks all workers for the figures of now, for `stats` and the `stats` of connections; waits at most a second. */
  refresh(): Promise<void>;
  /**
   * Gives all workers new data, such as a certificate; those that begin later get the same.
   *
   * @param data The data; each worker gets a copy.
   * @returns When all workers have taken it. Rejects with the first error of a worker that could not take it.
   */
  reload(data: unknown): Promise<void>;
}
