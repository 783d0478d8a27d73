/**
 * Listeners and transports that watch how the server treats them.
 *
 * @module
 */

import type { Listener, Transport } from "@x/shouty";

/** What a quiet connection's buffer takes, which no budget counts. */
const LEAST_BYTES = 256;

/** Whole lines have no budget; their buffers may grow until half of it is used. */
const LARGEST_BYTES = 65_536 - LEAST_BYTES;

/** All transports of one server. */
export class Watch {
  readonly transports: WatchedTransport[] = [];
  /** What the server did that it must not do. */
  readonly complaints: string[] = [];
  readonly #budget: number;

  constructor(maxBufferedBytes: number = Infinity) {
    this.#budget = Math.max(maxBufferedBytes, maxBufferedBytes / 2 + LARGEST_BYTES);
  }

  /** Puts itself between a listener and the server. */
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

  /** Called when a buffer is handed over to be read into, which is when the budget has to be kept. */
  checkBudget(): void {
    let bytes = 0;
    for (const transport of this.transports) bytes += Math.max(0, transport.bufferBytes - LEAST_BYTES);
    if (bytes > this.#budget) this.complain(`${bytes} bytes are buffered, of ${this.#budget}`);
  }
}

/** One transport: what went through it, and whether the server keeps the rules of {@linkcode Transport}. */
export class WatchedTransport implements Transport {
  readonly remoteAddr: Deno.Addr;
  readonly localAddr: Deno.Addr;
  readonly #inner: Transport;
  readonly #watch: Watch;
  readonly #under = { read: 0, write: 0, closeWrite: 0 };
  readonly #input: Uint8Array[] = [];
  readonly #output: Uint8Array[] = [];
  /** How large the buffer is that was last read into; 0 once it is closed. */
  bufferBytes = 0;
  closes = 0;

  constructor(inner: Transport, watch: Watch) {
    this.#inner = inner;
    this.#watch = watch;
    this.remoteAddr = inner.remoteAddr;
    this.localAddr = inner.localAddr;
  }

  /** What the server has read. */
  get input(): Uint8Array {
    return join(this.#input);
  }

  /** What was taken of what the server wrote. */
  get output(): Uint8Array {
    return join(this.#output);
  }

  read(into: Uint8Array): Promise<number | null> {
    // The buffer for what nobody wants is everybody's.
    if (this.#under.closeWrite === 0) this.bufferBytes = into.buffer.byteLength;
    if (into.length === 0) this.#watch.complain("read() into nothing");
    this.#watch.checkBudget();
    return this.#call("read", async () => {
      const count = await this.#inner.read(into);
      if (count !== null) this.#input.push(into.slice(0, count));
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

function join(parts: Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
