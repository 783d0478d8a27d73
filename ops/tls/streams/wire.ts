/**
 * The encrypted side of a TLS connection.
 *
 * @module
 */

import { Duplex } from "node:stream";
import { checkTransferred } from "../../../internal/api/check.ts";
import type { Transport } from "../../../internal/api/transport.ts";
import { TURNS } from "../../../internal/time/turns.ts";
import { ReadBuffer, RecordCutter } from "../engine/encrypted_input.ts";

/**
 * A transport in the form of the Node.js stream that `TLSSocket` reads and writes.
 *
 * It reads only when `pull` is called: `node:tls` decrypts whatever it gets and holds it, even if it is not read.
 */
export class Wire extends Duplex {
  readonly #transport: Transport;
  readonly #buffer = new ReadBuffer();
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
    return this.#buffer.grownBytes;
  }

  /** Settles when the rest of the record that has begun has come; undefined if none has. */
  get whole(): Promise<void> | undefined {
    return this.#records.whole;
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
    if (this.#buffer.work > 0) {
      await TURNS.take(this.#buffer.work);
      this.#check("read");
    }
    const count = await this.#transport.read(this.#buffer.bytes);
    if (count === null) return false;
    checkTransferred("read", count, this.#buffer.bytes.length);
    this.#received += count;
    const start = performance.now();
    // A copy: the stream may hold it for later, and the next read reuses the buffer.
    this.#decrypt(this.#buffer.bytes.slice(0, count));
    this.#buffer.adapt(count, performance.now() - start);
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

  /** Record by record: what answers a message that comes behind text would wait for the next write otherwise. */
  #decrypt(bytes: Uint8Array): void {
    for (const part of this.#records.cut(bytes)) {
      this.push(part);
      this.onRecord?.();
    }
  }

  async #send(bytes: Uint8Array): Promise<void> {
    for (let unsent = bytes; unsent.length > 0;) {
      this.#check("write");
      const count = await this.#transport.write(unsent);
      checkTransferred("write", count, unsent.length);
      this.#sent += count;
      this.#waitingBytes -= count;
      unsent = unsent.subarray(count);
    }
  }

  #check(what: "read" | "write"): void {
    if (this.#stopped) throw new Deno.errors.BadResource(`Cannot ${what}: the connection is closed`);
  }
}
