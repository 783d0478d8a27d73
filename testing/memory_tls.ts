/**
 * TLS in memory, without cryptography.
 *
 * @module
 */

import { checkOptions, checkTimeout } from "../internal/api/check.ts";
import {
  Forwarding,
  type PeerCertificate,
  type TlsCredentialsHandle,
  type TlsInfo,
  type Transport,
} from "../internal/api/transport.ts";

/** Options of {@linkcode MemoryTls}. */
export interface MemoryTlsOptions {
  /**
   * Maximum time of a handshake, in milliseconds; `Infinity` for no limit. When it is up, the server closes the
   * connection, with reason `tls-handshake`.
   *
   * @default {10_000}
   */
  handshakeTimeout?: number | undefined;
}

/** What a test says of a connection under TLS; the handler sees it as `conn.tls`. */
export interface MemoryTlsInfo {
  /**
   * The version of TLS.
   *
   * @default {"TLSv1.3"}
   */
  version?: TlsInfo["version"] | undefined;
  /**
   * The cipher suite.
   *
   * @default {"MEMORY"}
   */
  cipher?: string | undefined;
  /** The server's name, for which the client asks (SNI); by default it does not ask. */
  serverName?: string | undefined;
  /** The protocol that both sides have agreed on (ALPN); by default they have not. */
  alpn?: string | undefined;
  /**
   * The client's certificate; by default it shows none. What is left out of it is the subject `CN=client`, no alternative
   * names, a fingerprint of zeros, and that it was verified.
   */
  peer?: Partial<PeerCertificate> | undefined;
}

/** Completes what a test says of a connection under TLS. */
export function tlsInfoOf(given: MemoryTlsInfo): TlsInfo {
  checkOptions("tls", given);
  const { version = "TLSv1.3", cipher = "MEMORY", serverName, alpn, peer } = given;
  return Object.freeze({
    version,
    cipher,
    serverName,
    alpn,
    ...(peer === undefined ? {} : { peer: certificate(peer) }),
  });
}

function certificate(given: Partial<PeerCertificate>): PeerCertificate {
  checkOptions("tls.peer", given);
  const { subject = "CN=client", altNames = [], fingerprint256 = NO_FINGERPRINT, verified = true } = given;
  return Object.freeze({ subject, altNames, fingerprint256, verified });
}

const NO_FINGERPRINT = Array(32).fill("00").join(":");

/**
 * Credentials for `conn.startTls` in a test: TLS in memory, without certificates and without cryptography. A handshake
 * succeeds only with a `TestClient.startTls` in the same process that gets this very object, so no client from outside
 * can pass it. What follows the handshake is masked, not encrypted: text that a test finds readable on the wire has left
 * in plain text.
 *
 * @example Test a handler that begins TLS, and trusts a client by its certificate
 * ```ts
 * import { serveConnections } from "@x/shouty";
 * import { MemoryListener, MemoryTls } from "@x/shouty/testing";
 * import { assertEquals } from "@std/assert";
 *
 * const listener = new MemoryListener();
 * const credentials = new MemoryTls();
 * await using _server = serveConnections({ listener }, async (conn) => {
 *   for await (const line of conn.lines) {
 *     if (line === "STARTTLS") {
 *       conn.write("go ahead\n");
 *       await conn.startTls(credentials);
 *     } else await conn.write(`Hello, ${conn.tls?.peer?.subject ?? "stranger"}!\n`);
 *   }
 * });
 *
 * using client = listener.connect();
 * await client.write("hello\n");
 * assertEquals(await client.readLine(), "Hello, stranger!");
 * await client.write("STARTTLS\n");
 * assertEquals(await client.readLine(), "go ahead");
 * await client.startTls({ credentials, peer: { subject: "CN=Ada" } });
 * await client.write("hello\n");
 * assertEquals(await client.readLine(), "Hello, CN=Ada!");
 * ```
 */
export class MemoryTls implements TlsCredentialsHandle {
  /** See {@linkcode MemoryTlsOptions.handshakeTimeout}. */
  readonly handshakeTimeout: number;
  /** What the clients have said that have begun a handshake, by the text of their hello. */
  readonly #hellos = new Map<string, TlsInfo>();

  /**
   * Creates credentials.
   *
   * @param options The time for a handshake.
   * @throws {RangeError | TypeError} If an option is wrong.
   */
  constructor(options: MemoryTlsOptions = {}) {
    checkOptions("MemoryTls options", options);
    const { handshakeTimeout = 10_000 } = options;
    checkTimeout("handshakeTimeout", handshakeTimeout);
    this.handshakeTimeout = handshakeTimeout;
  }

