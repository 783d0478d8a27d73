/**
 * The encrypted side of a TLS connection.
 *
 * @module
 */

import { Duplex } from "node:stream";
import type { Transport } from "../../internal/api/transport.ts";
import { TURN_BYTES, TURNS } from "../../internal/time/turns.ts";

/** Reads begin with so little memory, as most connections wait for their peer most of the time. */
const SMALLEST_READ = 1024;
const LARGEST_READ = 64 * 1024;

/** What takes so long to decrypt, in milliseconds, is a turn's work, and too much for one read. */
const TURN_MS = 1;

/**
 * A transport as the stream that `node:tls` wants to stand on.
 *
 * It reads only when it is told to: `node:tls` decrypts whatever it gets, and keeps it, whether or not anybody reads it.
 */
export class Wire extends Duplex {
  readonly #transport: Transport;
  #buffer = new Uint8Array(SMALLEST_READ);
  /** The work of the last read, in bytes, if it did not have to wait for the peer. */
  #work = 0;
  /** What is being written; TLS goes on encrypting when that is done. */
  #sending = Promise.resolve();
  /** How many writes wait, how many of their bytes do, and how many bytes have left. */
  #writes = 0;
  #waitingBytes = 0;
  #sent = 0;
  #received = 0;
  #stopped = false;
  readonly #records = new RecordCutter();
  /** Called after each TLS record that was decrypted, as long as it is set; what it throws ends the reading. */
  onRecord: (() => void) | undefined;
  readonly #onSent: () => void;
  readonly #onError: (error: unknown) => void;

  /**
   * @param transport What to stand on; its owner closes it.
   * @param onSent Called when a write is done.
   * @param onError Called when one has failed.
   */
  constructor(transport: Transport, onSent: () => void, onError: (error: unknown) => void) {
    super({ allowHalfOpen: true });
    this.#transport = transport;
    this.#onSent = onSent;
    this.#onError = onError;
  }

  /** How many bytes have come. */
  get received(): number {
    return this.#received;
  }

  /** How many bytes the transport has taken. */
  get sent(): number {
    return this.#sent;
  }

  /** Whether the transport has taken all there is for now, or will take no more. */
  get idle(): boolean {
    return this.#writes === 0 || this.#stopped;
  }

  /** How many bytes wait to be taken. */
  get waitingBytes(): number {
    return this.#waitingBytes;
  }

  /** How much larger the read buffer is than at the start. */
  get grownBytes(): number {
    return this.#buffer.length - SMALLEST_READ;
  }

  /** Leaves the transport alone from now on, as it is closed or has failed. */
  stop(): void {
    this.#stopped = true;
  }

  /**
   * Reads once, and has it decrypted, which is done when the promise settles. What a read is worth is known by its time:
   * a message that changes the keys is some 30 bytes, and as much work as a hundred kilobytes of text.
   *
   * @returns Whether there was anything; otherwise it is the end of input.
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
    // A copy: should the stream ever keep it for later, the next read would overwrite it.
    this.#decrypt(this.#buffer.slice(0, count));
    this.#took(count, performance.now() - start);
    return true;
  }

  /**
   * Not `_write`, because `node:tls` has the last word, an alert, when it has destroyed this stream already; a stream
   * would drop it then.
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
    // What comes is pushed by `pull`.
  }

  #decrypt(bytes: Uint8Array): void {
    if (this.onRecord === undefined) return void this.push(bytes);
    for (const part of this.#records.cut(bytes)) {
      this.push(part);
      this.onRecord?.();
    }
  }

  async #send(bytes: Uint8Array): Promise<void> {
    for (let rest = bytes; rest.length > 0;) {
      this.#check("write");
      const count = await this.#transport.write(rest);
      this.#sent += count;
      this.#waitingBytes -= count;
      rest = rest.subarray(count);
    }
  }

  #check(what: "read" | "write"): void {
    if (this.#stopped) throw new Deno.errors.BadResource(`Cannot ${what}: the connection is closed`);
  }

  #took(count: number, ms: number): void {
    const { length } = this.#buffer;
    const full = count === length;
    this.#work = full ? Math.max(count, ms / TURN_MS * TURN_BYTES) : 0;
    const size = full && ms < TURN_MS ? Math.min(4 * length, LARGEST_READ) : Math.max(length / 4, SMALLEST_READ);
    if (size !== length) this.#buffer = new Uint8Array(size);
  }
}

/** The length of a TLS record's head: its type, its version, and the length of the rest. */
const HEAD_BYTES = 5;

/** Cuts a stream of bytes at the ends of TLS records. */
class RecordCutter {
  /** How many bytes of the record that has begun have come, and how many it has, which its head tells. */
  #come = 0;
  #length = HEAD_BYTES;

  /** Cuts what comes next. A part ends at a record's end, or with the bytes. */
  *cut(bytes: Uint8Array): Generator<Uint8Array> {
    let start = 0;
    for (let at = 0; at < bytes.length;) {
      // The head byte by byte, the rest at once.
      const step = this.#come < HEAD_BYTES ? 1 : Math.min(this.#length - this.#come, bytes.length - at);
      if (this.#come === 3) this.#length += bytes[at] << 8;
      if (this.#come === 4) this.#length += bytes[at];
      this.#come += step;
      at += step;
      if (this.#come < this.#length) continue;
      this.#come = 0;
      this.#length = HEAD_BYTES;
      yield bytes.subarray(start, at);
      start = at;
    }
    if (start < bytes.length) yield bytes.subarray(start);
  }
}
