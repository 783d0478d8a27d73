/**
 * Where the server's connections come from, as the flags say.
 *
 * @module
 */

import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { closeQuietly, type Listener } from "../internal/transport.ts";
import { listenEpoll } from "../ops/epoll.ts";
import { proxyProtocol } from "../ops/proxy_protocol.ts";
import { listenUnix } from "../ops/unix.ts";
import { CommandError } from "./errors.ts";
import { giveUpFiles, requireFile } from "./files.ts";
import { flagName, type SERVE } from "./flags.ts";
import type { Target } from "./kinds.ts";
import type { Log } from "./log.ts";
import { failed, formatTarget, requireNet } from "./net.ts";
import type { Values } from "./parse.ts";
import { secure, type TlsFlags } from "./tls.ts";

/** The flags about it. */
export type Listening =
  & TlsFlags
  & Pick<
    Values<typeof SERVE.flags>,
    "engine" | "hostname" | "port" | "unix" | "unixMode" | "proxyProtocol" | "proxyHeaderTimeout"
  >;

/** A listener, and what to do at SIGHUP, if anything. */
export interface Opened {
  readonly listener: Listener;
  readonly reload?: () => Promise<void>;
}

/**
 * Listens, and gives up the permissions that this took and serving does not.
 *
 * @param flags What the flags say.
 * @param log Where to tell of certificates.
 * @returns The listener.
 * @throws {CommandError} (As a rejection.) If the flags do not go together, or something is in the way.
 */
export async function openListener(flags: Listening, log: Log): Promise<Opened> {
  checkTogether(flags);
  if (flags.unix === null) giveUpFiles("write");
  if (flags.unix === null && flags.tlsCert === null) giveUpFiles("read");
  const { proxyProtocol: from, proxyHeaderTimeout: headerTimeout } = flags;
  const bound = await bind(flags, log);
  // What this took of the C library is loaded.
  Deno.permissions.revokeSync({ name: "ffi" });
  const listener = from === null ? bound : proxyProtocol(bound, { from, headerTimeout });
  try {
    return flags.tlsCert === null ? { listener } : await secure(listener, flags, log);
  } catch (error) {
    // A socket's file would stay otherwise.
    closeQuietly(listener);
    throw error;
  } finally {
    giveUpFiles("write");
    // A new certificate is read again.
    if (flags.tlsCert === null) giveUpFiles("read");
  }
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

/** Asks the kernel itself where that is wanted, or possible. */
async function listenTcp(engine: Listening["engine"], { hostname, port }: Target, log: Log): Promise<Listener> {
  let listener: Listener | undefined;
  try {
    if (engine !== "deno") listener = listenEpoll({ hostname: await addressOf(hostname), port });
  } catch (error) {
    // If it is not that it cannot be done by epoll, Deno cannot do it either, and says why as ever.
    if (engine === "epoll") throw error;
  }
  log.write("debug", () => `engine is ${listener === undefined ? "deno" : "epoll"}`);
  return listener ?? Deno.listen({ hostname, port });
}

/** A host's address, if Deno does not have to ask whether it may be looked up. */
async function addressOf(hostname: string): Promise<string> {
  if (isIP(hostname)) return hostname;
  const { state } = Deno.permissions.querySync({ name: "net", host: hostname });
  if (state !== "granted") throw new Error(`no permission to look it up, which --allow-net=${hostname} grants`);
  return (await lookup(hostname)).address;
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
