/**
 * The errors of Node's sockets and of the kernel, as those of Deno's own sockets.
 *
 * This folder holds listening on a Unix socket (`unix.ts`), and what other sockets share: these errors, a listener whose
 * socket another process can go on with (`fd_listener.ts`), and accepting again after an error (`listen_again.ts`).
 *
 * @module
 */

/** The classes of Deno's errors, by the system's codes and Node's. */
export const CLASSES: Readonly<Record<string, new (message: string, options?: ErrorOptions) => Error>> = {
  EACCES: Deno.errors.PermissionDenied,
  EADDRINUSE: Deno.errors.AddrInUse,
  EADDRNOTAVAIL: Deno.errors.AddrNotAvailable,
  ECONNABORTED: Deno.errors.ConnectionAborted,
  ECONNRESET: Deno.errors.ConnectionReset,
  ENOTCONN: Deno.errors.NotConnected,
  EPIPE: Deno.errors.BrokenPipe,
  ETIMEDOUT: Deno.errors.TimedOut,
  // A write that was begun after the peer had reset the connection.
  ERR_STREAM_DESTROYED: Deno.errors.BrokenPipe,
  ERR_STREAM_WRITE_AFTER_END: Deno.errors.BrokenPipe,
};

/** Turns an error of `node:net` into the one that Deno's own sockets would throw; any other stays as it is. */
export function ofDeno(error: Error & { code?: string }): Error {
  const kind = CLASSES[error.code ?? ""];
  return kind === undefined ? error : new kind(error.message, { cause: error });
}

/** What a call rejects with if the socket is closed; `what` is the connection or the listener. */
export function closedError(what: string): Error {
  return new Deno.errors.BadResource(`The ${what} is closed`);
}

/** What a call rejects with if another one of its kind has not settled. */
export function busyError(what: string): Error {
  return new Deno.errors.Busy(`Cannot ${what}: another ${what} is outstanding`);
}

/** What an outstanding call rejects with if the connection is closed. */
export function interruptedError(): Error {
  return new Deno.errors.Interrupted("The connection was closed");
}
