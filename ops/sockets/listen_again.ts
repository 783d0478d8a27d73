/**
 * Makes a server of `node:net` go on where Deno's stops.
 *
 * @module
 */

import type { Server } from "node:net";

/** What such a server keeps to itself: the socket that listens. It is not documented, so it may be missing. */
interface Handle {
  readonly _handle?: { listen?(backlog: number): unknown } | null;
}

/**
 * Makes a server on TCP accept again. When the process is out of descriptors, one `accept` of Deno's `node:net` fails, and
 * it makes no other, without a word. Listening again on the socket makes it go on, and changes nothing for one that
 * accepts.
 *
 * A Unix socket cannot be helped this way, and must not be told: Deno would ask for the permissions to read and write its
 * file again, on the terminal if they have been given up, and the whole process would wait for the answer.
 *
 * @param server The server.
 * @param backlog Maximum number of connections that the kernel keeps until they are accepted.
 */
export function listenAgain(server: Server, backlog: number): void {
  (server as Handle)._handle?.listen?.(backlog);
}
