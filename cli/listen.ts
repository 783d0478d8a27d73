/**
 * Where the server's connections come from, as the flags say.
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

/** The flags about it. */
export type Listening =
  & TlsFlags
  & Pick<
    Values<typeof SERVE.flags>,
    "engine" | "hostname" | "port" | "unix" | "unixMode" | "proxyProtocol" | "proxyHeaderTimeout" | "telnet"
  >;

/** A listener, and what to do at SIGHUP, if anything. */
export interface Opened {
  readonly listener: Listener;
  readonly reload?: () => Promise<void>;
}

/**
 * Listens, and gives up the permissions that listening takes and serving does not.
 *
 * @param flags What the flags say.
 * @param log Where to tell of certificates.
 * @returns The listener.
 * @throws {CommandError} (As a rejection.) If the flags do not go together, or something is in the way.
 */
export async function openListener(flags: Listening, log: Log): Promise<Opened> {
  checkTogether(flags);
  const bound = await bind(flags, log);
  const { proxyProtocol: from, proxyHeaderTimeout: headerTimeout } = flags;
  const listener = from === null ? bound : proxyProtocol(bound, { from, headerTimeout });
  try {
    const opened: Opened = flags.tlsCert === null ? { listener } : await secure(listener, flags, log);
    return flags.telnet ? { ...opened, listener: withTelnet(opened.listener) } : opened;
  } catch (error) {
    // A socket's file would stay otherwise.
    closeQuietly(listener);
    throw error;
  } finally {
    // SIGHUP has the certificate's files read again.
    keepOnly(...flags.tlsCert === null ? [] : ["read"] as const);
  }
}

/** Names the permissions that {@linkcode openListener} can use with these flags. */
export function neededToListen({ engine, unix, tlsCert }: Listening): PermissionName[] {
  const needed: PermissionName[] = ["net"];
  // `sys` lets a Unix socket's file have its mode bits from the start, by the umask.
  if (unix !== null) needed.push("read", "write", "sys");
  if (tlsCert !== null) needed.push("read");
  if (engine === "epoll") needed.push("ffi");
  return needed;
}

async function bind({ engine, hostname, port, unix, unixMode }: Listening, log: Log): Promise<Listener> {
  const address = unix === null ? formatTarget({ hostname, port }) : `unix:${unix}`;
  requireNet("listen on", address);
  if (unix !== null) requireFile(`listen on ${address}`, unix, ["read", "write"]);
  try {
    return unix === null
      ? await listenTcp(engine, { hostname, port }, log)
      : await listenUnix({ path: unix, mode: unixMode });
  } catch (error) {
    throw failed(
      "listen on",
      address,
      error instanceof Deno.errors.AlreadyExists ? "there is a file that is not a socket" : error,
    );
  }
}

/** Listens on the first of the host's addresses that can be bound, in the order in which the resolver gives them. */
async function listenTcp(engine: Listening["engine"], { hostname, port }: Target, log: Log): Promise<Listener> {
  log.write("debug", () => `engine is ${engine}`);
  const listen: (target: Target) => Listener = engine === "epoll" ? listenEpoll : Deno.listen;
  const errors: unknown[] = [];
  for (const address of await addressesOf(engine, { hostname, port })) {
    try {
      return listen({ hostname: address, port });
    } catch (error) {
      errors.push(error);
    }
  }
  // That an address is taken says more than that the machine lacks another one.
  throw errors.find((error) => error instanceof Deno.errors.AddrInUse) ?? errors[0];
}

/**
 * The addresses of a host, in the order in which the resolver gives them, which is the hosts file's or RFC 6724's.
 *
 * Where only the name itself may be listened on, as with `--allow-net=localhost:8080`, Deno has to look it up, and takes
 * the first address.
 */
async function addressesOf(engine: Listening["engine"], { hostname, port }: Target): Promise<string[]> {
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

/** Whether a host is allowed without Deno's asking on the terminal. */
function mayUse(host: string): boolean {
  return Deno.permissions.querySync({ name: "net", host }).state === "granted";
}

/** Refuses flags that say nothing without another, or contradict it. */
function checkTogether({ engine, tlsCert, tlsKey, tlsClientCa, unix, unixMode, proxyProtocol }: Listening): void {
  checkPair(tlsKey !== null && tlsCert === null, "tlsKey", "without", "tlsCert");
  checkPair(tlsClientCa !== null && tlsCert === null, "tlsClientCa", "without", "tlsCert");
  checkPair(unixMode !== undefined && unix === null, "unixMode", "without", "unix");
  checkPair(engine === "epoll" && unix !== null, "engine epoll", "with", "unix");
  checkProxies(proxyProtocol, unix);
}

/** A peer on a Unix socket has no address that could be on the list, and one on TCP has one. */
function checkProxies(proxies: Listening["proxyProtocol"], unix: string | null): void {
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
