/**
 * Sockets from the kernel's `epoll`, where there is one. It awaits nothing as it is loaded: what it is imported for has to
 * stand before the next file is.
 *
 * @module
 */

import { listenEpoll } from "@x/shouty/ops";

/** Why there is none here, to be put behind a test's name; empty where there is. */
export const NO_EPOLL: string = reasonAgainst();

function reasonAgainst(): string {
  try {
    // What this loads stays loaded; in a test it would look like a leak.
    listenEpoll({ hostname: "127.0.0.1", port: 0 }).close();
    return "";
  } catch (error) {
    if (!(error instanceof Deno.errors.NotSupported)) throw error;
    return ` (skipped: ${error.message})`;
  }
}
