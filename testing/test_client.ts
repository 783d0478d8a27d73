/**
 * A client for tests.
 *
 * @module
 */

import { checkCount, checkMethods, checkOptions, show } from "../internal/api/check.ts";
import type { ConnectTlsOptions } from "../internal/client/connect_options.ts";
import { harmless, quote } from "../internal/api/errors.ts";
import { LF } from "../internal/lines/ascii.ts";
import { closeQuietly, type TlsInfo, type Transport } from "../internal/api/transport.ts";
import { MemoryTls, type MemoryTlsInfo } from "./memory_tls.ts";

const CHUNK_BYTES = 64 * 1024;
const NONE: Uint8Array = new Uint8Array(0);

/**
 * The alert of a client that refuses the server's certificate: a record of type 21 with two bytes, "fatal" and
 * "bad_certificate" (RFC 8446, 6). It is in plain text, as the first record of a client that has refused is in TLS 1.2;
 * in TLS 1.3, servers accept that until the client has encrypted something.
 */
const BAD_CERTIFICATE: Uint8Array = Uint8Array.of(21, 3, 3, 0, 2, 2, 42);

/** Options of {@linkcode TestClient.startTls} for TLS in memory. */
export interface MemoryStartTlsOptions extends MemoryTlsInfo {
  /** The credentials with which the server begins TLS. */
  credentials: MemoryTls;
}

/** Options of {@linkcode TestClient.startTls} for real TLS. */
export interface StartTlsOptions extends ConnectTlsOptions {
  /** The name or the address for which the server's certificate must be. */
  serverName: string;
}

/**
 * A test's end of a connection: the client of a server under test, which {@linkcode MemoryListener.connect} creates; or
 * the server of code that connects, if it gets an end from {@linkcode MemoryListener.accept}.
 *
 * @example The same client on a real socket
 * ```ts
 * import { serve } from "@x/shouty";
 * import { TestClient } from "@x/shouty/testing";
 * import { assertEquals } from "@std/assert";
 *
 * await using server = serve({ hostname: "127.0.0.1", port: 0 });
 *
 * const { port } = server.addr;
 * using client = new TestClient(await Deno.connect({ port }));
 * await client.write("hello\n");
 * assertEquals(await client.readLine(), "HELLO");
 * ```
 */
export class TestClient implements Disposable {
  #end: Transport;
  /** Bytes that were read behind the last line, for the next `read`. */
  #rest = NONE;
  /** Buffer for all reads, of which one is outstanding at a time; made by the first. Bytes are copied out of it. */
  #buffer: Uint8Array | undefined;
  #reading = false;
  /** Settles when all writes have settled, and never rejects; undefined if they have. */
  #writing: Promise<void> | undefined;
  /** Whether `closeWrite` was called. */
  #ended = false;
  #beginsTls = false;

  /**
   * Creates a client on an end of a connection.
   *
   * @param end The client's end, a `Deno.Conn` or one in memory. The client owns it.
   * @throws {TypeError} If it is none, such as a promise of one.
   */
  constructor(end: Transport) {
    checkMethods("end", end, "an end of a connection", ["read", "write", "closeWrite", "close"]);
    this.#end = end;
  }

  /** The client's own address, which is what the server sees as `conn.remoteAddr`. */
  get addr(): Deno.Addr {
    return this.#end.localAddr;
  }

  /** What the TLS handshake has agreed on; undefined before {@linkcode TestClient.startTls}. */
  get tls(): TlsInfo | undefined {
    return this.#end.tls;
  }

