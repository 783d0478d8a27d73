/**
 * Listeners and transports that fail or move few bytes on demand, and that detect wrong use.
 *
 * @module
 */

import type { Listener, Transport } from "@x/shouty";

/** The calls that can be made to fail. */
export type Method = "read" | "write" | "closeWrite";

/** The faults to inject. The calls of each connection are counted from 1. */
export interface Faults {
  /** The errors that `accept` throws, one after another, before it accepts. */
  accepts?: unknown[];
  /** Returns the error of a connection's nth call; `undefined` for none. */
  fail?: (method: Method, call: number) => unknown;
  /** Returns the maximum bytes of the nth read. */
  readBytes?: (call: number) => number;
  /** Returns the maximum bytes of the nth write. */
  writeBytes?: (call: number) => number;
  /** The list to which breaches of the contract of `Transport` are added. */
  misuse?: string[];
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
  readonly #outstanding = new Set<Method>();
  #closed = false;

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

  read(into: Uint8Array): Promise<number | null> {
    if (into.length === 0) this.#misused("read into nothing");
    return this.#call("read", (call) => this.#inner.read(into.subarray(0, this.#faults.readBytes?.(call))));
  }

  write(bytes: Uint8Array): Promise<number> {
    if (bytes.length === 0) this.#misused("write of nothing");
    return this.#call("write", (call) => this.#inner.write(bytes.subarray(0, this.#faults.writeBytes?.(call))));
  }

  closeWrite(): Promise<void> {
    return this.#call("closeWrite", () => this.#inner.closeWrite());
  }

  close(): void {
    if (this.#closed) this.#misused("close after close");
    this.#closed = true;
    this.#inner.close();
  }

  async #call<T>(method: Method, run: (call: number) => Promise<T>): Promise<T> {
    if (this.#closed) this.#misused(`${method} after close`);
    if (this.#outstanding.has(method)) this.#misused(`${method} during ${method}`);
    this.#outstanding.add(method);
    try {
      const call = ++this.#calls[method];
      const error = this.#faults.fail?.(method, call);
      if (error !== undefined) throw error;
      return await run(call);
    } finally {
      this.#outstanding.delete(method);
    }
  }

  #misused(how: string): void {
    this.#faults.misuse?.push(how);
  }
}

/** Wraps a listener, and replaces methods of its transports. */
export function tapped(listener: Listener, tap: (inner: Transport) => Partial<Transport>): Listener {
  return {
    addr: listener.addr,
    accept: async () => {
      const inner = await listener.accept();
      return {
        remoteAddr: inner.remoteAddr,
        localAddr: inner.localAddr,
        read: (into) => inner.read(into),
        write: (bytes) => inner.write(bytes),
        closeWrite: () => inner.closeWrite(),
        close: () => inner.close(),
        ...tap(inner),
      };
    },
    close: () => listener.close(),
  };
}
