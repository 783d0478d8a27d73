/**
 * Listening on a socket that another process has opened.
 *
 * This folder holds what that takes on Deno's sockets, which can be had for a descriptor from `node:net` only: the
 * listener (`node_listener.ts`) and one connection (`node_socket.ts`).
 *
 * @module
 */

import { createServer } from "node:net";
import {
  checkKeepAlive,
  checkOptions,
  checkWhole,
  checkWord,
  DEFAULT_KEEP_ALIVE_MS,
} from "../../internal/api/check.ts";
import { adoptEpoll } from "../epoll/epoll.ts";
import type { FdListener } from "../sockets/fd_listener.ts";
import { LISTEN_BACKLOG, NodeListener } from "./node_listener.ts";

/** Minimum descriptor, after those of the standard streams, and maximum; the kernel's own maximum is lower. */
const [LEAST_FD, LARGEST_FD] = [3, 2 ** 31 - 1];

/** Options of {@linkcode listenFd}. */
export interface ListenFdOptions {
  /** The descriptor of a socket that listens, on TCP or on a Unix socket. */
  fd: number;
  /**
   * What accepts the connections: Deno's own sockets, or the kernel's `epoll` for TCP as in `listenEpoll`, with the same
   * conditions and the same permission.
   * @default {"deno"}
   */
  engine?: "deno" | "epoll" | undefined;
  /**
   * The keep-alive time with the engine `epoll`, in milliseconds; see the same option of `listenEpoll`.
   * @default {15_000}
   */
  keepAliveMs?: number | undefined;
}

/**
 * Listens on a socket that another process has opened, and that this one got at its start: from systemd's socket
 * activation, from a supervisor, or from an older version of the same program. It takes no permission with Deno's
 * sockets: whoever started the process has chosen the address.
 *
 * The listener owns the descriptor. The socket stays open as long as any process has it, so no client is refused while
 * one process takes over from another. The file of a Unix socket is never deleted, and its path is unknown: `addr.path`
 * is empty.
 *
 * Deno's sockets can be had for a descriptor from `node:net` only, and differ from those of `Deno.listen` in this:
 *
 * - Up to 511 connections are accepted before the server asks for them, and wait unread; when so many wait, further ones
 *   are reset, or closed on a Unix socket. Closing the listener, as a shutdown does, closes those that wait: `release` it
 *   first, and have the server accept them.
 * - Without a free descriptor, accepting stops without an error, and goes on when a connection ends. On a Unix socket it
 *   does not go on.
 * - A peer that has ended its side, and has not read what the kernel's buffers hold, loses the rest of the output: the
 *   next write fails with `Deno.errors.BrokenPipe`. This is a defect of Deno 2.9's `node:net`.
 *
 * The engine `epoll` has none of these.
 *
 * @param options The descriptor, and the engine.
 * @returns The listener.
 * @throws {RangeError | TypeError} If an option is wrong, or the descriptor is no listening socket.
 * @throws {Deno.errors.NotSupported} If the engine `epoll` is not to be had, or the socket is a Unix socket.
 * @throws {Deno.errors.NotCapable} If the engine `epoll` is not permitted.
 *
 * @example A server that systemd starts at the first connection (not run: it needs the descriptor)
 * ```ts ignore
 * import { serve } from "@x/shouty";
 * import { listenFd } from "@x/shouty/ops";
 *
 * // systemd counts the descriptors in LISTEN_FDS; the first is 3.
 * serve({ listener: listenFd({ fd: 3 }) });
 * ```
 */
export function listenFd(options: ListenFdOptions): FdListener {
  checkOptions("listenFd options", options);
  const { fd, engine = "deno", keepAliveMs = DEFAULT_KEEP_ALIVE_MS } = options;
  checkWhole("fd", fd, LEAST_FD, LARGEST_FD);
  checkKeepAlive(keepAliveMs);
  checkWord("engine", engine, ["deno", "epoll"]);
  const listener = engine === "epoll" ? adoptEpoll(fd, keepAliveMs) : adoptNode(fd);
  if (listener === undefined) throw new TypeError(`Cannot use fd ${fd}: expected a listening socket`);
  return listener;
}

function adoptNode(fd: number): FdListener | undefined {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true });
  // Node reports a wrong descriptor later, as an event; but the server does not listen then.
  server.on("error", () => {});
  server.listen({ fd, backlog: LISTEN_BACKLOG });
  return server.listening ? new NodeListener(server, fd) : undefined;
}
