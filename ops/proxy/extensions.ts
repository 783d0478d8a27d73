/**
 * Parses the extensions of a PROXY header of version 2, which the specification calls TLVs: values that follow the
 * addresses, each with a type and a length. Pure functions: bytes in; what the proxy has said or an error out.
 *
 * @module
 */

import type { ProxyInfo } from "../../internal/api/transport.ts";
import { malformed } from "./errors.ts";

/** The types of extensions that are understood; the names are those of the specification, without `PP2_TYPE_`. */
const AUTHORITY = 0x02;
const CRC32C = 0x03;
const SSL = 0x20;
const SSL_CN = 0x22;

/** The type of Amazon's extension, and the first byte of its value if the identifier of a VPC endpoint follows. */
const AWS = 0xEA;
const AWS_ENDPOINT = 0x01;

/** Size in bytes of what precedes the extensions within the one about TLS: a byte of flags, four of the verification. */
const SSL_BYTES = 5;

/** What a header without extensions says. All such connections share it. */
export const NO_EXTENSIONS: ProxyInfo = { tlvs: new Map() };

type Value = Uint8Array<ArrayBuffer>;

/** One extension, and where its value begins in the bytes that it was split from. */
interface Extension {
  readonly type: number;
  readonly at: number;
  readonly value: Value;
}

/**
 * Parses the extensions of a header, and verifies its checksum if it has one. A second checksum is refused: verifying one
 * reads the whole header, which has room for hundreds of them.
 *
 * @param header The whole header, and nothing after it.
 * @param start The index of the first extension.
 * @returns What the extensions say.
 * @throws {ProxyHeaderError} If a value is cut off, or the checksum is wrong.
 */
export function readExtensions(header: Uint8Array, start: number): ProxyInfo {
  if (start === header.length) return NO_EXTENSIONS;
  const [own, withinTls, tlvs] = [new Map<number, Value>(), new Map<number, Value>(), new Map<number, Value>()];
  for (const { type, at, value } of split(header, start)) {
    if (type === CRC32C) {
      if (own.has(type)) throw malformed("two checksums");
      checkSum(header, at, value);
    }
    const within = type === SSL ? splitTls(value) : [];
    // Of a type that comes twice the first value counts, so those within a second one about TLS are left out, too.
    if (own.has(type)) continue;
    add(own, type, value);
    add(tlvs, type, value);
    for (const { type, value } of within) {
      add(withinTls, type, value);
      add(tlvs, type, value);
    }
  }
  return { ...textsOf(own, withinTls), tlvs };
}

function add(values: Map<number, Value>, type: number, value: Value): void {
  if (!values.has(type)) values.set(type, value);
}

/**
 * Splits bytes into extensions, up to the first that is cut off. It copies each value, so that a handler that keeps one
 * keeps no more than that.
 */
function* split(bytes: Uint8Array, start: number): Generator<Extension, void> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = start; at < bytes.length;) {
    const length = at + 3 <= bytes.length ? view.getUint16(at + 1) : Infinity;
    const end = at + 3 + length;
    if (end > bytes.length) throw malformed("a value that is cut off");
    yield { type: bytes[at], at: at + 3, value: bytes.slice(at + 3, end) };
    at = end;
  }
}

function splitTls(value: Value): Extension[] {
  if (value.length < SSL_BYTES) throw malformed(`a value about TLS of ${value.length} bytes`);
  return [...split(value, SSL_BYTES)];
}

/** The values that are text. A certificate that the proxy could not verify may name anybody, so its name is left out. */
function textsOf(own: Map<number, Value>, withinTls: Map<number, Value>): Omit<ProxyInfo, "tlvs"> {
  const authority = textOf(own.get(AUTHORITY));
  const verified = own.get(SSL)?.subarray(1, SSL_BYTES).every((byte) => byte === 0);
  const tlsClientName = verified ? textOf(withinTls.get(SSL_CN)) : undefined;
  const aws = own.get(AWS);
  const awsEndpointId = aws?.[0] === AWS_ENDPOINT ? textOf(aws.subarray(1)) : undefined;
  return {
    ...(authority !== undefined && { authority }),
    ...(tlsClientName !== undefined && { tlsClientName }),
    ...(awsEndpointId !== undefined && { awsEndpointId }),
  };
}

function textOf(bytes: Uint8Array | undefined): string | undefined {
  try {
    return bytes && new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    // It is no text. The bytes themselves are there for the handler that knows what they are.
    return undefined;
  }
}

/** Verifies the checksum, which was computed over the header with zeros in the checksum's own place. */
function checkSum(header: Uint8Array, at: number, sum: Value): void {
  if (sum.length !== 4) throw malformed(`a checksum of ${sum.length} bytes`);
  const summed = header.slice().fill(0, at, at + sum.length);
  if (crc32c(summed) !== new DataView(sum.buffer).getUint32(0)) throw malformed("a checksum that is wrong");
}

/** The remainder of each byte, by the polynomial 0x1EDC6F41 with its bits reversed. */
const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? byte >>> 1 ^ 0x82F63B78 : byte >>> 1;
  return byte;
});

/**
 * Computes a CRC32C (RFC 4960, appendix B), the checksum of version 2.
 *
 * @param bytes The bytes to sum up.
 * @returns The checksum, an unsigned 32-bit number.
 */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xFFFFFFFF;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >>> 8;
  return ~crc >>> 0;
}
