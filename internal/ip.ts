/**
 * IP addresses, as far as limits need them.
 *
 * @module
 */

/**
 * The part of an address that stands for one client: an IPv4 address whole, of an IPv6 address the /64, since whoever
 * has one address of it has all of them. `::ffff:` before an IPv4 address, as a listener on `::` reports it, is dropped.
 *
 * @param hostname An IP address.
 * @returns The part.
 */
export function clientOf(hostname: string): string {
  if (!hostname.includes(":")) return hostname;
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(hostname)?.[1];
  if (mapped !== undefined) return mapped;
  const [address] = hostname.toLowerCase().split("%");
  const [head, tail] = address.split("::").map((part) => part.split(":").filter((group) => group !== ""));
  const groups = tail === undefined
    ? head
    : [...head, ...Array(Math.max(0, 8 - head.length - tail.length)).fill("0"), ...tail];
  return groups.slice(0, 4).map((group) => group.replace(/^0+(?=.)/, "")).join(":") + "::/64";
}
