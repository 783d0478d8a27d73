/**
 * Flags that mean nothing without others, or that cancel each other.
 *
 * @module
 */

import { CommandError } from "../system/errors.ts";
import type { SERVE } from "../flags/flags.ts";
import type { Given, Naming, Values } from "./parse.ts";
import { UPGRADE } from "../flags/descriptors.ts";
import { canProxy, isTcp, type Place, placesOf } from "./places.ts";

type ServeValues = Values<typeof SERVE.flags>;

/** What was given besides the values. */
type Together = Pick<Given<typeof SERVE.flags>, "given" | "written" | "nameOf">;

/**
 * Throws if a flag has no meaning without another that is missing, or contradicts another.
 *
 * @param values The flags' values.
 * @param together The options that flags or variables set, and how each is named. Where a variable only has no effect, it
 * is no mistake: it can be there for other servers of the same machine.
 * @throws {CommandError} With exit code 2.
 */
export function checkTogether(values: ServeValues, together: Together): void {
  const { engine, tlsCert, tlsKey, tlsClientCa, tlsPort, unix, proxyProtocol } = values;
  const { given, written, nameOf } = together;
  const check = checkOf(nameOf);
  check(tlsKey !== null && tlsCert === null, "tlsKey", "without", "tlsCert");
  check(tlsClientCa !== null && tlsCert === null, "tlsClientCa", "without", "tlsCert");
  check(tlsPort !== null && tlsCert === null, "tlsPort", "without", "tlsCert");
  check(written.has("tlsHandshakeTimeout") && tlsCert === null, "tlsHandshakeTimeout", "without", "tlsCert");
  check(written.has("unixMode") && unix === null, "unixMode", "without", "unix");
  check(engine === "epoll" && unix !== null, "engine", "with", "unix", " epoll");
  checkChild(values, together);
  checkDescriptors(values, given, check);
  checkWorkers(values, check);
  checkUpgrade(values, written);
  const places = placesOf(values, given);
  checkPorts(places, nameOf);
  checkProxies(proxyProtocol, places, nameOf);
  check(
    written.has("proxyHeaderTimeout") && proxyProtocol === null,
    "proxyHeaderTimeout",
    "without",
    "proxyProtocol",
  );
  for (const option of ["adminTokenFile", "adminHost"]) {
    check(written.has(option) && values.admin === null, option, "without", "admin");
  }
  checkCancelled(values, places, together);
  checkSpread(values, nameOf);
}

function checkSpread({ drainSpread, drainTimeout }: ServeValues, nameOf: Naming): void {
  if (drainSpread <= drainTimeout) return;
  const flags = `${nameOf("drainSpread")} ${drainSpread}ms with ${nameOf("drainTimeout")} ${drainTimeout}ms`;
  throw new CommandError(`cannot use ${flags}: expected a spread of at most the timeout`, 2);
}

function checkPorts(places: readonly Place[], nameOf: Naming): void {
  const [first, second] = places.filter(({ port }) => port !== undefined);
  if (second === undefined || first.port !== second.port || first.port === 0) return;
  const flags = `${nameOf("port")} ${first.port} with ${nameOf("tlsPort")} ${second.port}`;
  throw new CommandError(`cannot use ${flags}: expected two ports`, 2);
}

/** Throws if the word for the new process of an upgrade is not there as the old one writes it, with descriptors. */
function checkChild({ upgrade, listenFd }: ServeValues, { written, nameOf }: Together): void {
  if (upgrade !== "child" || written.has("upgrade") && written.has("listenFd") && Array.isArray(listenFd)) return;
  throw new CommandError(`cannot use ${nameOf("upgrade")} "child": expected ${UPGRADE.allowed}`, 2);
}

/** Throws if descriptors are to be listened on, and other places too. */
function checkDescriptors(
  { listenFd, tlsCert, upgrade }: ServeValues,
  given: ReadonlySet<string>,
  check: Check,
): void {
  if (listenFd === null) return;
  const secure = listenFd === "systemd" ? undefined : listenFd.find(({ tls }) => tls);
  check(tlsCert === null && secure !== undefined, "listenFd", "without", "tlsCert", ` ${secure?.fd}:tls`);
  // The new process of an upgrade gets the sockets, and the old one's flags.
  if (upgrade === "child") return;
  for (const other of ["hostname", "port", "tlsPort", "unix"]) {
    check(given.has(other), "listenFd", "with", other);
  }
}

/** Throws if workers cannot do what another flag asks for. */
function checkWorkers({ workers, unix, trace, listenFd, upgrade }: ServeValues, check: Check): void {
  if (workers === null) return;
  check(unix !== null, "workers", "with", "unix");
  check(trace, "workers", "with", "trace");
  check(listenFd !== null, "workers", "with", "listenFd");
  check(upgrade !== "off", "workers", "with", "upgrade");
}

/** Throws if there can be no upgrade: the sockets of `Deno.listen` cannot be handed on. */
function checkUpgrade({ upgrade, engine, listenFd }: ServeValues, written: ReadonlySet<string>): void {
  if (!written.has("upgrade") || upgrade === "off" || engine === "epoll" || listenFd !== null) return;
  throw new CommandError("cannot use --upgrade without --engine epoll or --listen-fd: expected one of them", 2);
}

/** Throws if no peer can be on the list, wherever the command listens. */
function checkProxies(proxies: ServeValues["proxyProtocol"], places: readonly Place[], nameOf: Naming): void {
  if (proxies === null || places.some((place) => canProxy(proxies, place))) return;
  const what = `${nameOf("proxyProtocol")} ${proxies.join(",")}`;
  const flags = (relation: string) => `cannot use ${what} ${relation} ${nameOf("unix")}`;
  if (places.some(isTcp)) throw new CommandError(`${flags("without")}: expected both`, 2);
  throw new CommandError(`${flags("with")}: expected unix in the list`, 2);
}

/** Throws if a flag has no effect because of another one. */
function checkCancelled(values: ServeValues, places: readonly Place[], { written, nameOf }: Together): void {
  const { logLevel, maxConnections, trace } = values;
  const cancelled = (option: string, other: string, expected: string) =>
    new CommandError(`cannot use ${nameOf(option)} with ${other}: expected ${expected}`, 2);
  if (!places.some(isTcp)) {
    const option = ["hostname", "keepAliveMs"].find((option) => written.has(option));
    // A user who gives an address expects that the server listens there.
    if (option !== undefined) throw cancelled(option, `${nameOf("unix")} alone`, "--port, too");
  }
  if (written.has("atCapacity") && maxConnections === Infinity) {
    throw cancelled("atCapacity", `${nameOf("maxConnections")} off`, "a number of connections");
  }
  if (trace && (logLevel === "warn" || logLevel === "error")) {
    throw cancelled("trace", `${nameOf("logLevel")} ${logLevel}`, "debug or info");
  }
}

/** Throws if an option, with a value that the error shows, is wrong with or without another. */
type Check = (
  wrong: boolean,
  option: string,
  relation: "with" | "without",
  other: string,
  value?: string,
) => void;

/** Makes what checks options, which it names as they were set. */
export function checkOf(nameOf: Naming): Check {
  return (wrong, option, relation, other, value = "") => {
    if (!wrong) return;
    const expected = relation === "with" ? "one of them" : "both";
    const flags = `${nameOf(option)}${value} ${relation} ${nameOf(other)}`;
    throw new CommandError(`cannot use ${flags}: expected ${expected}`, 2);
  };
}
