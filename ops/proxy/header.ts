/**
 * Parses the header of the PROXY protocol, in which a proxy names the client that it connects for. HAProxy's
 * `proxy-protocol.txt` specifies it. Pure functions: bytes in; addresses or an error out.
 *
 * @module
 */

import { CR, LF } from "../../internal/lines/ascii.ts";
import { mappedIPv4 } from "../../internal/admission/cidr.ts";
import { escapeUnsafe, quote } from "../../internal/api/errors.ts";
import type { ProxyInfo } from "../../internal/api/transport.ts";
import { malformed, ProxyHeaderError } from "./errors.ts";
import { NO_EXTENSIONS, readExtensions } from "./extensions.ts";

/** The contents of a header. */
export interface ProxyHeader {
  /** The header's length in bytes; the client's own bytes follow. */
  readonly length: number;
  /** The two ends of the client's connection to the proxy; without them, the transport's own addresses hold. */
  readonly addresses?: {
    /** The client's address. */
    readonly remoteAddr: Deno.Addr;
    /** The address that the client connected to. */
    readonly localAddr: Deno.Addr;
  };
  /** What else the proxy says; absent if it has connected for itself and not for a client (`LOCAL` in version 2). */
  readonly proxy?: ProxyInfo;
}

/** Maximum bytes of a header. The specification says 536; the values that proxies add, such as names, can exceed that. */
export const MAX_HEADER_BYTES = 4096;

/** Maximum bytes of a header of version 1, CRLF included. */
const MAX_LINE_BYTES = 107;

const SIGNATURE = bytesOf("\r\n\r\n\0\r\nQUIT\n");
const PREFIX = bytesOf("PROXY ");
const MARKS = [SIGNATURE, ...["PROXY TCP4 ", "PROXY TCP6 ", "PROXY UNKNOWN"].map(bytesOf)];

/** Number of bytes after which {@linkcode beginsWithProxyHeader} always knows. */
export const MARK_BYTES: number = Math.max(...MARKS.map((mark) => mark.length));

/**
 * Parses a header of either version.
 *
 * @param bytes The bytes received so far, from the connection's first on.
 * @returns The header, or `undefined` while it is incomplete, which it never is at {@linkcode MAX_HEADER_BYTES}.
 * @throws {ProxyHeaderError} If the bytes are not the beginning of a valid header.
 */
export function parseProxyHeader(bytes: Uint8Array): ProxyHeader | undefined {
  if (begins(bytes, SIGNATURE) !== false) return bytes.length < 16 ? undefined : parseBinary(bytes);
  if (begins(bytes, PREFIX) !== false) return parseText(bytes);
  throw new ProxyHeaderError("No PROXY header: the connection begins with something else");
}

/**
 * Tells whether a connection begins with a header, well-formed or not.
 *
 * @param bytes The bytes received so far; {@linkcode MARK_BYTES} are enough.
 * @returns Whether it does, or `undefined` while more bytes are needed to tell.
 */
export function beginsWithProxyHeader(bytes: Uint8Array): boolean | undefined {
  const verdicts = MARKS.map((mark) => begins(bytes, mark));
  return verdicts.includes(true) || (verdicts.includes(undefined) ? undefined : false);
}

function begins(bytes: Uint8Array, mark: Uint8Array): boolean | undefined {
  const common = Math.min(bytes.length, mark.length);
  for (let i = 0; i < common; i++) if (bytes[i] !== mark[i]) return false;
  return common === mark.length ? true : undefined;
}

/** Version 1: `PROXY TCP4 192.168.0.1 192.168.0.11 56324 443`, and CRLF. */
function parseText(bytes: Uint8Array): ProxyHeader | undefined {
  const line = bytes.subarray(0, MAX_LINE_BYTES);
  const end = line.findIndex((byte) => byte === CR || byte === LF);
  if (end < 0 || end + 1 === line.length && line[end] === CR) {
    if (line.length < MAX_LINE_BYTES) return undefined;
    throw malformed(`no CRLF within ${MAX_LINE_BYTES} bytes`);
  }
  if (line[end] !== CR || line[end + 1] !== LF) throw malformed("CR or LF alone instead of CRLF");
  const length = end + 2;
  const [protocol, ...fields] = String.fromCharCode(...line.subarray(PREFIX.length, end)).split(" ");
  // The specification has receivers ignore the rest of the line.
  if (protocol === "UNKNOWN") return { length, proxy: NO_EXTENSIONS };
  const address = READERS.get(protocol);
  if (address === undefined) throw malformed(`protocol ${quote(protocol)}`);
  if (fields.length !== 4) throw malformed(`${fields.length} fields after ${protocol} instead of 4`);
  const [source, destination, sourcePort, destinationPort] = fields;
  const remoteAddr = tcp(address(source), readPort(sourcePort));
  const localAddr = tcp(readDestination(destination, address), readPort(destinationPort));
  return { length, addresses: { remoteAddr, localAddr }, proxy: NO_EXTENSIONS };
}

const READERS = new Map([["TCP4", readIPv4], ["TCP6", readIPv6]]);

