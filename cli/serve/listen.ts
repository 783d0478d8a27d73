/**
 * Opens the server's listeners, with the wrappers that the flags ask for.
 *
 * @module
 */

import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { closeQuietly, formatAddr, type Listener } from "../../internal/api/transport.ts";
import { listenEpoll } from "../../ops/epoll/epoll.ts";
import { listenFd } from "../../ops/fd/fd.ts";
import { withTrace } from "../../ops/wrappers/trace.ts";
import { listenUnix } from "../../ops/sockets/unix.ts";
import type { Descriptor } from "../flags/descriptors.ts";
import { CommandError } from "../system/errors.ts";
import { requireFile } from "../system/files.ts";
import type { SERVE } from "../flags/flags.ts";
import type { Target } from "../flags/kinds.ts";
import type { Log } from "../log/log.ts";
import { failed, formatTarget, requireNet } from "../system/net.ts";
import type { Values } from "../line/parse.ts";
import { isProxied, isTcp, type Place, placesOf } from "../line/places.ts";
import { keepOnly, type PermissionName } from "../system/permissions.ts";
import { loadSecurity, type TlsFlags } from "./tls.ts";
import { traceTo } from "../log/trace.ts";
import { wrapListener } from "./wrap.ts";

/** The values of the flags about listening. */
export type ListenFlags =
  & TlsFlags
  & Pick<
    Values<typeof SERVE.flags>,
    | "engine"
    | "workers"
    | "hostname"
    | "port"
    | "keepAliveMs"
    | "tlsPort"
    | "unix"
    | "unixMode"
    | "proxyProtocol"
    | "proxyHeaderTimeout"
    | "telnet"
    | "trace"
  >
  & {
    /** The descriptors to listen on; `null` for none. */
    readonly listenFd: readonly Descriptor[] | null;
  };

/** A listening socket. */
export interface Bound {
  readonly listener: Listener;
  readonly tls: boolean;
}

/** The open listeners. */
export interface Opened {
  /** The sockets, without what is around them. */
  readonly bound: readonly Bound[];
  readonly listeners: readonly Listener[];
  /** The addresses of those that speak TLS, as the log writes them. */
  readonly secure: ReadonlySet<string>;
  /** Reloads the certificate, if there is one; called at SIGHUP. */
  readonly reload: (() => Promise<void>) | undefined;
}

/**
 * Listens wherever the flags say, and gives up the permissions that serving does not need.
 *
 * @param flags The flags' values, and the permissions that stay.
 * @param given The options that the user has set.
 * @param log The log, for messages about certificates.
 * @returns The listeners.
 * @throws {CommandError} (As a rejection.) If listening fails anywhere.
 */
export async function openListeners(
  flags: ListenFlags & { readonly kept: readonly PermissionName[] },
  given: ReadonlySet<string>,
  log: Log,
): Promise<Opened> {
  const places = placesOf(flags, given);
  const bound: Bound[] = [];
  try {
    const { engine } = flags;
    if (places.some(isTcp)) log.write("debug", "engine", () => `engine is ${engine}`, () => ({ engine }));
    for (const place of places) bound.push({ listener: await bind(place, flags), tls: place.tls });
    return { bound, ...await wrap(bound, flags, log) };
  } catch (error) {
    // A Unix socket's file would stay otherwise.
    for (const { listener } of bound) closeQuietly(listener);
    throw error;
  } finally {
    keepOnly(...flags.kept);
  }
}

/** The permissions that {@linkcode openListeners} can use with these flags. */
export function neededToListen({ engine, unix, tlsCert, workers }: ListenFlags): PermissionName[] {
  const needed: PermissionName[] = ["net"];
  // With `sys`, the umask gives a Unix socket's file its mode from the start.
  if (unix !== null) needed.push("read", "write", "sys");
  if (tlsCert !== null) needed.push("read");
  if (engine === "epoll") needed.push("ffi");
  // For the modules of workers.
  if (workers !== null) needed.push("read", "import");
  return needed;
}

/**
 * The permissions that the listeners need while the server runs: SIGHUP reads the certificate's files again, and a worker
 * that replaces another needs what the first one had.
 */
export function neededToAccept({ engine, tlsCert, workers }: ListenFlags): PermissionName[] {
  if (workers !== null) return ["read", "import", engine === "epoll" ? "ffi" : "net"];
  return tlsCert === null ? [] : ["read"];
}

