/**
 * Unix sockets: a listener behind a file.
 *
 * @module
 */

import { checkOptions, checkWhole, show } from "../internal/api/check.ts";
import { closeQuietly, type Listener } from "../internal/api/transport.ts";

/** So often, and so many milliseconds apart, a socket has to refuse before it is dead. */
const PROBES = 3;
const PROBE_MS = 50;

/** Options of {@linkcode listenUnix}. */
export interface ListenUnixOptions {
  /** Where the socket's file is to be. */
  path: string;
  /**
   * The file's mode bits, such as `0o660`: who may write to it may connect. Without them, the process's umask decides.
   */
  mode?: number | undefined;
}

/**
 * Listens on a Unix socket. When the listener is closed, the runtime deletes what is at its path then: who replaces the
 * file of a server that runs has to wait until that has stopped.
 *
 * A file that a server left behind when it crashed is replaced. Nothing else is: before a file is deleted, it has to be
 * a socket that refuses connections.
 *
 * Between its creation and its mode bits, a file has those that the umask gives it. A process that may change its umask
 * (Deno wants `--allow-sys` for that) leaves no such gap.
 *
 * @param options Where.
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
  try {
    return bind(path, mode);
  } catch (error) {
    if (!(error instanceof Deno.errors.AddrInUse)) throw error;
  }
  await removeDead(path);
  return bind(path, mode);
}

function bind(path: string, mode: number | undefined): Listener {
  if (mode === undefined) return Deno.listen({ transport: "unix", path });
  const umask = mayChangeUmask() ? Deno.umask(0o777 & ~mode) : undefined;
  let listener: Listener;
  try {
    listener = Deno.listen({ transport: "unix", path });
  } finally {
    if (umask !== undefined) Deno.umask(umask);
  }
  try {
    Deno.chmodSync(path, mode);
    return listener;
  } catch (error) {
    closeQuietly(listener);
    throw error;
  }
}

function mayChangeUmask(): boolean {
  return Deno.build.os !== "windows" && Deno.permissions.querySync({ name: "sys" }).state === "granted";
}

/** Makes room where a server has crashed; throws if it is anything else that is in the way. */
async function removeDead(path: string): Promise<void> {
  const file = statOf(path);
  if (file === undefined) return;
  if (!file.isSocket) {
    throw new Deno.errors.AlreadyExists(`Cannot listen on "${path}": there is a file that is not a socket`);
  }
  if (await answers(path)) {
    throw new Deno.errors.AddrInUse(`Cannot listen on "${path}": another server listens there`);
  }
  // Another server may have been as quick; what is deleted has to be what was found dead.
  const now = statOf(path);
  if (now !== undefined && identity(now) === identity(file)) Deno.removeSync(path);
}

/**
 * What tells a file from another one at its path. The system gives a number that is free again to the next file, so the
 * times belong to it; Deno tells ctime in whole seconds, the others in milliseconds.
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
 * Whether there is a server. One that is too busy to let anybody in is one too; on BSD and macOS it refuses, so only a
 * socket that refuses again and again is dead.
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
