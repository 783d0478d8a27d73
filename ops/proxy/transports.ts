/**
 * The connections of trusted proxies, and those of other peers at the same port.
 *
 * @module
 */

import { ProxyHeaderError } from "./errors.ts";
import { beginsWithProxyHeader, MARK_BYTES, type ProxyHeader } from "./header.ts";
import { Forwarding, type ProxyInfo, type Transport } from "../../internal/api/transport.ts";
import { PrefixedTransport } from "../wrappers/prefixed_transport.ts";

const NOTHING = new Uint8Array(0);

/** A client's connection through a proxy, with what its header says. */
export class ProxiedTransport extends PrefixedTransport {
  readonly #addresses: ProxyHeader["addresses"];
  readonly #proxy: ProxyInfo | undefined;

  /**
   * @param transport The proxy's connection.
   * @param header Its header.
   * @param rest The bytes that were read behind the header.
   */
  constructor(transport: Transport, header: ProxyHeader, rest: Uint8Array) {
    super(transport, rest);
    this.#addresses = header.addresses;
    this.#proxy = header.proxy;
  }

  override get remoteAddr(): Deno.Addr {
    return this.#addresses?.remoteAddr ?? super.remoteAddr;
  }

  override get localAddr(): Deno.Addr {
    return this.#addresses?.localAddr ?? super.localAddr;
  }

  override get proxy(): ProxyInfo | undefined {
    return this.#proxy ?? super.proxy;
  }
}

/**
 * A connection of a peer that is not a trusted proxy: a read fails once its input has begun with a header. It is served
 * at once, because its handler may send first. The first bytes of a header can reach the handler before they are known
 * as one: at most two empty lines and one with a NUL.
 */
export class DirectTransport extends Forwarding {
  #start: Uint8Array | undefined = NOTHING;

  override read(into: Uint8Array): Promise<number | null> {
    const reading = super.read(into);
    return this.#start === undefined ? reading : this.#check(reading, into, this.#start);
  }

  async #check(reading: Promise<number | null>, into: Uint8Array, before: Uint8Array): Promise<number | null> {
    const count = await reading;
    if (count === null) return null;
    const start = Uint8Array.of(...before, ...into.subarray(0, Math.min(count, MARK_BYTES)));
    const begins = beginsWithProxyHeader(start);
    if (begins) throw new ProxyHeaderError("A PROXY header from a peer that may not send one");
    this.#start = begins === undefined ? start : undefined;
    return count;
  }
}
