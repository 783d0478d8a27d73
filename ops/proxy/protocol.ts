/**
 * The PROXY protocol: behind a proxy, the client's address instead of the proxy's.
 *
 * @module
 */

import { checkClock, checkListener, checkOptions, checkTimeout, checkWhole } from "../../internal/api/check.ts";
import { parsePeers } from "../../internal/server/cidr.ts";
import type { Clock } from "../../internal/api/clock.ts";
import { SYSTEM_CLOCK } from "../../internal/time/clock.ts";
import { peerLeftOr, PreparingListener } from "../preparing_listener.ts";
import { MAX_HEADER_BYTES, parseProxyHeader, type ProxyHeader, ProxyHeaderError } from "./header.ts";
import type { Listener, Transport } from "../../internal/api/transport.ts";
import { DirectTransport, ProxiedTransport } from "./transports.ts";

/** Options of {@linkcode proxyProtocol}. */
export interface ProxyProtocolOptions {
  /**
   * The peers that may send a header, and have to: addresses and networks, such as `127.0.0.1,10.0.0.0/8,::1`, or the
   * same in parts. The word `unix` means every peer on a Unix socket: the mode of the socket's file decides who may
   * connect, and so who is believed. Any other peer is served without a header.
   */
  from: string | readonly string[];
  /**
   * How long a header may take from the connection's start, in milliseconds. Then the connection is closed, and
   * rejected with reason `proxy-header`. `Infinity` switches it off.
   *
   * @default {5_000}
   */
  headerTimeout?: number | undefined;
  /**
   * How many headers are waited for at a time. While there are so many, nothing more is accepted, and those that were
   * waited for a second already are given up, the longest first.
   *
   * @default {1_000}
   */
  maxPending?: number | undefined;
  /** Where time comes from: a test can put a clock here that it moves by hand. */
  clock?: Clock | undefined;
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
  checkListener(listener);
  checkOptions("proxyProtocol options", options);
  const { from, headerTimeout = 5_000, maxPending = 1_000, clock = SYSTEM_CLOCK } = options;
  checkTimeout("headerTimeout", headerTimeout);
  checkWhole("maxPending", maxPending, 1, Infinity);
  checkClock(clock);
  const isTrusted = parsePeers("from", from);
  return new PreparingListener(listener, {
    prepare: (transport) => readHeader(transport, isTrusted(transport.remoteAddr)),
    what: "PROXY header",
    reason: "proxy-header",
    timeout: headerTimeout,
    maxPending,
    clock,
  });
}

/** As long as the specification has headers; a longer one, with many values, gets the most at once. */
const USUAL_HEADER_BYTES = 536;

async function readHeader(transport: Transport, trusted: boolean): Promise<Transport> {
  if (!trusted) return new DirectTransport(transport);
  let bytes = new Uint8Array(0);
  let header: ProxyHeader | undefined;
  try {
    while (header === undefined) {
      bytes = await readOn(transport, bytes);
      header = parseProxyHeader(bytes);
    }
  } catch (error) {
    throw peerLeftOr(error, bytes.length);
  }
  return new ProxiedTransport(transport, header, bytes.slice(header.length));
}

/** Adds what comes to what is there, in the same memory where that has room. */
async function readOn(transport: Transport, held: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  let buffer = new Uint8Array(held.buffer);
  if (held.length === buffer.length) {
    buffer = new Uint8Array(held.length < USUAL_HEADER_BYTES ? USUAL_HEADER_BYTES : MAX_HEADER_BYTES);
    buffer.set(held);
  }
  const count = await transport.read(buffer.subarray(held.length));
  if (count === null && held.length === 0) throw new Deno.errors.UnexpectedEof("The end of input, and no PROXY header");
  if (count === null) throw new ProxyHeaderError("No whole PROXY header before the end of input");
  return buffer.subarray(0, held.length + count);
}
