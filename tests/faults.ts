/**
 * Listeners and transports that fail and fall short, as told.
 *
 * @module
 */

import type { Listener, Transport } from "@x/shouty";

/** What goes wrong. Calls are counted from 1, for each connection anew. */
export interface Faults {
  /** What `accept` throws, one after the other, before it accepts. */
  accepts?: unknown[];
  /** What a connection's nth `read`, `write` or `closeWrite` throws; nothing where it returns `undefined`. */
  fail?: (method: "read" | "write" | "closeWrite", call: number) => unknown;
  /** How many bytes the nth read moves at most. */
  readBytes?: (call: number) => number;
  /** How many bytes the nth write moves at most. */
  writeBytes?: (call: number) => number;
}

/** Puts faults between a listener and the server. */
export function faulty(listener: Listener, faults: Faults): Listener {
  const errors = [...faults.accepts ?? []];
  return {
    addr: listener.addr,
    accept: async () => {
      if (errors.length > 0) throw errors.shift();
      return new FaultyTransport(await listener.accept(), faults);
    },
    close: () => listener.close(),
  };
}

class FaultyTransport implements Transport {
  readonly #inner: Transport;
  readonly #faults: Faults;
  readonly #calls = { read: 0, write: 0, closeWrite: 0 };

  constructor(inner: Transport, faults: Faults) {
    this.#inner = inner;
    this.#faults = faults;
  }

  get remoteAddr(): Deno.Addr {
    return this.#inner.remoteAddr;
  }

  get localAddr(): Deno.Addr {
    return this.#inner.localAddr;
  }

  async read(into: Uint8Array): Promise<number | null> {
    const call = this.#call("read");
    const most = this.#faults.readBytes?.(call) ?? into.length;
    return await this.#inner.read(into.subarray(0, most));
  }

  async write(bytes: Uint8Array): Promise<number> {
    const call = this.#call("write");
    const most = this.#faults.writeBytes?.(call) ?? bytes.length;
    return await this.#inner.write(bytes.subarray(0, most));
  }

  async closeWrite(): Promise<void> {
    this.#call("closeWrite");
    await this.#inner.closeWrite();
  }

  close(): void {
    this.#inner.close();
  }

  #call(method: "read" | "write" | "closeWrite"): number {
    const call = ++this.#calls[method];
    const error = this.#faults.fail?.(method, call);
    if (error !== undefined) throw error;
    return call;
  }
}
