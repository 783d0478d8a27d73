/**
 * IP addresses, and lists of addresses and networks. The arithmetic is `node:net`'s `BlockList`, which Deno has built
 * in.
 *
 * @module
 */

import type { BlockList } from "node:net";
import { show } from "../api/check.ts";

/** Matches an IPv6 address that maps an IPv4 address (RFC 4291, 2.5.5.2), in any notation, with or without a zone. */
const MAPPED = /^(?:::|(?:0{1,4}:){5})ffff:(?:(\d+\.\d+\.\d+\.\d+)|([\da-f]{1,4}):([\da-f]{1,4}))(?:%.*)?$/i;

/**
 * Returns the IPv4 address that an IPv6 address maps. A listener on `::` reports peers that connect over IPv4 this way.
 *
 * @param hostname An address, such as `::ffff:10.0.0.1` or `::ffff:a00:1`.
 * @returns The IPv4 address, such as `10.0.0.1`; `undefined` if the address maps none.
 */
export function mappedIPv4(hostname: string): string | undefined {
  const [, dotted, high, low] = MAPPED.exec(hostname) ?? [];
  if (low === undefined) return dotted;
  const [a, b] = [high, low].map((half) => parseInt(half, 16));
  return `${a >> 8}.${a & 255}.${b >> 8}.${b & 255}`;
}

/**
 * Returns an address in the form that lists and limits compare: as IPv4 if it maps an IPv4 address, and without its
 * zone (such as `%eth0`), which names the interface that leads to it.
 *
 * @param hostname An IP address.
 * @returns The address in that form.
 */
function bareIp(hostname: string): string {
  return hostname.includes(":") ? mappedIPv4(hostname) ?? hostname.split("%", 1)[0] : hostname;
}

/**
 * Returns the part of an address that stands for one client: the whole of an IPv4 address, and the /64 of an IPv6
 * address, since a client that has one address of it usually has all of them.
 *
 * @param hostname An IP address.
 * @returns That part.
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

/** Tells whether a peer's address is on a list. */
type AddressTest = (addr: Deno.Addr) => boolean;

/**
 * Parses a list of addresses and networks. An IPv4 address that came through an IPv6 socket is compared as IPv4, and a zone
 * such as `%eth0` is ignored. The address of a Unix socket is on no list.
 *
 * @param name The list's name, for the error text.
 * @param list Addresses and networks, such as `127.0.0.1`, `10.0.0.0/8` and `::1`.
 * @returns A function that tells whether an address is on the list, or in a network on the list.
 * @throws {TypeError | RangeError} If the list is no array, or a part is wrong; the message names it.
 */
export function parseCidrs(name: string, list: readonly string[]): AddressTest {
  if (!Array.isArray(list)) throw new TypeError(`Cannot use ${name} ${show(list)}: expected an array of strings`);
  const blocks = newBlockList();
  for (const part of list) add(blocks, name, part);
  return (addr) => {
    if (!("hostname" in addr)) return false;
    const hostname = bareIp(addr.hostname);
    return blocks.check(hostname, familyOf(hostname));
  };
}

/**
 * Parses a list of peers: addresses, networks, and the word `unix`, which stands for all peers on Unix sockets.
 *
 * @param name The list's name, for the error text.
 * @param list A string such as `127.0.0.1,10.0.0.0/8,unix`, or an array of its parts.
 * @returns A function that tells whether a peer's address is on the list.
 * @throws {TypeError | RangeError} If the list is neither, or a part is wrong; the message names it.
 */
export function parsePeers(name: string, list: string | readonly string[]): AddressTest {
  if (typeof list !== "string" && !Array.isArray(list)) {
    throw new TypeError(`Cannot use ${name} ${show(list)}: expected a string, or an array of strings`);
  }
  const parts = typeof list === "string" ? list.split(",") : list;
  const isUnix = (part: unknown) => typeof part === "string" && part.trim() === "unix";
  const matches = parseCidrs(name, parts.filter((part) => !isUnix(part)));
  const unix = parts.some(isUnix);
  return (addr) => addr.transport === "unix" ? unix : matches(addr);
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
