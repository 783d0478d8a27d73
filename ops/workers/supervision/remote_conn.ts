/**
 * A worker's connection, as the main isolate sees it.
 *
 * @module
 */

import { checkCloseOptions } from "../../../internal/api/check.ts";
import type { ConnInfo } from "../../../internal/api/events.ts";
import type { CloseOptions, ConnStats } from "../../../internal/api/handlers.ts";
import type { Traffic } from "../../../internal/api/events.ts";

/** An open connection of one of the workers. */
export interface WorkerConn extends ConnInfo {
  /** The number of the worker that serves it, from 0. */
  readonly worker: number;
  /** Returns what it does, as the worker has told last; see `server.refresh`. */
  stats(): ConnStats;
  /**
   * Closes it, as `conn.close` does; the worker does so when it reads the message. If its handler has chosen another
   * encoding, which lacks a character of `lastWord`, it is closed without that.
   *
   * @throws {TypeError} If an option is wrong, or `lastWord` has a character that the server's encoding lacks.
   */
  close(options?: CloseOptions): void;
}

/** A connection whose worker has told what it does, at some time. */
export class RemoteConn implements WorkerConn {
  readonly id: number;
  readonly remoteAddr: Deno.Addr;
  readonly localAddr: Deno.Addr;
  readonly worker: number;
  readonly #close: (options: CloseOptions) => void;
  readonly #now: () => number;
  readonly #since: number;
  #told: ConnStats = NEW;
  /** The server counts the handlers of each worker. */
  readonly handled: undefined = undefined;

  /**
   * @param info Its number and addresses.
   * @param worker The number of its worker.
   * @param close Asks the worker to close it.
   * @param now Returns the time, in milliseconds.
   */
  constructor(info: ConnInfo, worker: number, close: (options: CloseOptions) => void, now: () => number) {
    this.id = info.id;
    this.remoteAddr = info.remoteAddr;
    this.localAddr = info.localAddr;
    this.worker = worker;
    this.#close = close;
    this.#now = now;
    this.#since = now();
  }

  /** How long it is open, in milliseconds. */
  get ageMs(): number {
    return this.#now() - this.#since;
  }

  /** What it has transferred, as far as the worker has told. */
  get totals(): Traffic {
    const { lines, bytesIn, bytesOut } = this.#told;
    return { lines, bytesIn, bytesOut };
  }

  stats(): ConnStats {
    return { ...this.#told, ageMs: this.ageMs };
  }

  close(options: CloseOptions = {}): void {
    checkCloseOptions(options);
    this.#close(options);
  }

  /** The worker has told what it does. */
  tell(stats: ConnStats): void {
    this.#told = stats;
  }
}

const NEW: ConnStats = {
  ...{ lines: 0, bytesIn: 0, bytesOut: 0 },
  ...{ ageMs: 0, idleMs: 0, phase: "open", waitsFor: "first-byte" },
};
