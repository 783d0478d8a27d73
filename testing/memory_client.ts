/**
 * The client's end of a connection in memory.
 *
 * @module
 */

import type { End } from "./pipe.ts";

const LF = 10;
const CHUNK_BYTES = 64 * 1024;

/** What a test holds in its hand: the client's end of a connection, from {@linkcode MemoryListener.connect}. */
export class MemoryClient {
  readonly #end: End;
  /** Read and not asked for yet. */
  #rest = new Uint8Array(0);

  /**
   * Takes an end in hand; {@linkcode MemoryListener.connect} does it for you.
   *
   * @param end The client's end of a connection.
   */
  constructor(end: End) {
    this.#end = end;
  }

  /** The client's own address, which is what the server sees as `conn.remoteAddr`. */
  get addr(): Deno.Addr {
    return this.#end.localAddr;
  }

  /**
   * Sends text as UTF-8, or bytes; nothing is added.
   *
   * @param data What to send.
   * @returns When the connection has taken it all: its buffer is bounded, so a server that does not read holds it up.
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
   * @returns What has come, or `null` when the server has ended its side.
   * @throws {Deno.errors.ConnectionReset} If the server has reset the connection; what was unread is lost then.
   */
  async read(): Promise<Uint8Array | null> {
    const rest = this.#rest;
    this.#rest = new Uint8Array(0);
    if (rest.length > 0) return rest;
    const buffer = new Uint8Array(CHUNK_BYTES);
    const count = await this.#end.read(buffer);
    return count === null ? null : buffer.slice(0, count);
  }

  /**
   * Waits for a line.
   *
   * @returns The line without its LF (or what there was of it at the end), or `null` when the server has ended its side.
   * @throws {Deno.errors.ConnectionReset} If the server has reset the connection.
   */
  async readLine(): Promise<string | null> {
    const parts: Uint8Array[] = [];
    for (let bytes = await this.read(); bytes !== null; bytes = await this.read()) {
      const end = bytes.indexOf(LF);
      parts.push(end < 0 ? bytes : bytes.subarray(0, end));
      if (end < 0) continue;
      this.#rest = bytes.slice(end + 1);
      return decode(parts);
    }
    return parts.length > 0 ? decode(parts) : null;
  }

  /**
   * Waits until the server has ended its side.
   *
   * @returns All that came, as text.
   * @throws {Deno.errors.ConnectionReset} If the server has reset the connection instead.
   */
  async readAll(): Promise<string> {
    const parts: Uint8Array[] = [];
    for (let bytes = await this.read(); bytes !== null; bytes = await this.read()) parts.push(bytes);
    return decode(parts);
  }

  /**
   * Half-close: ends the client's side; the server can still answer.
   *
   * @throws {Deno.errors.BadResource} If the connection is closed.
   */
  closeWrite(): void {
    this.#end.closeWrite();
  }

  /**
   * Closes the connection. If the server has sent anything that was not read, this resets it, as with TCP.
   *
   * @throws {Deno.errors.BadResource} If the connection is closed.
   */
  close(): void {
    this.#end.close();
  }

  /**
   * Breaks the connection off: the server's read or write fails, and what is on the way is lost.
   *
   * @throws {Deno.errors.BadResource} If the connection is closed.
   */
  reset(): void {
    this.#end.reset();
  }
}

function decode(parts: Uint8Array[]): string {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  return parts.map((part) => decoder.decode(part, { stream: true })).join("") + decoder.decode();
}
