/**
 * Finds out whether the kernel has `epoll`. There is no top-level `await`: a module that imports this one must have
 * taken effect before the next file is imported.
 *
 * @module
 */

import { listenEpoll } from "@x/shouty/ops";

/** Why this system has no epoll, appended to the names of skipped tests; empty if it has. */
export const NO_EPOLL: string = reasonAgainst();

function reasonAgainst(): string {
  try {
    // Load the C library here, outside of tests: it stays loaded, which a test would report as a leak.
    listenEpoll({ hostname: "127.0.0.1", port: 0 }).close();
    return "";
  } catch (error) {
    if (!(error instanceof Deno.errors.NotSupported)) throw error;
    return ` (skipped: ${error.message})`;
  }
}
