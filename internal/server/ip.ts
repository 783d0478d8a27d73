/**
 * IP addresses, as far as limits and lists need them.
 *
 * @module
 */

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
