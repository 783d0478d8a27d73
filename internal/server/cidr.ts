/**
 * IP addresses, and lists of addresses and networks. The arithmetic is `node:net`'s `BlockList`, which Deno has built in.
 *
 * @module
 */

import type { BlockList } from "node:net";
import { show } from "../api/check.ts";

/** An IPv6 address that maps an IPv4 address (RFC 4291, 2.5.5.2), in any notation, with a zone or without one. */
const MAPPED = /^(?:::|(?:0{1,4}:){5})ffff:(?:(\d+\.\d+\.\d+\.\d+)|([\da-f]{1,4}):([\da-f]{1,4}))(?:%.*)?$/i;

/**
 * The IPv4 address that an IPv6 address maps; a listener on `::` reports the peers that connect over IPv4 so.
 *
 * @param hostname An address, such as `::ffff:10.0.0.1` or `::ffff:a00:1`.
 * @returns Such as `10.0.0.1`; `undefined` if the address maps none.
 */
export function mappedIPv4(hostname: string): string | undefined {
  const [, dotted, high, low] = MAPPED.exec(hostname) ?? [];
  if (low === undefined) return dotted;
  const [a, b] = [high, low].map((half) => parseInt(half, 16));
  return `${a >> 8}.${a & 255}.${b >> 8}.${b & 255}`;
}

/**
 * The address that lists and limits compare: without its zone, which says what interface leads there (`%eth0`), and as
 * IPv4 if it maps an IPv4 address.
 *
 * @param hostname An IP address.
 * @returns The address.
 */
export function bareIp(hostname: string): string {
  return hostname.includes(":") ? mappedIPv4(hostname) ?? hostname.split("%", 1)[0] : hostname;
}

/**
 * The part of an address that stands for one client: an IPv4 address whole, of an IPv6 address the /64, since a client
 * that has one address of it has all of them.
 *
 * @param hostname An IP address.
 * @returns The part.
 */
export function clientOf(hostname: string): string {
  const address = bareIp(hostname);
  if (!address.includes(":")) return address;
  const [head, tail] = address.toLowerCase().split("::").map((part) => part.split(":").filter((group) => group !== ""));
  const groups = tail === undefined
    ? head
    : [...head, ...Array(Math.max(0, 8 - head.length - tail.length)).fill("0"), ...tail];
  return groups.slice(0, 4).map((group) => group.replace(/^0+(?=.)/, "")).join(":") + "::/64";
}

/** Addresses and networks, to hold peers against. */
export class Cidrs {
  readonly #list: BlockList;

  constructor(list: BlockList) {
    this.#list = list;
  }

  /**
   * Whether an address is one of these, or in one of them. IPv4 that came through an IPv6 socket counts as IPv4,
   * and a zone such as `%eth0` does not count.
   *
   * @param addr A peer's address; one that is no IP address, such as a Unix socket's, never matches.
   * @returns Whether it matches.
   */
  matches(addr: Deno.Addr): boolean {
    if (!("hostname" in addr)) return false;
    const hostname = bareIp(addr.hostname);
    return this.#list.check(hostname, familyOf(hostname));
  }
}

/**
 * Reads a list of addresses and networks.
 *
 * @param name What the list is called, for the error.
 * @param list Such as `127.0.0.1,10.0.0.0/8,::1`, or the same in parts.
 * @returns The list.
 * @throws {TypeError | RangeError} If it is wrong; the message names the part that is.
 */
export function parseCidrs(name: string, list: string | readonly string[]): Cidrs {
  if (typeof list !== "string" && !Array.isArray(list)) {
    throw new TypeError(`Cannot use ${name} ${show(list)}: expected a string, or an array of them`);
  }
  const blocks = newBlockList();
  for (const part of typeof list === "string" ? list.split(",") : list) add(blocks, name, part);
  return new Cidrs(blocks);
}

/**
 * Reads a list of peers: addresses, networks, and the word `unix` for every peer on a Unix socket, which has no address.
 *
 * @param name What the list is called, for the error.
 * @param list Such as `127.0.0.1,10.0.0.0/8,unix`, or the same in parts.
 * @returns Whether a peer's address is one of these.
 * @throws {TypeError | RangeError} If it is wrong; the message names the part that is.
 */
export function parsePeers(name: string, list: string | readonly string[]): (addr: Deno.Addr) => boolean {
  const parts = typeof list === "string" ? list.split(",") : list;
  const isUnix = (part: unknown) => typeof part === "string" && part.trim() === "unix";
  const cidrs = parseCidrs(name, Array.isArray(parts) ? parts.filter((part) => !isUnix(part)) : parts);
  const unix = parts.some(isUnix);
  return (addr) => addr.transport === "unix" ? unix : cidrs.matches(addr);
}

function add(blocks: BlockList, name: string, part: unknown): void {
  if (typeof part !== "string") throw new TypeError(`Cannot use ${name} ${show(part)}: expected a string`);
  const [address, prefix, more] = part.trim().split("/");
  const family = familyOf(address);
  const widest = family === "ipv4" ? 32 : 128;
  if (prefix !== undefined && (!/^(0|[1-9]\d{0,2})$/.test(prefix) || Number(prefix) > widest)) {
    throw new RangeError(`Cannot use ${name} "${part}": expected a whole number from 0 to ${widest} after the slash`);
  }
  try {
    if (more !== undefined) throw new SyntaxError("A second slash");
    if (prefix === undefined) blocks.addAddress(address, family);
    else blocks.addSubnet(address, Number(prefix), family);
  } catch (cause) {
    const expected = "expected an IPv4 or IPv6 address, or a network such as 10.0.0.0/8 or fd00::/8";
    throw new RangeError(`Cannot use ${name} "${part}": ${expected}`, { cause });
  }
}

function familyOf(address: string): "ipv4" | "ipv6" {
  return address.includes(":") ? "ipv6" : "ipv4";
}

/** Loads `node:net` when the first list is made: an import would cost every start 40 ms, and every process 10 MB. */
function newBlockList(): BlockList {
  const { process } = globalThis as unknown as {
    process: { getBuiltinModule(name: "node:net"): typeof import("node:net") };
  };
  return new (process.getBuiltinModule("node:net").BlockList)();
}
