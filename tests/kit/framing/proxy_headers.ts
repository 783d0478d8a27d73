/**
 * Headers of the PROXY protocol, as a proxy would write them.
 *
 * @module
 */

import { crc32c } from "../../../ops/proxy/extensions.ts";
import { bytesOf } from "../bytes.ts";

/** The signature with which version 2 begins. */
export const SIGNATURE = "\r\n\r\n\0\r\nQUIT\n";

/** The longest line of version 1. */
export const LONGEST: string = `PROXY UNKNOWN ${"f".repeat(91)}\r\n`;

/** From 192.168.0.1:56324 to 192.168.0.11:443. */
export const TCP4: Uint8Array<ArrayBuffer> = Uint8Array.of(192, 168, 0, 1, 192, 168, 0, 11, 0xDC, 4, 1, 0xBB);

/** From [2001:db8::1]:56324 to [::ffff:192.0.2.7]:443. */
export const TCP6: Uint8Array<ArrayBuffer> = Uint8Array.of(
  ...[0x20, 1, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
  ...[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 192, 0, 2, 7],
  ...[0xDC, 4, 1, 0xBB],
);

/** Makes a header of version 2: version and command, family and transport, and everything that follows the length. */
export function binary(command: number, family: number, rest: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new TextEncoder().encode(SIGNATURE);
  return Uint8Array.of(...bytes, command, family, rest.length >> 8, rest.length & 255, ...rest);
}

/** Makes a TLV of version 2: its type, its length, and its bytes, each given as one character. */
export function value(type: number, text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.of(type, text.length >> 8, text.length & 255, ...bytesOf(text));
}

/** Makes the TLV about TLS, with TLVs within it: the client has shown a certificate, which was verified. */
export function aboutTls(...within: Uint8Array[]): Uint8Array<ArrayBuffer> {
  return value(0x20, String.fromCharCode(7, 0, 0, 0, 0, ...join(...within)));
}

/** A Unix address: a path, filled up with NULs. */
export function address(path: string, size: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(size);
  bytes.set(new TextEncoder().encode(path));
  return bytes;
}

/** Makes a header with its checksum, which is computed over the same header with zeros in its place. */
export function withChecksum(header: (sum: string) => Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const sum = crc32c(header("\0\0\0\0"));
  return header(String.fromCharCode(sum >>> 24, sum >> 16 & 255, sum >> 8 & 255, sum & 255));
}

/** Concatenates bytes. */
export function join(...parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}
