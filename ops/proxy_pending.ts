/**
 * One proxy's connection while its header is read.
 *
 * @module
 */

import type { Cidrs } from "../internal/cidr.ts";
import type { Clock } from "../internal/clocks.ts";
import { AcceptRejection } from "../internal/errors.ts";
import { MAX_HEADER_BYTES, parseProxyHeader, type ProxyHeader, ProxyHeaderError } from "../internal/proxy_header.ts";
import { closeQuietly, type Transport } from "../internal/transport.ts";
import { ProxiedTransport } from "./proxy_transports.ts";

/** Whom to trust, and how long to wait for how many. */
export interface Settings {
  readonly trusted: Cidrs;
  readonly headerTimeout: number;
  readonly maxPending: number;
  readonly clock: Clock;
}

/** What there is to say about one connection, or about accepting. */
export type Outcome = { readonly transport: Transport } | { readonly error: unknown };

/** As long as the specification has headers; a longer one, with many values, gets the most at once. */
const USUAL_HEADER_BYTES = 536;

/** A proxy's connection whose header is read. It owns the transport until it settles, which it does once. */
export class Pending {
  readonly transport: Transport;
  readonly #onSettled: (outcome: Outcome) => void;
  readonly #cancelTimeout: () => void;
  #settled = false;

  /**
   * @param transport The proxy's connection.
   * @param settings How long to wait, and by which clock.
   * @param onSettled Called once, unless it is dropped: with the client's connection, or with the rejection.
   */
  constructor(transport: Transport, { headerTimeout, clock }: Settings, onSettled: (outcome: Outcome) => void) {
    this.transport = transport;
    this.#onSettled = onSettled;
    const expire = () => this.fail(new ProxyHeaderError(`No PROXY header within ${headerTimeout} ms`));
    this.#cancelTimeout = headerTimeout === Infinity ? () => {} : clock.setTimer(expire, headerTimeout, false);
  }

  /** Reads until the header is there. */
  async read(): Promise<void> {
    try {
      let bytes = new Uint8Array(0);
      let header: ProxyHeader | undefined;
      while (header === undefined) {
        bytes = await this.#readOn(bytes);
        if (this.#settled) return;
        header = parseProxyHeader(bytes);
      }
      const rest = bytes.slice(header.length);
      this.#settle({ transport: new ProxiedTransport(this.transport, header, rest) });
    } catch (error) {
      this.fail(error);
    }
  }

  /** Adds what comes to what is there, in the same memory where that has room. */
  async #readOn(held: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
    let buffer = new Uint8Array(held.buffer);
    if (held.length === buffer.length) {
      buffer = new Uint8Array(held.length < USUAL_HEADER_BYTES ? USUAL_HEADER_BYTES : MAX_HEADER_BYTES);
      buffer.set(held);
    }
    const count = await this.transport.read(buffer.subarray(held.length));
    if (count === null) throw new ProxyHeaderError("No PROXY header before the end of input");
    return buffer.subarray(0, held.length + count);
  }

  /** Closes it: a read that is under way ends with that. */
  fail(cause: unknown): void {
    if (this.#settled) return;
    this.#settle({ error: new AcceptRejection("proxy-header", this.transport.remoteAddr, { cause }) });
    closeQuietly(this.transport);
  }

  /** Closes it without a word. */
  drop(): void {
    this.#settled = true;
    this.#cancelTimeout();
    closeQuietly(this.transport);
  }

  #settle(outcome: Outcome): void {
    this.#settled = true;
    this.#cancelTimeout();
    this.#onSettled(outcome);
  }
}
