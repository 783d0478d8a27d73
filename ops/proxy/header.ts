/**
 * The header of the PROXY protocol, with which a proxy tells for whom it connects; HAProxy's `proxy-protocol.txt` is
 * its specification. Pure: bytes in; addresses, or an error, out.
 *
 * @module
 */

import { CR, LF } from "../../internal/lines/ascii.ts";
import { crc32c } from "./crc32c.ts";
import { mappedIPv4 } from "../../internal/server/cidr.ts";
import { escapeUnsafe, quote } from "../../internal/api/errors.ts";

/** What a header says. */
export interface ProxyHeader {
  /** How many bytes it takes up; what comes after them is the client's. */
  readonly length: number;
  /** The two ends of the client's connection to the proxy; without them, the real addresses stand. */
  readonly addresses?: {
    /** The client's address. */
    readonly remoteAddr: Deno.Addr;
    /** The address that the client connected to. */
    readonly localAddr: Deno.Addr;
  };
}

/** A PROXY header is missing, malformed, or comes from a peer that may not send one. */
export class ProxyHeaderError extends Error {
  /**
   * Says what is wrong.
   *
   * @param message What is wrong.
   */
  constructor(message: string) {
    super(message);
    this.name = "ProxyHeaderError";
  }
}

/** No header is longer. The specification wants all of it in one segment of 536 bytes; certificates' names go past that. */
export const MAX_HEADER_BYTES = 4096;

/** The line of version 1, its end included, is no longer than this. */
const MAX_LINE_BYTES = 107;

const SIGNATURE = bytesOf("\r\n\r\n\0\r\nQUIT\n");
const PREFIX = bytesOf("PROXY ");
const MARKS = [SIGNATURE, ...["PROXY TCP4 ", "PROXY TCP6 ", "PROXY UNKNOWN"].map(bytesOf)];

/** So many bytes are enough to tell what is meant as a header from what is not. */
export const MARK_BYTES: number = Math.max(...MARKS.map((mark) => mark.length));

/**
 * Reads a header of either version.
 *
 * @param bytes What has come so far, from the connection's first byte on.
 * @returns What the header says, or `undefined` as long as more has to come; from {@linkcode MAX_HEADER_BYTES} on it
 * never has to.
 * @throws {ProxyHeaderError} If this is no header, and cannot become one.
 */
export function parseProxyHeader(bytes: Uint8Array): ProxyHeader | undefined {
  if (begins(bytes, SIGNATURE) !== false) return bytes.length < 16 ? undefined : parseBinary(bytes);
  if (begins(bytes, PREFIX) !== false) return parseText(bytes);
  throw new ProxyHeaderError("No PROXY header: the connection begins with something else");
}

/**
 * Tells whether a connection begins with what is meant as a header, well-formed or not.
 *
 * @param bytes What has come so far; {@linkcode MARK_BYTES} are enough.
 * @returns Whether it does, or `undefined` as long as it might.
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
  // What follows is to be ignored.
  if (protocol === "UNKNOWN") return { length };
  const address = READERS.get(protocol);
  if (address === undefined) throw malformed(`protocol ${quote(protocol)}`);
  if (fields.length !== 4) throw malformed(`${fields.length} fields after ${protocol} instead of 4`);
  const [source, destination, sourcePort, destinationPort] = fields;
  const remoteAddr = tcp(address(source), readPort(sourcePort));
  const localAddr = tcp(readDestination(destination, address), readPort(destinationPort));
  return { length, addresses: { remoteAddr, localAddr } };
}

const READERS = new Map([["TCP4", readIPv4], ["TCP6", readIPv6]]);

function readIPv4(text: string): string {
  const parts = text.split(".");
  const decimal = parts.every((part) => /^(0|[1-9]\d{0,2})$/.test(part) && Number(part) <= 255);
  if (parts.length !== 4 || !decimal) throw malformed(`IPv4 address ${quote(text)}`);
  return text;
}

/** The grammar of RFC 4291, mapped IPv4 included, which HAProxy sends; the URL parser has it, and tidies up. */
function readIPv6(text: string): string {
  const url = `http://[${text}]`;
  if (!/^[\da-f:.]+$/i.test(text) || !URL.canParse(url)) throw malformed(`IPv6 address ${quote(text)}`);
  const address = new URL(url).hostname.slice(1, -1);
  const mapped = mappedIPv4(address);
  // As Deno writes such an address.
  return mapped === undefined ? address : `::ffff:${mapped}`;
}

