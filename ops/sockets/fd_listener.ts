/**
 * A listener whose socket another process can go on with.
 *
 * @module
 */

import type { Listener } from "../../internal/api/transport.ts";

/**
 * A listener that knows its descriptor, so that another process can take it over without a moment at which a client is
 * refused: {@linkcode inherit} the descriptor, start the other process with its number, and {@linkcode release} it once
 * that process accepts connections.
 */
export interface FdListener extends Listener {
  /**
   * The descriptor, which the listener owns.
   *
   * @throws {Deno.errors.BadResource} Once it is closed.
   */
  readonly fd: number;
  /**
   * Sets whether child processes that are started from now on have the descriptor too, under the same number. On Deno's
   * sockets this does nothing: child processes have a descriptor that this process got from its parent.
   *
   * @param inherited Whether they have it.
   */
  inherit(inherited: boolean): void;
  /**
   * Takes no more connections from the kernel, and closes the descriptor. Unlike after `close`, an outstanding `accept`
   * waits on, and connections that were accepted before are served: so none is lost, even if a wrapper such as
   * `listenTls` is still preparing it. Call `close`, or shut the server down, once they have been accepted.
   */
  release(): void | Promise<void>;
}
