/**
 * A client for tests.
 *
 * @module
 */

import { checkCount } from "../internal/api/check.ts";
import { LF } from "../internal/lines/ascii.ts";
import { closeQuietly, type Transport } from "../internal/api/transport.ts";

const CHUNK_BYTES = 64 * 1024;
const NONE: Uint8Array = new Uint8Array(0);

/**
 * The client's end of a connection; {@linkcode MemoryListener.connect} creates one.
 *
 * @example The same client on a real socket
 * ```ts
 * import { serve } from "@x/shouty";
 * import { TestClient } from "@x/shouty/testing";
 * import { assertEquals } from "@std/assert";
 *
 * await using server = serve({ hostname: "127.0.0.1", port: 0 });
 *
 * const { port } = server.addr as Deno.NetAddr;
 * using client = new TestClient(await Deno.connect({ port }));
 * await client.write("hello\n");
 * assertEquals(await client.readLine(), "HELLO");
 * ```
 */
export class TestClient implements Disposable {
  readonly #end: Transport;
  /** Bytes that were read behind the last line, for the next `read`. */
  #rest = NONE;
  /** Buffer for the next read; `undefined` during a read. Bytes are copied out of it. */
  #buffer: Uint8Array | undefined;

  /**
   * Creates a client on an end of a connection.
   *
   * @param end The client's end, a `Deno.Conn` or one in memory. The client owns it.
   */
  constructor(end: Transport) {
    this.#end = end;
  }

  /** The client's own address, which is what the server sees as `conn.remoteAddr`. */
  get addr(): Deno.Addr {
    return this.#end.localAddr;
  }

  /**
   * Sends text as UTF-8, or bytes; adds nothing, not even a line end.
   *
   * @param data The text or bytes.
   * @returns When the connection has taken everything. Its buffer is bounded, so that waits for the server to read.
   * @throws {Deno.errors.BrokenPipe} If either end has ended the client's side.
   * @throws {Deno.errors.ConnectionReset} If the server has reset the connection.
   */
  async write(data: string | Uint8Array): Promise<void> {
    const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
    for (let sent = 0; sent < bytes.length;) sent += await this.#end.write(bytes.subarray(sent));
  }

  /**
   * Waits for bytes.
   *
   * @returns The bytes that have come, or `null` when the server has ended its side.
   * @throws {Deno.errors.ConnectionReset} If the server has reset the connection; unread bytes are lost then.
   */
  async read(): Promise<Uint8Array | null> {
    const rest = this.#rest;
    this.#rest = NONE;
    if (rest.length > 0) return rest;
    const buffer = this.#buffer ?? new Uint8Array(CHUNK_BYTES);
    this.#buffer = undefined;
    const count = await this.#end.read(buffer);
    this.#buffer = buffer;
    return count === null ? null : buffer.slice(0, count);
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
   * Ends the client's side (half-close); the server can still answer.
   *
   * @returns When the side has ended.
   * @throws {Deno.errors.BadResource} (As a rejection.) If the connection is closed.
   */
  closeWrite(): Promise<void> {
    return this.#end.closeWrite();
  }

  /**
   * Closes both directions. If the client has not read everything that the server sent, this resets the connection, as
   * with TCP.
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

function decode(parts: Uint8Array[]): string {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  return parts.map((part) => decoder.decode(part, { stream: true })).join("") + decoder.decode();
}