  /**
   * Sends text as UTF-8, or bytes; adds nothing, not even a line end. Calls that are not awaited are sent in their order,
   * and do no harm if they fail: a client that is not to read what the server answers cannot await a long write.
   *
   * @param data The text or bytes.
   * @returns When the connection has taken everything. Its buffer is bounded, so that waits for the server to read.
   * @throws {Deno.errors.BrokenPipe} If either end has ended the client's side. (All errors are rejections.)
   * @throws {Deno.errors.ConnectionReset} If the server has reset the connection.
   * @throws {TypeError} If the data is neither text nor bytes, or the connection begins TLS.
   */
  write(data: string | Uint8Array): Promise<void> {
    return harmless(this.#write(data));
  }

  async #write(data: string | Uint8Array): Promise<void> {
    if (typeof data !== "string" && !(data instanceof Uint8Array)) {
      throw new TypeError(`Cannot write ${show(data)}: expected a string or a Uint8Array`);
    }
    // What `slice` returns of a `Buffer` is no copy.
    const bytes = typeof data === "string" ? new TextEncoder().encode(data) : new Uint8Array(data);
    this.#checkPlain("write");
    if (this.#ended) throw new Deno.errors.BrokenPipe("Cannot write: this side has ended");
    await this.#send(bytes);
  }

  /** Sends bytes behind those of earlier calls; at once, if these have been taken. */
  #send(bytes: Uint8Array): Promise<void> {
    const sent = this.#writing === undefined ? this.#sendNow(bytes) : this.#writing.then(() => this.#sendNow(bytes));
    const settled = sent.catch(() => {}).then(() => {
      if (this.#writing === settled) this.#writing = undefined;
    });
    this.#writing = settled;
    return sent;
  }

  async #sendNow(bytes: Uint8Array): Promise<void> {
    for (let sent = 0; sent < bytes.length;) sent += await this.#end.write(bytes.subarray(sent));
  }