function readIPv4(text: string): string {
  const parts = text.split(".");
  const decimal = parts.every((part) => /^(0|[1-9]\d{0,2})$/.test(part) && Number(part) <= 255);
  if (parts.length !== 4 || !decimal) throw malformed(`IPv4 address ${quote(text)}`);
  return text;
}

/** Checks and normalizes an IPv6 address (RFC 4291) with the URL parser; HAProxy also sends IPv4 mapped to IPv6. */
function readIPv6(text: string): string {
  const url = `http://[${text}]`;
  if (!/^[\da-f:.]+$/i.test(text) || !URL.canParse(url)) throw malformed(`IPv6 address ${quote(text)}`);
  const address = new URL(url).hostname.slice(1, -1);
  const mapped = mappedIPv4(address);
  // Deno writes a mapped address in this form.
  return mapped === undefined ? address : `::ffff:${mapped}`;
}

/**
 * Reads the destination in either family. By the specification both addresses are of the family that the header names.
 * But nginx names the client's family and writes its own address as it is: if another proxy told it the client's address
 * (`real_ip`), an IPv6 client may have come to an IPv4 address, or the reverse. The client's address is valid then.
 */
function readDestination(text: string, own: (text: string) => string): string {
  try {
    return own(text);
  } catch (error) {
    try {
      return own === readIPv4 ? readIPv6(text) : readIPv4(text);
    } catch {
      throw error;
    }
  }
}

function readPort(text: string): number {
  if (/^(0|[1-9]\d{0,4})$/.test(text) && Number(text) <= 65_535) return Number(text);
  throw malformed(`port ${quote(text)}`);
}

/** Version 2: signature, version and command, family and transport, length; then as many bytes as the length says. */
function parseBinary(bytes: Uint8Array): ProxyHeader | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [version, command] = nibbles(bytes[12]);
  const length = 16 + view.getUint16(14);
  if (version !== 2) throw malformed(`version ${version}`);
  if (command > 1) throw malformed(`command ${command}`);
  if (length > MAX_HEADER_BYTES) throw malformed(`${length} bytes, more than ${MAX_HEADER_BYTES}`);
  // Command 0 (LOCAL): the proxy connects for itself, as for a health check. Receivers ignore the rest.
  const form = command === 0 ? undefined : formOf(bytes[13]);
  if (form !== undefined && length < form.end) throw malformed(`${length} bytes, less than its addresses take`);
  if (bytes.length < length) return undefined;
  if (command === 0) return { length };
  // Without a family, nothing says how long the addresses are, and so where the extensions would begin.
  if (form === undefined) return { length, proxy: NO_EXTENSIONS };
  const proxy = readExtensions(bytes.subarray(0, length), form.end);
  const addresses = form.read(bytes, view);
  return { length, proxy, ...(addresses !== undefined && { addresses }) };
}

/** How the addresses of one family are encoded. */
interface Form {
  /** The index in the header behind the addresses. */
  readonly end: number;
  read(bytes: Uint8Array, view: DataView): ProxyHeader["addresses"];
}

const FORMS: Readonly<Record<number, Form>> = {
  1: {
    end: 28,
    read: (bytes, view) => ({
      remoteAddr: tcp(bytes.subarray(16, 20).join("."), view.getUint16(24)),
      localAddr: tcp(bytes.subarray(20, 24).join("."), view.getUint16(26)),
    }),
  },
  2: {
    end: 52,
    read: (_, view) => ({
      remoteAddr: tcp(ipv6At(view, 16), view.getUint16(48)),
      localAddr: tcp(ipv6At(view, 32), view.getUint16(50)),
    }),
  },
  3: {
    end: 232,
    read: (bytes) => ({ remoteAddr: unix(bytes.subarray(16, 124)), localAddr: unix(bytes.subarray(124, 232)) }),
  },
};

/** Finds the encoding of the addresses; `undefined` if the family or the transport is unspecified. */
function formOf(byte: number): Form | undefined {
  const [family, transport] = nibbles(byte);
  if (family > 3) throw malformed(`address family ${family}`);
  if (transport > 2) throw malformed(`transport ${transport}`);
  if (transport === 2) throw malformed("datagrams");
  return transport === 0 ? undefined : FORMS[family];
}

function ipv6At(view: DataView, start: number): string {
  const groups = Array.from({ length: 8 }, (_, i) => view.getUint16(start + 2 * i).toString(16));
  return readIPv6(groups.join(":"));
}

function tcp(hostname: string, port: number): Deno.NetAddr {
  return { transport: "tcp", hostname, port };
}

/** Reads a path, which ends at a NUL. An abstract socket's name begins with NUL; its path is empty here. */
function unix(bytes: Uint8Array): Deno.UnixAddr {
  const end = bytes.indexOf(0);
  const path = new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
  // The client chose the path, and logs will show it.
  if (escapeUnsafe(path) !== path) throw malformed(`path ${quote(path)}`);
  return { transport: "unix", path };
}

function nibbles(byte: number): [number, number] {
  return [byte >> 4, byte & 15];
}

function bytesOf(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