  /**
   * Performs the server's side of the handshake; the server calls it.
   *
   * @param transport Transfers the masked bytes.
   * @param firstBytes Bytes that have been read already.
   * @returns The transport under TLS.
   * @throws {Error} (As a rejection.) If the client has not called `startTls` with this object.
   */
  async accept(transport: Transport, firstBytes: Uint8Array): Promise<Transport & { readonly tls: TlsInfo }> {
    const bytes = await readRecord(transport, firstBytes);
    const id = idIn(bytes, "client");
    const info = this.#hellos.get(id);
    this.#hellos.delete(id);
    if (info === undefined) throw new Error("The client has sent another hello than that of these credentials");
    await writeAll(transport, record("server", id));
    return new MaskedTransport(transport, info, bytes.subarray(RECORD_BYTES));
  }

  /**
   * Performs the client's side of the handshake; `TestClient.startTls` calls it.
   *
   * @param transport Transfers the masked bytes.
   * @param given What the server gets to know of the client.
   * @returns The transport under TLS.
   * @throws {Deno.errors.UnexpectedEof} (As a rejection.) If the server ends the connection.
   * @throws {Error} (As a rejection.) If the server has sent plain text.
   */
  async open(transport: Transport, given: MemoryTlsInfo): Promise<Transport & { readonly tls: TlsInfo }> {
    const info = tlsInfoOf(given);
    const id = crypto.randomUUID();
    this.#hellos.set(id, info);
    try {
      await writeAll(transport, record("client", id));
      const isAnswer = idIn(await readRecord(transport, NONE), "server") === id;
      if (!isAnswer) throw new Error("The server has sent another answer than that of these credentials");
    } finally {
      this.#hellos.delete(id);
    }
    // The certificate is the client's own.
    const { peer: _peer, ...agreed } = info;
    return new MaskedTransport(transport, agreed, NONE);
  }
}

const NONE = new Uint8Array(0);

/** What a record begins with: the type of TLS's handshake records, a version, and the high byte of a length. */
const HEAD: readonly number[] = [22, 3, 3, 0];
const NOTE = "TLS in memory, not encrypted";

/** Makes the one record that a side sends in the handshake. */
function record(from: "client" | "server", id: string): Uint8Array {
  const text = new TextEncoder().encode(`${NOTE}, ${from} ${id}`);
  return Uint8Array.of(...HEAD, text.length, ...text);
}

const RECORD_BYTES = record("client", crypto.randomUUID()).length;

/** The identifier in a record; empty if there is none. */
function idIn(bytes: Uint8Array, from: "client" | "server"): string {
  const text = new TextDecoder().decode(bytes.subarray(HEAD.length + 1, RECORD_BYTES));
  const start = `${NOTE}, ${from} `;
  return text.startsWith(start) ? text.slice(start.length) : "";
}

/** Reads a record, and fails at the first byte that cannot belong to one. */
async function readRecord(transport: Transport, firstBytes: Uint8Array): Promise<Uint8Array> {
  let bytes = firstBytes;
  for (;;) {
    const fits = HEAD.every((byte, at) => at >= bytes.length || bytes[at] === byte);
    if (!fits) throw new Error("The other side has sent something else than a handshake of TLS in memory");
    if (bytes.length >= RECORD_BYTES) return bytes;
    const buffer = new Uint8Array(RECORD_BYTES - bytes.length);
    const count = await transport.read(buffer);
    if (count === null) throw new Deno.errors.UnexpectedEof("The other side has ended the connection in the handshake");
    bytes = Uint8Array.of(...bytes, ...buffer.subarray(0, count));
  }
}

async function writeAll(transport: Transport, bytes: Uint8Array): Promise<void> {
  for (let sent = 0; sent < bytes.length;) sent += await transport.write(bytes.subarray(sent));
}

/** Changes every byte, or changes it back. */
function mask(bytes: Uint8Array): Uint8Array {
  return bytes.map((byte) => byte ^ 0xa5);
}

/** A transport whose bytes are masked on the wire. */
class MaskedTransport extends Forwarding {
  readonly #tls: TlsInfo;
  /** Masked bytes that came with the handshake, and that no read has returned yet. */
  #rest: Uint8Array;

  constructor(inner: Transport, tls: TlsInfo, rest: Uint8Array) {
    super(inner);
    this.#tls = tls;
    this.#rest = rest;
  }

  override get tls(): TlsInfo {
    return this.#tls;
  }

  override async read(into: Uint8Array): Promise<number | null> {
    const part = this.#rest.subarray(0, into.length);
    this.#rest = this.#rest.subarray(part.length);
    into.set(part);
    const count = part.length > 0 ? part.length : await super.read(into);
    if (count !== null) into.set(mask(into.subarray(0, count)));
    return count;
  }

  override write(bytes: Uint8Array): Promise<number> {
    return super.write(mask(bytes));
  }
}