  /**
   * Waits for bytes.
   *
   * @returns The bytes that have come, or `null` when the server has ended its side.
   * @throws {Deno.errors.ConnectionReset} If the server has reset the connection; unread bytes are lost then.
   * @throws {Deno.errors.Busy} If another read has not settled.
   */
  async read(): Promise<Uint8Array | null> {
    const rest = this.#rest;
    this.#rest = NONE;
    if (rest.length > 0) return rest;
    this.#checkPlain("read");
    if (this.#reading) throw new Deno.errors.Busy("Cannot read: another read is outstanding");
    const buffer = this.#buffer ??= new Uint8Array(CHUNK_BYTES);
    this.#reading = true;
    try {
      const count = await this.#end.read(buffer);
      return count === null ? null : buffer.slice(0, count);
    } finally {
      this.#reading = false;
    }
  }

  /**
   * Waits for a line.
   *
   * @returns The line without its LF, or an unfinished line at the end, or `null` when the server has ended its side.
   * @throws {Deno.errors.ConnectionReset} If the server has reset the connection.
   */
  async readLine(): Promise<string | null> {
    const parts: Uint8Array[] = [];
    for (let bytes = await this.read(); bytes !== null; bytes = await this.read()) {
      const end = bytes.indexOf(LF);
      parts.push(end < 0 ? bytes : bytes.subarray(0, end));
      if (end < 0) continue;
      // A view: with a copy for each line, many short lines would take quadratic time.
      this.#rest = bytes.subarray(end + 1);
      return decode(parts);
    }
    return parts.length > 0 ? decode(parts) : null;
  }

  /**
   * Waits for a number of bytes; those behind them stay for the next read.
   *
   * @param count The number of bytes, a whole number from 0.
   * @returns The bytes: fewer, if the server has ended its side before.
   * @throws {Deno.errors.ConnectionReset} If the server has reset the connection.
   * @throws {RangeError} If the number is wrong.
   */
  async readBytes(count: number): Promise<Uint8Array<ArrayBuffer>> {
    checkCount("count", count);
    const bytes = new Uint8Array(count);
    let length = 0;
    while (length < count) {
      const part = await this.read();
      if (part === null) break;
      const taken = part.subarray(0, count - length);
      bytes.set(taken, length);
      length += taken.length;
      this.#rest = part.subarray(taken.length);
    }
    return bytes.slice(0, length);
  }

  /**
   * Waits until the server has ended its side.
   *
   * @returns All bytes that came, as text.
   * @throws {Deno.errors.ConnectionReset} If the server has reset the connection instead.
   */
  async readAll(): Promise<string> {
    const parts: Uint8Array[] = [];
    for (let bytes = await this.read(); bytes !== null; bytes = await this.read()) parts.push(bytes);
    return decode(parts);
  }

  /**
   * Begins TLS as a client, once the server has agreed to it (STARTTLS). What is read and written after that is
   * encrypted. If the handshake fails, the connection stays open, for the test to read how the server ends it. A server
   * whose certificate is refused is told so, with a TLS alert.
   *
   * @param options With a {@linkcode MemoryTls}: TLS in memory, and what the server gets to know of the client. Otherwise
   * real TLS: the server's name, the authorities to trust, and the client's certificate. For a certificate to test with:
   * `openssl req -x509 -newkey ed25519 -nodes -subj /CN=localhost -addext subjectAltName=DNS:localhost`.
   * @returns What the handshake has agreed on.
   * @throws {Deno.errors.InvalidData} If the server's certificate is not valid. (All errors are rejections.)
   * @throws {Deno.errors.UnexpectedEof} If the server ends the connection during the handshake.
   * @throws {Error} If the server does not begin TLS.
   * @throws {TypeError} If the connection is encrypted already or begins to be, if a read has not settled, if what the
   * server has sent in plain text is not all read, or if an option is wrong.
   */
  async startTls(options: MemoryStartTlsOptions | StartTlsOptions): Promise<TlsInfo> {
    checkOptions("startTls options", options);
    this.#checkUpgradable();
    this.#beginsTls = true;
    try {
      if (this.#writing !== undefined) await this.#writing;
      const transport = await secure(this.#end, options);
      this.#end = transport;
      return transport.tls;
    } catch (error) {
      // The other failures are the server's own, or it has got the alert that they make.
      if (error instanceof Deno.errors.InvalidData) harmless(this.#send(BAD_CERTIFICATE));
      throw error;
    } finally {
      this.#beginsTls = false;
    }
  }

  #checkUpgradable(): void {
    if (this.tls !== undefined) throw new TypeError("Cannot begin TLS: the connection is encrypted already");
    if (this.#beginsTls) throw new TypeError("Cannot begin TLS: the connection begins it already");
    if (this.#reading) throw new TypeError("Cannot begin TLS: a read has not settled");
    if (this.#rest.length === 0) return;
    const text = quote(decode([this.#rest]));
    throw new TypeError(`Cannot begin TLS: the server has sent more in plain text, which is not read: ${text}`);
  }

  #checkPlain(what: "read" | "write"): void {
    if (this.#beginsTls) throw new TypeError(`Cannot ${what}: the connection begins TLS`);
  }

  /**
   * Ends the client's side (half-close), behind what is being written; the server can still answer.
   *
   * @returns When the side has ended.
   * @throws {Deno.errors.BadResource} (As a rejection.) If the connection is closed.
   */
  closeWrite(): Promise<void> {
    return harmless(this.#closeWrite());
  }

  async #closeWrite(): Promise<void> {
    this.#ended = true;
    await this.#writing;
    await this.#end.closeWrite();
  }

  /**
   * Closes both directions. Bytes that earlier writes have not sent yet are dropped. If the client has not read everything
   * that the server sent, this resets the connection, as with TCP.
   *
   * @throws {Deno.errors.BadResource} If the connection is closed.
   */
  close(): void {
    this.#end.close();
  }

  /**
   * Resets the connection: the server's read or write fails, and bytes on the way are lost.
   *
   * @throws {Deno.errors.BadResource} If the connection is closed.
   * @throws {TypeError} If the end cannot be reset, such as a `Deno.Conn`.
   */
  reset(): void {
    if (this.#end.reset === undefined) throw new TypeError("Cannot reset: this kind of connection has no reset()");
    this.#end.reset();
  }

  /** Closes the connection, if it is not closed already. */
  [Symbol.dispose](): void {
    closeQuietly(this.#end);
  }
}

async function secure(end: Transport, options: MemoryStartTlsOptions | StartTlsOptions) {
  if (!("credentials" in options)) {
    // Most tests have no use for it, and it loads `node:tls`.
    const { connectTlsOver } = await import("../ops/tls/client.ts");
    return await connectTlsOver(end, options);
  }
  const { credentials, ...info } = options;
  if (!(credentials instanceof MemoryTls)) {
    throw new TypeError(`Cannot use credentials: expected those of new MemoryTls(), got ${show(credentials)}`);
  }
  return await credentials.open(end, info);
}

function decode(parts: Uint8Array[]): string {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  return parts.map((part) => decoder.decode(part, { stream: true })).join("") + decoder.decode();
}
