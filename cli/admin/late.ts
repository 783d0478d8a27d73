/**
 * The admin port of a process that takes over from another one, which has its own at the same address.
 *
 * @module
 */

import type { AdminPort } from "../../ops/admin/port.ts";
import { CommandError, reasonOf } from "../system/errors.ts";
import type { Log } from "../log/log.ts";

/** Maximum time in milliseconds for the other process to close its port, and the time between two tries to open ours. */
const PATIENCE_MS = 15_000;
const RETRY_MS = 50;

/**
 * Opens the admin port once the other process has closed its own.
 *
 * @param open Opens it.
 * @param stop Aborted when the server is to stop, which needs no admin port.
 * @param log The log, which gets an error that stays.
 * @returns The port; undefined if there is none, with or without an error: the server goes on.
 */
export async function openLate(
  open: () => Promise<AdminPort | undefined>,
  stop: AbortSignal,
  log: Log,
): Promise<AdminPort | undefined> {
  for (const until = performance.now() + PATIENCE_MS;;) {
    try {
      return await open();
    } catch (error) {
      if (!(error instanceof CommandError)) throw error;
      if (stop.aborted) return undefined;
      if (performance.now() > until) {
        const reason = reasonOf(error);
        log.write("error", "admin-failed", () => reason, () => ({ error: reason }));
        return undefined;
      }
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}
