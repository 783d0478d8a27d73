/**
 * The PROXY protocol: a server behind a proxy sees the client's address in place of the proxy's.
 *
 * This folder holds the listener (here), the header's parser (`header.ts`, `extensions.ts`, `errors.ts`), and the two
 * kinds of connections that the listener gives (`transports.ts`).
 *
 * @module
 */

import {
  checkClock,
  checkListener,
  checkOptions,
  checkTimeout,
  checkTransferred,
  checkWhole,
} from "../../internal/api/check.ts";
import { parsePeers } from "../../internal/admission/cidr.ts";
import type { Clock } from "../../internal/api/serve_options.ts";
import { SYSTEM_CLOCK } from "../../internal/time/clock.ts";
import { peerLeftOr, PreparingListener } from "../wrappers/preparing_listener.ts";
import { ProxyHeaderError } from "./errors.ts";
import { MAX_HEADER_BYTES, parseProxyHeader, type ProxyHeader } from "./header.ts";
import type { Listener, Transport } from "../../internal/api/transport.ts";
import { DirectTransport, ProxiedTransport } from "./transports.ts";

/** Options of {@linkcode proxyProtocol}. */
export interface ProxyProtocolOptions {
  /**
   * The trusted proxies, which have to send a header: addresses and networks, such as `127.0.0.1,10.0.0.0/8,::1`, or a
   * list of such texts. The word `unix` stands for every peer on a Unix socket: the mode of the socket's file decides
   * which processes can connect, and so are trusted. Any other peer is served without a header.
   */
  from: string | readonly string[];
  /**
   * Maximum time in milliseconds from the connection's start to the end of its header. A connection that takes longer is
   * closed and rejected with reason `proxy-header`. `Infinity` switches the limit off.
   *
   * @default {5_000}
   */
  headerTimeout?: number | undefined;
  /**
   * Maximum number of connections whose header is incomplete. While there are this many, no other is accepted, and one
   * that has been incomplete for a second is closed and rejected with reason `proxy-header`, the longest first.
   *
   * @default {1_000}
   */
  maxPending?: number | undefined;
  /** Tells the time and sets the timers; a test can pass a clock that it moves by hand. */
  clock?: Clock | undefined;
}

/**
 * Reads the header of the PROXY protocol, version 1 or 2, with which each connection of a trusted proxy begins. After it
 * the connection's `remoteAddr` is the client's address, and its `localAddr` the one that the client connected to, for
 * limits, events and handlers alike. `conn.proxy` has what a header of version 2 says besides.
 *
 * Headers are read side by side, and the server gets a connection once its header is complete. A header that is
 * malformed, missing or late closes its own connection, with a `rejected` event. A header from a peer that is not a
 * trusted proxy ends its connection with reason `transport-error`.
 *
 * @param listener The listener that accepts the connections. The new listener owns it.
 * @param options Which proxies to trust, and how long to wait.
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

/** Size of the first buffer, and maximum header in the specification; a longer header gets the largest buffer at once. */
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

/** Reads more bytes behind those held, in the same buffer if it has room. */
async function readOn(transport: Transport, held: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  let buffer = new Uint8Array(held.buffer);
  if (held.length === buffer.length) {
    buffer = new Uint8Array(held.length < USUAL_HEADER_BYTES ? USUAL_HEADER_BYTES : MAX_HEADER_BYTES);
    buffer.set(held);
  }
  const count = await transport.read(buffer.subarray(held.length));
  if (count === null && held.length === 0) throw new Deno.errors.UnexpectedEof("The end of input, and no PROXY header");
  if (count === null) throw new ProxyHeaderError("No whole PROXY header before the end of input");
  checkTransferred("read", count, buffer.length - held.length);
  return buffer.subarray(0, held.length + count);
}
