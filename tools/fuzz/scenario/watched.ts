/**
 * Wraps listeners and transports, and checks that the server calls them by the rules.
 *
 * @module
 */

import type { Listener, Transport } from "@x/shouty";

/** Bytes of a quiet connection's buffer, which no budget counts. */
const LEAST_BYTES = 256;

/** Maximum bytes by which a buffer grows for whole lines, which is allowed until half of the budget is used. */
const LARGEST_BYTES = 65_536 - LEAST_BYTES;

/** All transports of one server. */
export class Watch {
  readonly transports: WatchedTransport[] = [];
  /** Broken rules. */
  readonly complaints: string[] = [];
  readonly #budget: number;

  constructor(maxBufferedBytes: number = Infinity) {
    this.#budget = Math.max(maxBufferedBytes, maxBufferedBytes / 2 + LARGEST_BYTES);
  }

  /** Wraps a listener, so that each of its transports is watched. */
  over(listener: Listener): Listener {
    return {
      addr: listener.addr,
      accept: async () => {
        const transport = new WatchedTransport(await listener.accept(), this);
        this.transports.push(transport);
        return transport;
      },
      close: () => listener.close(),
    };
  }

  complain(text: string): void {
    this.complaints.push(text);
  }

  /** Checks the budget; called at the start of each read, when the buffer's size is final. */
  checkBudget(): void {
    let bytes = 0;
    for (const transport of this.transports) bytes += Math.max(0, transport.bufferBytes - LEAST_BYTES);
    if (bytes > this.#budget) this.complain(`${bytes} bytes are buffered, of ${this.#budget}`);
  }
}

/** A transport that records its bytes, and whether the server keeps the rules of {@linkcode Transport}. */
export class WatchedTransport implements Transport {
  readonly remoteAddr: Deno.Addr;
  readonly localAddr: Deno.Addr;
  readonly #inner: Transport;
  readonly #watch: Watch;
  readonly #under = { read: 0, write: 0, closeWrite: 0 };
  readonly #input: Uint8Array[] = [];
  readonly #output: Uint8Array[] = [];
  /** Size in bytes of the buffer of the last read; 0 once the transport is closed. */
  bufferBytes = 0;
  closes = 0;
  /** Whether the peer has ended its side. */
  ended = false;
  /** Whether the server cut off output that was not written yet. */
  cut = false;

  constructor(inner: Transport, watch: Watch) {
    this.#inner = inner;
    this.#watch = watch;
    this.remoteAddr = inner.remoteAddr;
    this.localAddr = inner.localAddr;
  }

  /** The bytes that the server has read. */
  get input(): Uint8Array {
    return join(this.#input);
  }

  /** The bytes of the server's writes that the transport has taken. */
  get output(): Uint8Array {
    return join(this.#output);
  }

  read(into: Uint8Array): Promise<number | null> {
    // After closeWrite, all connections discard their input into one shared buffer.
    if (this.#under.closeWrite === 0) this.bufferBytes = into.buffer.byteLength;
    if (into.length === 0) this.#watch.complain("read() into nothing");
    this.#watch.checkBudget();
    return this.#call("read", async () => {
      const count = await this.#inner.read(into);
      if (count === null) this.ended = true;
      else this.#input.push(into.slice(0, count));
      return count;
    });
  }

  write(bytes: Uint8Array): Promise<number> {
    if (bytes.length === 0 || bytes.length > 65_536) this.#watch.complain(`write() of ${bytes.length} bytes`);
    if (this.#under.closeWrite > 0) this.#watch.complain("write() after closeWrite()");
    const before = bytes.slice();
    return this.#call("write", async () => {
      const count = await this.#inner.write(bytes);
      this.#output.push(before.subarray(0, count));
      if (bytes.some((byte, i) => byte !== before[i])) this.#watch.complain("Bytes changed during write()");
      return count;
    });
  }

  closeWrite(): Promise<void> {
    if (this.#under.write > 0) this.#watch.complain("closeWrite() during write()");
    this.#under.closeWrite++;
    if (this.closes > 0) this.#watch.complain("closeWrite() after close()");
    return this.#inner.closeWrite();
  }

  close(): void {
    this.bufferBytes = 0;
    if (++this.closes > 1) this.#watch.complain("close() after close()");
    this.#inner.close();
  }

  reset(): void {
    this.cut = true;
    this.close();
  }

  async #call<T>(method: "read" | "write", call: () => Promise<T>): Promise<T> {
    if (this.closes > 0) this.#watch.complain(`${method}() after close()`);
    if (++this.#under[method] > 1) this.#watch.complain(`${method}() during ${method}()`);
    try {
      return await call();
    } finally {
      this.#under[method]--;
    }
  }
}

/** Joins bytes. */
export function join(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
