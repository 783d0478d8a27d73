/**
 * The encrypted side of a TLS connection.
 *
 * @module
 */

import { Duplex } from "node:stream";
import type { Transport } from "../../internal/api/transport.ts";
import { TURN_BYTES, TURNS } from "../../internal/time/turns.ts";

/** Bounds of the read buffer in bytes. It starts small: most connections wait for their peer most of the time. */
const SMALLEST_READ = 1024;
const LARGEST_READ = 64 * 1024;

/** Time of decrypting, in milliseconds, that counts as the work of one turn; the read buffer grows only below it. */
const TURN_MS = 1;

/**
 * A transport in the form of the Node.js stream that `TLSSocket` reads and writes.
 *
 * It reads only when `pull` is called: `node:tls` decrypts whatever it gets and holds it, even if it is not read.
 */
export class Wire extends Duplex {
  readonly #transport: Transport;
  #buffer = new Uint8Array(SMALLEST_READ);
  /** The work of the last read, in bytes, if it filled the buffer; 0 otherwise. */
  #work = 0;
  /** Settles when the last write has; `node:tls` encrypts more after that. */
  #sending = Promise.resolve();
  /** Number of unfinished writes, of their unsent bytes, and of all bytes sent. */
  #writes = 0;
  #waitingBytes = 0;
  #sent = 0;
  #received = 0;
  #stopped = false;
  readonly #records = new RecordCutter();
  /** Called after each decrypted TLS record while it is set; an error that it throws rejects `pull`. */
  onRecord: (() => void) | undefined;
  readonly #onSent: () => void;
  readonly #onError: (error: unknown) => void;

  /**
   * @param transport The transport to read and write; its owner closes it.
   * @param onSent Called when a write is done.
   * @param onError Called when a write has failed.
   */
  constructor(transport: Transport, onSent: () => void, onError: (error: unknown) => void) {
    super({ allowHalfOpen: true });
    this.#transport = transport;
    this.#onSent = onSent;
    this.#onError = onError;
  }

  /** Number of bytes received. */
  get received(): number {
    return this.#received;
  }

  /** Number of bytes that the transport has taken. */
  get sent(): number {
    return this.#sent;
  }

  /** Whether no write is unfinished, or the wire was stopped. */
  get idle(): boolean {
    return this.#writes === 0 || this.#stopped;
  }

  /** Number of bytes that the transport has not taken yet. */
  get waitingBytes(): number {
    return this.#waitingBytes;
  }

  /** Number of bytes by which the read buffer is larger than at the start. */
  get grownBytes(): number {
    return this.#buffer.length - SMALLEST_READ;
  }

  /** Makes no further calls to the transport, which is closed or has failed. */
  stop(): void {
    this.#stopped = true;
  }

  /**
   * Reads once and decrypts the bytes before the promise settles. The work of a read is measured by its time: a message
   * that changes the keys has some 30 bytes, and takes as long as a hundred kilobytes of text.
   *
   * @returns Whether bytes came; `false` is the end of input.
   */
  async pull(): Promise<boolean> {
    if (this.#work > 0) {
      await TURNS.take(this.#work);
      this.#check("read");
    }
    const count = await this.#transport.read(this.#buffer);
    if (count === null) return false;
    this.#received += count;
    const start = performance.now();
    // A copy: the stream may hold it for later, and the next read reuses the buffer.
    this.#decrypt(this.#buffer.slice(0, count));
    this.#adapt(count, performance.now() - start);
    return true;
  }

  /**
   * Overridden in place of `_write`: `node:tls` writes its last alert after it has destroyed this stream, and a stream
   * drops writes then.
   */
  // deno-lint-ignore no-explicit-any -- a stream's overloads
  override write(bytes: any, ...rest: any[]): boolean {
    const done: unknown = rest.at(-1);
    this.#writes++;
    this.#waitingBytes += bytes.length;
    this.#sending = this.#sending.then(() => this.#send(bytes)).then(() => {
      this.#writes--;
      if (typeof done === "function") done();
      this.#onSent();
    }, (error) => {
      this.#waitingBytes = 0;
      this.stop();
      this.#onError(error);
    });
    return true;
  }

  override _read(): void {
    // `pull` pushes the input.
  }

  #decrypt(bytes: Uint8Array): void {
    if (this.onRecord === undefined) return void this.push(bytes);
    for (const part of this.#records.cut(bytes)) {
      this.push(part);
      this.onRecord?.();
    }
  }

  async #send(bytes: Uint8Array): Promise<void> {
    for (let unsent = bytes; unsent.length > 0;) {
      this.#check("write");
      const count = await this.#transport.write(unsent);
      this.#sent += count;
      this.#waitingBytes -= count;
      unsent = unsent.subarray(count);
    }
  }

  #check(what: "read" | "write"): void {
    if (this.#stopped) throw new Deno.errors.BadResource(`Cannot ${what}: the connection is closed`);
  }

  /** Sets the read's work and the next buffer's size by what the last read took. */
  #adapt(count: number, ms: number): void {
    const { length } = this.#buffer;
    const full = count === length;
    this.#work = full ? Math.max(count, ms / TURN_MS * TURN_BYTES) : 0;
    const size = full && ms < TURN_MS ? Math.min(4 * length, LARGEST_READ) : Math.max(length / 4, SMALLEST_READ);
    if (size !== length) this.#buffer = new Uint8Array(size);
  }
}

/** Length of a TLS record's header in bytes: type, version, and the length of its content. */
const HEADER_BYTES = 5;

/** Cuts a stream of bytes at the ends of TLS records. */
class RecordCutter {
  /** Number of bytes received of the present record, and its length, which the header tells. */
  #received = 0;
  #length = HEADER_BYTES;

  /** Cuts the next bytes. Each part ends at the end of a record, except the last, which may be unfinished. */
  *cut(bytes: Uint8Array): Generator<Uint8Array> {
    let start = 0;
    for (let at = 0; at < bytes.length;) {
      // The header is read byte by byte, the content at once.
      const step = this.#received < HEADER_BYTES ? 1 : Math.min(this.#length - this.#received, bytes.length - at);
      if (this.#received === 3) this.#length += bytes[at] << 8;
      if (this.#received === 4) this.#length += bytes[at];
      this.#received += step;
      at += step;
      if (this.#received < this.#length) continue;
      this.#received = 0;
      this.#length = HEADER_BYTES;
      yield bytes.subarray(start, at);
      start = at;
    }
    if (start < bytes.length) yield bytes.subarray(start);
  }
}