/**
 * The specification has both addresses in the family that the header names, and has receivers check them. But nginx
 * names the client's family, and writes its own address behind it as that is: where it has the client's address from
 * another proxy (`real_ip`), an IPv6 client can have come to an IPv4 address, or the other way round. The client's
 * address is as good as ever then, so the destination may be of either family.
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

/** Version 2: signature, version and command, family and transport, length; then that many bytes. */
function parseBinary(bytes: Uint8Array): ProxyHeader | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [version, command] = nibbles(bytes[12]);
  const length = 16 + view.getUint16(14);
  if (version !== 2) throw malformed(`version ${version}`);
  if (command > 1) throw malformed(`command ${command}`);
  if (length > MAX_HEADER_BYTES) throw malformed(`${length} bytes, more than ${MAX_HEADER_BYTES}`);
  // The proxy connects for itself, or cannot say for whom: what else is there is to be ignored.
  const form = command === 0 ? undefined : formOf(bytes[13]);
  if (form !== undefined && length < form.end) throw malformed(`${length} bytes, less than its addresses take`);
  if (bytes.length < length) return undefined;
  if (form === undefined) return { length };
  checkTypes(bytes.slice(0, length), form.end);
  const addresses = form.read(bytes, view);
  return addresses === undefined ? { length } : { length, addresses };
}

/** How addresses of one family are written. */
interface Form {
  /** Where they end in the header. */
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

/** `undefined` where the proxy does not say what it carries. */
function formOf(byte: number): Form | undefined {
  const [family, transport] = nibbles(byte);
  if (family > 3) throw malformed(`address family ${family}`);
  if (transport > 2) throw malformed(`transport ${transport}`);
  if (transport === 2) throw malformed("datagrams");
  return transport === 0 ? undefined : FORMS[family];
}

/**
 * Walks through what follows the addresses, each a type, a length and a value, for the sake of the checksum. There is
 * one at most: each is made of the whole header, which has room for hundreds.
 */
function checkTypes(header: Uint8Array, start: number): void {
  const view = new DataView(header.buffer);
  let summed = false;
  for (let at = start; at < header.length;) {
    const length = at + 3 <= header.length ? view.getUint16(at + 1) : Infinity;
    const value = at + 3;
    if (value + length > header.length) throw malformed("a value that is cut off");
    if (header[at] === 3) {
      if (summed) throw malformed("two checksums");
      summed = true;
      checkSum(header, view, value, length);
    }
    at = value + length;
  }
}

/** The sum was made with zeros in its own place. */
function checkSum(header: Uint8Array, view: DataView, at: number, length: number): void {
  if (length !== 4) throw malformed(`a checksum of ${length} bytes`);
  const sum = view.getUint32(at);
  view.setUint32(at, 0);
  if (crc32c(header) !== sum) throw malformed("a checksum that is wrong");
}

function ipv6At(view: DataView, start: number): string {
  const groups = Array.from({ length: 8 }, (_, i) => view.getUint16(start + 2 * i).toString(16));
  return readIPv6(groups.join(":"));
}

function tcp(hostname: string, port: number): Deno.NetAddr {
  return { transport: "tcp", hostname, port };
}

/** A path ends at a NUL; one that begins with it is no file, and stays empty. */
function unix(bytes: Uint8Array): Deno.UnixAddr {
  const end = bytes.indexOf(0);
  const path = new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
  // The client chose it, and it will stand in a log.
  if (escapeUnsafe(path) !== path) throw malformed(`path ${quote(path)}`);
  return { transport: "unix", path };
}

function nibbles(byte: number): [number, number] {
  return [byte >> 4, byte & 15];
}

function malformed(what: string): ProxyHeaderError {
  return new ProxyHeaderError(`Malformed PROXY header: ${what}`);
}

function bytesOf(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