async function bind({ port, unix, fd }: Place, flags: ListenFlags): Promise<Listener> {
  if (fd !== undefined) return adopt(fd, flags);
  if (unix !== undefined) return await bindUnix(unix, flags);
  return await bindFirst({ hostname: flags.hostname, port: port! }, flags, (target) => listenTcp(target, flags));
}

async function bindUnix(path: string, { unixMode: mode }: ListenFlags): Promise<Listener> {
  const address = `unix:${path}`;
  requireNet("listen on", address);
  requireFile(`listen on ${address}`, path, ["read", "write"]);
  try {
    return await listenUnix({ path, mode });
  } catch (error) {
    throw failedToListen(address, error);
  }
}

/** The library's errors name the address, and their causes do not. */
function failedToListen(address: string, error: unknown): CommandError {
  return failed("listen on", address, error instanceof Error ? error.cause ?? error : error);
}

/** Listens on a socket that another process has opened. */
function adopt(fd: number, { engine, keepAliveMs, nameOf }: ListenFlags): Listener {
  const what = `${nameOf("listenFd")} ${fd}`;
  try {
    return listenFd({ fd, engine, keepAliveMs });
  } catch (error) {
    if (!(error instanceof TypeError)) throw failed("use", what, error);
    throw new CommandError(`cannot use ${what}: expected a listening socket`, 2);
  }
}

/** Adds what is spoken at each socket, and the trace. */
async function wrap(bound: readonly Bound[], flags: ListenFlags, log: Log): Promise<Omit<Opened, "bound">> {
  const security = flags.tlsCert === null ? undefined : await loadSecurity(flags, log);
  const trace = flags.trace ? (listener: Listener) => withTrace(listener, traceTo(log)) : undefined;
  const wraps = { tls: security?.wrap, trace };
  const secure = new Set<string>();
  const listeners = [];
  for (const { listener, tls } of bound) {
    const proxied = flags.proxyProtocol !== null && isProxied(flags.proxyProtocol, listener.addr.transport === "tcp");
    if (tls) secure.add(formatAddr(listener.addr));
    listeners.push(await wrapListener(listener, { proxied, tls }, flags, wraps));
  }
  return { listeners, secure, reload: security?.reload };
}

function listenTcp(target: Target, { engine, keepAliveMs }: ListenFlags): Listener {
  return engine === "epoll" ? listenEpoll({ ...target, keepAliveMs }) : Deno.listen(target);
}

/**
 * Listens on the first of the host's addresses that can be bound, in the resolver's order.
 *
 * @param target The host and the port.
 * @param flags The engine.
 * @param listen Listens on one address.
 * @returns What `listen` has returned.
 * @throws {CommandError} (As a rejection.) If none can be bound.
 */
export async function bindFirst<T>(
  target: Target,
  { engine }: Pick<ListenFlags, "engine">,
  listen: (target: Target) => T,
): Promise<T> {
  const address = formatTarget(target);
  requireNet("listen on", address);
  const errors: unknown[] = [];
  try {
    for (const hostname of await addressesOf(engine, target)) {
      try {
        return listen({ hostname, port: target.port });
      } catch (error) {
        errors.push(error);
      }
    }
  } catch (error) {
    // The host is unknown.
    errors.push(error);
  }
  // "Address in use" tells the user more than that the machine lacks another of the addresses.
  throw failedToListen(address, errors.find((error) => error instanceof Deno.errors.AddrInUse) ?? errors[0]);
}

/**
 * The addresses of a host in the resolver's order, which is that of the hosts file or of RFC 6724.
 *
 * If only the name itself is permitted, as with `--allow-net=localhost:8080`, the result is the name: Deno looks it up
 * when it listens, and takes the first address.
 */
async function addressesOf(engine: ListenFlags["engine"], { hostname, port }: Target): Promise<string[]> {
  if (isIP(hostname)) return [hostname];
  if (mayUse(hostname)) {
    const found = await lookup(hostname, { all: true, order: "verbatim" });
    const addresses = found.map(({ address }) => address);
    if (engine === "epoll" || addresses.every((address) => mayUse(formatTarget({ hostname: address, port })))) {
      return addresses;
    }
  }
  if (engine === "deno") return [hostname];
  throw new Error(`no permission to look it up, which --allow-net=${hostname} grants`);
}

/** Whether the permission for a host is granted, so that Deno will not prompt for it. */
function mayUse(host: string): boolean {
  return Deno.permissions.querySync({ name: "net", host }).state === "granted";
}
