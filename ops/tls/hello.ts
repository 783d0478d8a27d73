/**
 * Reads the name that a client asks for from the first message of a TLS handshake.
 *
 * `node:tls` can ask which certificate to use, too. But then it sends no alert to a client whose first message is damaged,
 * and stops reading one that is longer than 4 KiB.
 *
 * @module
 */

import { checkTransferred } from "../../internal/api/check.ts";
import type { Transport } from "../../internal/api/transport.ts";
import { peerLeftOr } from "../wrappers/preparing_listener.ts";

/** Maximum size of a ClientHello that is searched for a name, in bytes; also that of the largest TLS record. */
const MAX_HELLO_BYTES = 16 * 1024;

/** Size of one read in bytes: nearly every ClientHello fits. */
const READ_BYTES = 2 * 1024;

const RECORD_HEADER_BYTES = 5;
const HANDSHAKE = 22;
const CLIENT_HELLO = 1;
const SERVER_NAME = 0;

/** What the first message says. */
export interface Hello {
  /** All bytes that have been read. */
  readonly bytes: Uint8Array;
  /** The name that the client asks for; undefined if it asks for none, or the message is damaged or too long. */
  readonly serverName: string | undefined;
}

/**
 * Reads until the name is known, or it is clear that there is none.
 *
 * @param transport The client's connection.
 * @param firstBytes Bytes that have been read already.
 * @returns All bytes read, and the name.
 * @throws {PeerLeft} (As a rejection.) If the client has left without sending a byte.
 */
export async function readHello(transport: Transport, firstBytes: Uint8Array): Promise<Hello> {
  let buffer = new Uint8Array(Math.max(READ_BYTES, firstBytes.length));
  buffer.set(firstBytes);
  let length = firstBytes.length;
  for (;;) {
    const found = findServerName(buffer.subarray(0, length));
    if (typeof found !== "number") return { bytes: buffer.slice(0, length), serverName: found };
    // Not before that many have come: a client that sends byte by byte would have all looked at again with each.
    for (const enough = length + found; length < enough;) {
      if (length === buffer.length) buffer = grown(buffer);
      const count = await readOn(transport, buffer, length);
      // What has come is left to `node:tls`, which reports the end itself.
      if (count === null) return { bytes: buffer.slice(0, length), serverName: undefined };
      length += count;
    }
  }
}

function grown(buffer: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const larger = new Uint8Array(2 * buffer.length);
  larger.set(buffer);
  return larger;
}

async function readOn(transport: Transport, buffer: Uint8Array, length: number): Promise<number | null> {
  const into = buffer.subarray(length);
  const count = await transport.read(into).catch((error) => {
    throw peerLeftOr(error, length);
  });
  if (count !== null) checkTransferred("read", count, into.length);
  return count;
}

/**
 * Finds the name.
 *
 * @param bytes The first bytes of a connection.
 * @returns The name; `undefined` if there is none; the number of bytes that are missing at least, if it cannot be told.
 */
export function findServerName(bytes: Uint8Array): string | undefined | number {
  const message = new Uint8Array(bytes.length);
  let size = 0;
  let at = 0;
  // A message can be spread over several records.
  while (at < bytes.length) {
    if (bytes[at] !== HANDSHAKE) return undefined;
    const start = at + RECORD_HEADER_BYTES;
    if (start > bytes.length) break;
    const length = bytes[at + 3] << 8 | bytes[at + 4];
    // Forbidden (RFC 8446, 5.1): a client could send any number of them.
    if (length === 0) return undefined;
    at = start + length;
    const part = bytes.subarray(start, at);
    message.set(part, size);
    size += part.length;
  }
  if (size > 0 && message[0] !== CLIENT_HELLO) return undefined;
  const end = size < 4 ? size + 1 : 4 + (message[1] << 16 | message[2] << 8 | message[3]);
  if (size >= end) return serverNameOf(message.subarray(4, end));
  const left = MAX_HELLO_BYTES - bytes.length;
  return left > 0 ? Math.min(end - size, left) : undefined;
}

function serverNameOf(hello: Uint8Array): string | undefined {
  try {
    const reader = new Reader(hello);
    // The version and 32 random bytes; then the session, the cipher suites and the compression methods.
    reader.bytes(34);
    reader.vector(1);
    reader.vector(2);
    reader.vector(1);
    for (const extensions = reader.vector(2); !extensions.done;) {
      const type = extensions.number(2);
      const content = extensions.vector(2);
      if (type !== SERVER_NAME) continue;
      const names = content.vector(2);
      // The type of the name: there is only one.
      names.number(1);
      return new TextDecoder("latin1").decode(names.vector(2).rest());
    }
  } catch {
    // It is damaged, which `node:tls` finds, too.
  }
  return undefined;
}

/** Reads numbers and vectors of TLS; throws past the end. */
class Reader {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get done(): boolean {
    return this.#at === this.#bytes.length;
  }

  bytes(count: number): Uint8Array {
    if (this.#at + count > this.#bytes.length) throw new RangeError("The ClientHello is cut off");
    return this.#bytes.subarray(this.#at, this.#at += count);
  }

  number(size: number): number {
    return this.bytes(size).reduce((value, byte) => value << 8 | byte, 0);
  }

  /** A vector whose length is a number of this size. */
  vector(size: number): Reader {
    return new Reader(this.bytes(this.number(size)));
  }

  rest(): Uint8Array {
    return this.#bytes.subarray(this.#at);
  }
}
