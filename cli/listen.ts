/**
 * Opens the server's listener, with the wrappers that the flags ask for.
 *
 * @module
 */

import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { closeQuietly, type Listener } from "../internal/api/transport.ts";
import { listenEpoll } from "../ops/epoll/epoll.ts";
import { proxyProtocol } from "../ops/proxy/protocol.ts";
import { withTelnet } from "../ops/telnet/telnet.ts";
import { listenUnix } from "../ops/unix.ts";
import { CommandError } from "./errors.ts";
import { requireFile } from "./files.ts";
import { flagName, type SERVE } from "./flags.ts";
import type { Target } from "./kinds.ts";
import type { Log } from "./log.ts";
import { failed, formatTarget, requireNet } from "./net.ts";
import type { Values } from "./parse.ts";
import { keepOnly, type PermissionName } from "./permissions.ts";
import { secure, type TlsFlags } from "./tls.ts";

/** The values of the flags about listening. */
export type ListenFlags =
  & TlsFlags
  & Pick<
    Values<typeof SERVE.flags>,
    | "engine"
    | "hostname"
    | "port"
    | "keepAliveMs"
    | "unix"
    | "unixMode"
    | "proxyProtocol"
    | "proxyHeaderTimeout"
    | "telnet"
  >;

/** An open listener. */
export interface Opened {
  readonly listener: Listener;
  /** Reloads the certificate; called at SIGHUP. */
  readonly reload?: () => Promise<void>;
}

/**
 * Listens, and gives up the permissions that serving does not need.
 *
 * @param flags The flags' values.
 * @param log The log, for messages about certificates.
 * @returns The listener.
 * @throws {CommandError} (As a rejection.) If the flags contradict each other, or listening fails.
 */
export async function openListener(flags: ListenFlags, log: Log): Promise<Opened> {
  checkTogether(flags);
  const bound = await bind(flags, log);
  const { proxyProtocol: from, proxyHeaderTimeout: headerTimeout } = flags;
  const listener = from === null ? bound : proxyProtocol(bound, { from, headerTimeout });
  try {
    const opened: Opened = flags.tlsCert === null ? { listener } : await secure(listener, flags, log);
    return flags.telnet ? { ...opened, listener: withTelnet(opened.listener) } : opened;
  } catch (error) {
    // A Unix socket's file would stay otherwise.
    closeQuietly(listener);
    throw error;
  } finally {
    // SIGHUP reads the certificate's files again.
    keepOnly(...flags.tlsCert === null ? [] : ["read"] as const);
  }
}

/** The permissions that {@linkcode openListener} can use with these flags. */
export function neededToListen({ engine, unix, tlsCert }: ListenFlags): PermissionName[] {
  const needed: PermissionName[] = ["net"];
  // With `sys`, the umask gives a Unix socket's file its mode from the start.
  if (unix !== null) needed.push("read", "write", "sys");
  if (tlsCert !== null) needed.push("read");
  if (engine === "epoll") needed.push("ffi");
  return needed;
}

async function bind(flags: ListenFlags, log: Log): Promise<Listener> {
  const { hostname, port, unix, unixMode } = flags;
  const address = unix === null ? formatTarget({ hostname, port }) : `unix:${unix}`;
  requireNet("listen on", address);
  if (unix !== null) requireFile(`listen on ${address}`, unix, ["read", "write"]);
  try {
    return unix === null ? await listenTcp(flags, log) : await listenUnix({ path: unix, mode: unixMode });
  } catch (error) {
    throw failed(
      "listen on",
      address,
      error instanceof Deno.errors.AlreadyExists ? "there is a file that is not a socket" : error,
    );
  }
}

/** Listens on the first of the host's addresses that can be bound, in the resolver's order. */
async function listenTcp({ engine, hostname, port, keepAliveMs }: ListenFlags, log: Log): Promise<Listener> {
  log.write("debug", () => `engine is ${engine}`);
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

/** Throws if a flag has no meaning without another that is missing, or contradicts another. */
function checkTogether({ engine, tlsCert, tlsKey, tlsClientCa, unix, unixMode, proxyProtocol }: ListenFlags): void {
  checkPair(tlsKey !== null && tlsCert === null, "tlsKey", "without", "tlsCert");
  checkPair(tlsClientCa !== null && tlsCert === null, "tlsClientCa", "without", "tlsCert");
  checkPair(unixMode !== undefined && unix === null, "unixMode", "without", "unix");
  checkPair(engine === "epoll" && unix !== null, "engine epoll", "with", "unix");
  checkProxies(proxyProtocol, unix);
}

/** Throws if no peer can be on the list: on a Unix socket peers have no address, and on TCP each has one. */
function checkProxies(proxies: ListenFlags["proxyProtocol"], unix: string | null): void {
  if (proxies === null) return;
  const flags = (relation: string) => `cannot use --proxy-protocol ${proxies.join(",")} ${relation} --unix`;
  const count = proxies.filter((proxy) => proxy.trim() === "unix").length;
  if (unix !== null && count === 0) throw new CommandError(`${flags("with")}: expected unix in the list`, 2);
  if (unix === null && count === proxies.length) throw new CommandError(`${flags("without")}: expected both`, 2);
}

function checkPair(wrong: boolean, option: string, relation: "with" | "without", other: string): void {
  if (!wrong) return;
  const expected = relation === "with" ? "one of them" : "both";
  const flags = `--${flagName(option)} ${relation} --${flagName(other)}`;
  throw new CommandError(`cannot use ${flags}: expected ${expected}`, 2);
}
