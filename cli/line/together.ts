/**
 * Flags of the server that mean nothing without others, or that cancel each other.
 *
 * @module
 */

import { CommandError } from "../errors.ts";
import { flagName, type SERVE } from "./flags.ts";
import type { Values } from "./parse.ts";
import { UPGRADE } from "../process/descriptors.ts";
import { canProxy, isTcp, type Place, placesOf } from "./places.ts";

type ServeValues = Values<typeof SERVE.flags>;

/**
 * Throws if a flag has no meaning without another that is missing, or contradicts another.
 *
 * @param values The flags' values.
 * @param given The options that flags or variables set.
 * @param written The options that flags set. Where a variable only has no effect, it is no mistake: it can be there for
 * other servers of the same machine.
 * @throws {CommandError} With exit code 2.
 */
export function checkTogether(values: ServeValues, given: ReadonlySet<string>, written: ReadonlySet<string>): void {
  const { engine, tlsCert, tlsKey, tlsClientCa, tlsPort, unix, proxyProtocol } = values;
  checkPair(tlsKey !== null && tlsCert === null, "tlsKey", "without", "tlsCert");
  checkPair(tlsClientCa !== null && tlsCert === null, "tlsClientCa", "without", "tlsCert");
  checkPair(tlsPort !== null && tlsCert === null, "tlsPort", "without", "tlsCert");
  checkPair(written.has("tlsHandshakeTimeout") && tlsCert === null, "tlsHandshakeTimeout", "without", "tlsCert");
  checkPair(written.has("unixMode") && unix === null, "unixMode", "without", "unix");
  checkPair(engine === "epoll" && unix !== null, "engine epoll", "with", "unix");
  checkChild(values, written);
  checkDescriptors(values, given);
  checkWorkers(values);
  checkUpgrade(values, written);
  const places = placesOf(values, given);
  checkPorts(places);
  checkProxies(proxyProtocol, places);
  checkPair(
    written.has("proxyHeaderTimeout") && proxyProtocol === null,
    "proxyHeaderTimeout",
    "without",
    "proxyProtocol",
  );
  for (const option of ["adminTokenFile", "adminHost"]) {
    checkPair(written.has(option) && values.admin === null, option, "without", "admin");
  }
  checkCancelled(values, places, written);
  checkSpread(values);
}

function checkSpread({ drainSpread, drainTimeout }: ServeValues): void {
  if (drainSpread <= drainTimeout) return;
  const flags = `--drain-spread ${drainSpread}ms with --drain-timeout ${drainTimeout}ms`;
  throw new CommandError(`cannot use ${flags}: expected a spread of at most the timeout`, 2);
}

function checkPorts(places: readonly Place[]): void {
  const [first, second] = places.filter(({ port }) => port !== undefined);
  if (second === undefined || first.port !== second.port || first.port === 0) return;
  throw new CommandError(`cannot use --port ${first.port} with --tls-port ${second.port}: expected two ports`, 2);
}

/** Throws if the word for the new process of an upgrade is not there as the old one writes it, with descriptors. */
function checkChild({ upgrade, listenFd }: ServeValues, written: ReadonlySet<string>): void {
  if (upgrade !== "child" || written.has("upgrade") && written.has("listenFd") && Array.isArray(listenFd)) return;
  throw new CommandError(`cannot use --upgrade "child": expected ${UPGRADE.allowed}`, 2);
}

/** Throws if descriptors are to be listened on, and other places too. */
function checkDescriptors({ listenFd, tlsCert, upgrade }: ServeValues, given: ReadonlySet<string>): void {
  if (listenFd === null) return;
  const secure = listenFd === "systemd" ? undefined : listenFd.find(({ tls }) => tls);
  checkPair(tlsCert === null && secure !== undefined, `listenFd ${secure?.fd}:tls`, "without", "tlsCert");
  // The new process of an upgrade gets the sockets, and the old one's flags.
  if (upgrade === "child") return;
  for (const other of ["hostname", "port", "tlsPort", "unix"]) {
    checkPair(given.has(other), "listenFd", "with", other);
  }
}

/** Throws if workers cannot do what another flag asks for. */
function checkWorkers({ workers, unix, trace, listenFd, upgrade }: ServeValues): void {
  if (workers === null) return;
  checkPair(unix !== null, "workers", "with", "unix");
  checkPair(trace, "workers", "with", "trace");
  checkPair(listenFd !== null, "workers", "with", "listenFd");
  checkPair(upgrade !== "off", "workers", "with", "upgrade");
}

/** Throws if there can be no upgrade: the sockets of `Deno.listen` cannot be handed on. */
function checkUpgrade({ upgrade, engine, listenFd }: ServeValues, written: ReadonlySet<string>): void {
  if (!written.has("upgrade") || upgrade === "off" || engine === "epoll" || listenFd !== null) return;
  throw new CommandError("cannot use --upgrade without --engine epoll or --listen-fd: expected one of them", 2);
}

/** Throws if no peer can be on the list, wherever the command listens. */
function checkProxies(proxies: ServeValues["proxyProtocol"], places: readonly Place[]): void {
  if (proxies === null || places.some((place) => canProxy(proxies, place))) return;
  const flags = (relation: string) => `cannot use --proxy-protocol ${proxies.join(",")} ${relation} --unix`;
  if (places.some(isTcp)) throw new CommandError(`${flags("without")}: expected both`, 2);
  throw new CommandError(`${flags("with")}: expected unix in the list`, 2);
}

/** Throws if a flag has no effect because of another one. */
function checkCancelled(values: ServeValues, places: readonly Place[], written: ReadonlySet<string>): void {
  const { logLevel, maxConnections, trace } = values;
  if (!places.some(isTcp)) {
    const option = ["hostname", "keepAliveMs"].find((option) => written.has(option));
    // A user who gives an address expects that the server listens there.
    if (option !== undefined) throw cancelled(option, "--unix alone", "--port, too");
  }
  if (written.has("atCapacity") && maxConnections === Infinity) {
    throw cancelled("atCapacity", "--max-connections off", "a number of connections");
  }
  if (trace && (logLevel === "warn" || logLevel === "error")) {
    throw cancelled("trace", `--log-level ${logLevel}`, "debug or info");
  }
}

function cancelled(option: string, other: string, expected: string): CommandError {
  return new CommandError(`cannot use --${flagName(option)} with ${other}: expected ${expected}`, 2);
}

function checkPair(wrong: boolean, option: string, relation: "with" | "without", other: string): void {
  if (!wrong) return;
  const expected = relation === "with" ? "one of them" : "both";
  const flags = `--${flagName(option)} ${relation} --${flagName(other)}`;
  throw new CommandError(`cannot use ${flags}: expected ${expected}`, 2);
}
