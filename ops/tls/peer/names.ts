/**
 * Compares the names in certificates with the name that is asked for.
 *
 * `checkHost` of `node:crypto` finds no name at all in this version of Deno.
 *
 * @module
 */

import { isIP } from "node:net";
import { canonicalAddress } from "../certificates/der.ts";

const LABEL = /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/;

/**
 * Brings the name of a server into the form in which names are compared.
 *
 * @param name A host name, with or without a dot at its end, or an IP address.
 * @returns The name in lower case, without the dot; an IPv6 address in its shortest form; `undefined` if it is neither.
 */
export function canonicalName(name: string): string | undefined {
  if (isIP(name) !== 0) return name.includes("%") ? undefined : canonicalAddress(name);
  const host = name.toLowerCase().replace(/\.$/, "");
  const labels = host.split(".");
  // A name that ends in a number may be taken for an IPv4 address elsewhere, such as 127.1.
  const isName = host.length <= 253 && labels.every((label) => LABEL.test(label)) && !/^[0-9]+$/.test(labels.at(-1)!);
  return isName ? host : undefined;
}

/**
 * Whether a certificate is for a name. As RFC 9525 says, only its alternative names count, and `*` stands for exactly one
 * label, the first.
 *
 * @param altNames The certificate's alternative names, each with its type.
 * @param name The name as {@linkcode canonicalName} returns it.
 * @returns Whether one of them matches.
 */
export function isFor(altNames: readonly string[], name: string): boolean {
  if (isIP(name) !== 0) return altNames.includes(`IP Address:${name}`);
  const dot = name.indexOf(".");
  const wildcard = name.indexOf(".", dot + 1) > 0 ? `dns:*${name.slice(dot)}` : undefined;
  return altNames.map((altName) => altName.toLowerCase()).some((own) => own === `dns:${name}` || own === wildcard);
}
