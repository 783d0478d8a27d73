/**
 * The PROXY protocol: behind a proxy, the client's address instead of the proxy's.
 *
 * @module
 */

import { checkOptions, checkTimeout, checkWhole } from "../internal/check.ts";
import { parseCidrs } from "../internal/cidr.ts";
import { type Clock, SYSTEM_CLOCK } from "../internal/clocks.ts";
import { ProxyHeaderError } from "../internal/proxy_header.ts";
import { closeQuietly, type Listener, type Transport } from "../internal/transport.ts";
import { type Outcome, Pending, type Settings } from "./proxy_pending.ts";
import { DirectTransport } from "./proxy_transports.ts";

/** Options of {@linkcode proxyProtocol}. */
export interface ProxyProtocolOptions {
  /**
   * The peers that may send a header, and have to: addresses and networks, such as `127.0.0.1,10.0.0.0/8,::1`, or the
   * same in parts. Whoever else connects is served without one.
   */
  from: string | readonly string[];
  /**
   * How long a header may take from the connection's start, in milliseconds. Then the connection is closed, and
   * rejected with reason `proxy-header`. `Infinity` switches it off.
   *
   * @default {5_000}
   */
  headerTimeout?: number;
  /**
   * How many headers are waited for at a time. One more, and the connection that has waited longest is closed, and
   * rejected with reason `proxy-header`.
   *
   * @default {1_000}
   */
  maxPending?: number;
  /** Where time comes from: a test can put a clock here that it moves by hand. */
  clock?: Clock;
}

/**
 * Reads the header of the PROXY protocol, version 1 or 2, that each connection of a trusted proxy begins with. The
 * connection's `remoteAddr` is the client's then, and its `localAddr` the one that the client connected to, for
 * everybody: limits, events, handlers.
 *
 * Headers are read side by side, and the server gets a connection when its header is complete. One that is malformed,
 * missing or late ends its own connection, and is a `rejected` event. A header from anybody else ends the connection
 * that it came with, with reason `transport-error`.
 *
 * @param listener Where connections come from. It belongs to the new listener from now on.
 * @param options Whom to trust, and how long to wait.
 * @returns A listener for `serve({ listener })`.
 * @throws {RangeError | TypeError} If an option is wrong.
 *
 * @example A server behind a proxy on the same machine
 * ```ts
 * import { serve } from "@x/shouty";
 * import { proxyProtocol } from "@x/shouty/ops";
 * import { assertEquals } from "@std/assert";
 *
 * const tcp = Deno.listen({ hostname: "127.0.0.1", port: 0 });
 * const listener = proxyProtocol(tcp, { from: "127.0.0.1,::1" });
 * await using _server = serve({ listener }, (line, conn) => {
 *   const { hostname } = conn.remoteAddr as Deno.NetAddr;
 *   return `${line}, ${hostname}!`;
 * });
 *
 * // What the proxy sends for its client, and the client's first line.
 * using conn = await Deno.connect({ port: tcp.addr.port });
 * await conn.write(new TextEncoder().encode("PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\nHello\n"));
 * await conn.closeWrite();
 * assertEquals(await new Response(conn.readable).text(), "Hello, 192.0.2.7!\n");
 * ```
 */
export function proxyProtocol(listener: Listener, options: ProxyProtocolOptions): Listener {
  checkOptions("proxyProtocol options", options);
  const { from, headerTimeout = 5_000, maxPending = 1_000, clock = SYSTEM_CLOCK } = options;
  checkTimeout("headerTimeout", headerTimeout);
  checkWhole("maxPending", maxPending, 1, Infinity);
  return new ProxyListener(listener, { trusted: parseCidrs("from", from), headerTimeout, maxPending, clock });
}

/**
 * Accepts from the listener below, which it owns, as long as somebody waits for a connection above. It owns every
 * connection until that is accepted from here: those in `#pending` while their headers are read, those in `#outcomes`
 * when they are done and nobody waits.
 */
class ProxyListener implements Listener {
  readonly #listener: Listener;
  readonly #settings: Settings;
  readonly #pending = new Set<Pending>();
  readonly #outcomes: Outcome[] = [];
  /** The outstanding `accept` from above; whether one is outstanding below, and what settles with it. */
  #asking: PromiseWithResolvers<Transport> | undefined;
  #accepting = false;
  #accepted = Promise.resolve();
  #unref = false;
  #closed = false;

  constructor(listener: Listener, settings: Settings) {
    this.#listener = listener;
    this.#settings = settings;
  }

  get addr(): Deno.Addr {
    return this.#listener.addr;
  }

  accept(): Promise<Transport> {
    if (this.#asking !== undefined) {
      return Promise.reject(new Deno.errors.Busy("Cannot accept: another accept is outstanding"));
    }
    const { promise } = this.#asking = Promise.withResolvers<Transport>();
    this.#answer();
    if (!this.#accepting) this.#accepted = this.#accept();
    return promise;
  }

  close(): Promise<void> {
    this.#closed = true;
    for (const pending of this.#pending) pending.drop();
    this.#pending.clear();
    for (const { transport } of this.#ready()) closeQuietly(transport);
    this.#outcomes.length = 0;
    const closing = this.#listener.close();
    return Promise.all([closing, this.#accepted]).then(() => {});
  }

  ref(): void {
    this.#unref = false;
    this.#listener.ref?.();
    for (const { transport } of [...this.#pending, ...this.#ready()]) transport.ref?.();
  }

  unref(): void {
    this.#unref = true;
    this.#listener.unref?.();
    for (const { transport } of [...this.#pending, ...this.#ready()]) transport.unref?.();
  }

  #ready(): { transport: Transport }[] {
    return this.#outcomes.filter((outcome) => "transport" in outcome);
  }

  /** What comes from below while nobody waits is kept, so nothing more is asked for. */
  async #accept(): Promise<void> {
    this.#accepting = true;
    while (this.#asking !== undefined) {
      try {
        this.#take(await this.#listener.accept());
      } catch (error) {
        this.#give({ error });
      }
    }
    this.#accepting = false;
  }

  #take(transport: Transport): void {
    // It came too late for anybody to own it.
    if (this.#closed) return closeQuietly(transport);
    if (this.#unref) transport.unref?.();
    const { trusted, maxPending } = this.#settings;
    if (!trusted.matches(transport.remoteAddr)) return this.#give({ transport: new DirectTransport(transport) });
    if (this.#pending.size >= maxPending) {
      const [oldest] = this.#pending;
      oldest.fail(new ProxyHeaderError(`No PROXY header while ${maxPending} others came to wait for theirs`));
    }
    const pending = new Pending(transport, this.#settings, (outcome) => {
      this.#pending.delete(pending);
      this.#give(outcome);
    });
    this.#pending.add(pending);
    pending.read();
  }

  #give(outcome: Outcome): void {
    this.#outcomes.push(outcome);
    this.#answer();
  }

  #answer(): void {
    if (this.#asking === undefined || this.#outcomes.length === 0) return;
    const { resolve, reject } = this.#asking;
    this.#asking = undefined;
    const outcome = this.#outcomes.shift()!;
    if ("error" in outcome) reject(outcome.error);
    else resolve(outcome.transport);
  }
}
