/**
 * Listening on a Unix socket, and replacing the file that a crashed server left behind.
 *
 * @module
 */

import { checkOptions, checkWhole, show } from "../../internal/api/check.ts";
import { prefixed } from "../../internal/api/errors.ts";
import { closeQuietly, type Listener } from "../../internal/api/transport.ts";

/** Number of connection attempts that a socket has to refuse to count as dead, and the milliseconds between them. */
const PROBES = 3;
const PROBE_MS = 50;

/** Options of {@linkcode listenUnix}. */
export interface ListenUnixOptions {
  /** The path of the socket's file, which must not exist, unless a crashed server left it behind. */
  path: string;
  /**
   * The file's mode bits, such as `0o660`: a user that may write to the file may connect. By default the umask decides.
   */
  mode?: number | undefined;
}

/**
 * Listens on a Unix socket. When the listener is closed, the runtime deletes the file at its path, even if it is another
 * one by then: do not put a new server's file there until the old server has stopped.
 *
 * A file that a crashed server left behind is replaced, and no other: it has to be a socket that refuses connections.
 *
 * The file is created with the mode that the umask gives it, and gets its own mode afterwards. If the process may change
 * its umask, for which Deno needs `--allow-sys`, the file has its own mode from the start.
 *
 * @param options The path, and the file's mode.
 * @returns The listener, which listens already.
 * @throws {RangeError | TypeError} (As a rejection.) If an option is wrong.
 * @throws {Deno.errors.AddrInUse} (As a rejection.) If another server listens there.
 * @throws {Deno.errors.AlreadyExists} (As a rejection.) If there is a file that is not a socket.
 *
 * @example A server that only its own user can reach
 * ```ts
 * import { serve } from "@x/shouty";
 * import { listenUnix } from "@x/shouty/ops";
 * import { assertEquals } from "@std/assert";
 *
 * const path = `${await Deno.makeTempDir()}/shouty.sock`;
 * await using _server = serve({ listener: await listenUnix({ path, mode: 0o600 }) });
 *
 * using conn = await Deno.connect({ transport: "unix", path });
 * await conn.write(new TextEncoder().encode("hello\n"));
 * await conn.closeWrite();
 * assertEquals(await new Response(conn.readable).text(), "HELLO\n");
 * ```
 */
export async function listenUnix(options: ListenUnixOptions): Promise<Listener> {
  checkOptions("listenUnix options", options);
  const { path, mode } = options;
  if (typeof path !== "string" || path === "") {
    throw new TypeError(`Cannot use path ${show(path)}: expected a file's name`);
  }
  if (mode !== undefined) checkWhole("mode", mode, 0, 0o777);
  return await replacingDead(path, () => bind(path, mode));
}

/**
 * Listens at a path, in place of a crashed server that has left its file there.
 *
 * @param path The path.
 * @param listen Listens there.
 * @returns What `listen` has returned.
 */
export async function replacingDead<T>(path: string, listen: () => T | Promise<T>): Promise<T> {
  try {
    return await listen();
  } catch (error) {
    if (!(error instanceof Deno.errors.AddrInUse)) throw error;
  }
  await removeDead(path);
  return await listen();
}

function bind(path: string, mode: number | undefined): Listener {
  if (mode === undefined) return listen(path);
  const listener = withMode(mode, () => listen(path));
  try {
    Deno.chmodSync(path, mode);
    return listener;
  } catch (error) {
    closeQuietly(listener);
    throw error;
  }
}

function listen(path: string): Listener {
  try {
    return Deno.listen({ transport: "unix", path });
  } catch (error) {
    throw prefixed(`Cannot listen on ${show(path)}`, error);
  }
}

/**
 * Creates a file that has a mode from its start, if the process may change its umask for that.
 *
 * @param mode The mode bits.
 * @param create Creates the file.
 * @returns What `create` has returned.
 */
export function withMode<T>(mode: number, create: () => T): T {
  const mayChange = Deno.build.os !== "windows" && Deno.permissions.querySync({ name: "sys" }).state === "granted";
  if (!mayChange) return create();
  const umask = Deno.umask(0o777 & ~mode);
  try {
    return create();
  } finally {
    Deno.umask(umask);
  }
}

/** Deletes the file of a crashed server; throws if the file is anything else. */
async function removeDead(path: string): Promise<void> {
  const file = statOf(path);
  if (file === undefined) return;
  if (!file.isSocket) {
    throw new Deno.errors.AlreadyExists(`Cannot listen on "${path}": there is a file that is not a socket`);
  }
  if (await answers(path)) {
    throw new Deno.errors.AddrInUse(`Cannot listen on "${path}": another server listens there`);
  }
  // Another server may have replaced the file meanwhile: only the file that was found dead is deleted.
  const now = statOf(path);
  if (now !== undefined && identity(now) === identity(file)) Deno.removeSync(path);
}

/**
 * Text that differs between two files at the same path. The times are part of it, because the system reuses a deleted
 * file's inode number; Deno gives ctime in whole seconds, the others in milliseconds.
 */
function identity({ dev, ino, ctime, mtime, birthtime }: Deno.FileInfo): string {
  return [dev, ino, ...[ctime, mtime, birthtime].map((time) => time?.getTime())].join(" ");
}

function statOf(path: string): Deno.FileInfo | undefined {
  try {
    return Deno.lstatSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/**
 * Whether a server listens on a socket. With a full backlog, a server on BSD and macOS refuses connections too, so only a
 * socket that refuses {@linkcode PROBES} times counts as dead.
 */
async function answers(path: string): Promise<boolean> {
  for (let left = PROBES; left > 0; left--) {
    try {
      closeQuietly(await Deno.connect({ transport: "unix", path }));
      return true;
    } catch (error) {
      const { ConnectionRefused, NotFound } = Deno.errors;
      if (!(error instanceof ConnectionRefused || error instanceof NotFound)) return true;
    }
    if (left > 1) await new Promise((resolve) => setTimeout(resolve, PROBE_MS));
  }
  return false;
}
