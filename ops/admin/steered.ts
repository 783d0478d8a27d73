/**
 * What the admin port needs of a server.
 *
 * @module
 */

import type { Conn } from "../../internal/api/handlers.ts";
import type { Server } from "../../internal/server/running.ts";
import type { WorkerInfo } from "../workers/workers_server.ts";

/** A connection, as the list shows it. */
export type SteeredConn = Pick<Conn<unknown>, "id" | "remoteAddr" | "localAddr" | "stats" | "close">;

/** A server of `serve` or of `serveWorkers`. */
export interface Steered extends Omit<Server<unknown>, "connections" | "broadcast" | keyof AsyncDisposable> {
  readonly connections: Iterable<SteeredConn>;
  /** The number of open connections, if the server knows it without visiting each. */
  readonly active?: number;
  /** The workers, if it has any. */
  readonly workers?: readonly WorkerInfo[];
  /** Asks the workers for the figures of now. */
  refresh?(): Promise<void>;
}
