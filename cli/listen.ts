/**
 * Opens the server's listeners, with the wrappers that the flags ask for.
 *
 * @module
 */

import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { closeQuietly, formatAddr, type Listener } from "../internal/api/transport.ts";
import { listenEpoll } from "../ops/epoll/epoll.ts";
import { proxyProtocol } from "../ops/proxy/protocol.ts";
import { withTrace } from "../ops/trace.ts";
import { withTelnet } from "../ops/telnet/telnet.ts";
import { listenUnix } from "../ops/unix.ts";
import { requireFile } from "./files.ts";
import type { SERVE } from "./flags.ts";
import type { Target } from "./kinds.ts";
import type { Log } from "./log.ts";
import { failed, formatTarget, requireNet } from "./net.ts";
import type { Values } from "./parse.ts";
import { canProxy, isTcp, type Place, placesOf } from "./places.ts";
import { keepOnly, type PermissionName } from "./permissions.ts";
import { loadSecurity, type TlsFlags } from "./tls.ts";
import { traceTo } from "./trace.ts";

/** The values of the flags about listening. */
export type ListenFlags =
  & TlsFlags
  & Pick<
    Values<typeof SERVE.flags>,
    | "engine"
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
  >;

/** The open listeners. */
export interface Opened {
  readonly listeners: readonly Listener[];
  /** The addresses of those that speak TLS, as the log writes them. */
  readonly secure: ReadonlySet<string>;
  /** Reloads the certificate; called at SIGHUP. */
  readonly reload?: () => Promise<void>;
}

/**
 * Listens wherever the flags say, and gives up the permissions that serving does not need.
 *
 * @param flags The flags' values.
 * @param given The options that the user has set.
 * @param log The log, for messages about certificates.
 * @returns The listeners.
 * @throws {CommandError} (As a rejection.) If listening fails anywhere.
 */
export async function openListeners(flags: ListenFlags, given: ReadonlySet<string>, log: Log): Promise<Opened> {
  const places = placesOf(flags, given);
  const bound: Listener[] = [];
  try {
    const { engine } = flags;
    if (places.some(isTcp)) log.write("debug", "engine", () => `engine is ${engine}`, () => ({ engine }));
    for (const place of places) bound.push(behindProxies(place, await bind(place, flags), flags));
    return await wrap(bound, places, flags, log);
  } catch (error) {
    // A Unix socket's file would stay otherwise.
    for (const listener of bound) closeQuietly(listener);
    throw error;
  } finally {
    // SIGHUP reads the certificate's files again.
    keepOnly(...flags.tlsCert === null ? [] : ["read"] as const);
  }
}

/** The permissions that {@linkcode openListeners} can use with these flags. */
export function neededToListen({ engine, unix, tlsCert }: ListenFlags): PermissionName[] {
  const needed: PermissionName[] = ["net"];
  // With `sys`, the umask gives a Unix socket's file its mode from the start.
  if (unix !== null) needed.push("read", "write", "sys");
  if (tlsCert !== null) needed.push("read");
  if (engine === "epoll") needed.push("ffi");
  return needed;
}

async function bind({ port, unix }: Place, flags: ListenFlags): Promise<Listener> {
  const target = { hostname: flags.hostname, port: port! };
  const address = unix === undefined ? formatTarget(target) : `unix:${unix}`;
  requireNet("listen on", address);
  if (unix !== undefined) requireFile(`listen on ${address}`, unix, ["read", "write"]);
  try {
    if (unix !== undefined) return await listenUnix({ path: unix, mode: flags.unixMode });
    return await listenTcp(target, flags);
  } catch (error) {
    throw failed(
      "listen on",
      address,
      error instanceof Deno.errors.AlreadyExists ? "there is a file that is not a socket" : error,
    );
  }
}

/** Adds the PROXY protocol where a peer can be on the list. */
function behindProxies(place: Place, listener: Listener, flags: ListenFlags): Listener {
  const { proxyProtocol: from, proxyHeaderTimeout: headerTimeout } = flags;
  return from !== null && canProxy(from, place) ? proxyProtocol(listener, { from, headerTimeout }) : listener;
}

/** Adds TLS, where it is spoken, the trace and Telnet. It replaces the elements of the list, which the caller closes after an error. */
async function wrap(listeners: Listener[], places: Place[], flags: ListenFlags, log: Log): Promise<Opened> {
  const security = flags.tlsCert === null ? undefined : await loadSecurity(flags, log);
  const secure = new Set<string>();
  for (const [i, { tls }] of places.entries()) {
    if (tls) listeners[i] = await security!.wrap(listeners[i]);
    if (tls) secure.add(formatAddr(listeners[i].addr));
    if (flags.trace) listeners[i] = withTrace(listeners[i], traceTo(log));
    if (flags.telnet) listeners[i] = withTelnet(listeners[i]);
  }
  return { listeners, secure, ...(security !== undefined && { reload: () => security.reload() }) };
}

/** Listens on the first of the host's addresses that can be bound, in the resolver's order. */
async function listenTcp({ hostname, port }: Target, { engine, keepAliveMs }: ListenFlags): Promise<Listener> {
  const listen = (target: Target): Listener =>
    engine === "epoll" ? listenEpoll({ ...target, keepAliveMs }) : Deno.listen(target);
  const errors: unknown[] = [];
  for (const address of await addressesOf(engine, { hostname, port })) {
    try {
      return listen({ hostname: address, port });
    } catch (error) {
      errors.push(error);
    }
  }
  // "Address in use" tells the user more than that the machine lacks another of the addresses.
  throw errors.find((error) => error instanceof Deno.errors.AddrInUse) ?? errors[0];
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
