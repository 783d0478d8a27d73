/**
 * A reverse proxy for a line server: each client gets a connection to the upstream, where its lines arrive with a
 * prefix, and the replies come back as they are.
 *
 * Run it with a port, the upstream and the prefix, here in front of `examples/shout_stream.ts`:
 * `deno run --allow-net examples/prefix_proxy.ts 8081 127.0.0.1:8080 "proxy says: "`
 *
 * ```text
 * $ nc 127.0.0.1 8081
 * hello
 * PROXY SAYS: HELLO
 * ```
 *
 * @module
 */

import { ByteLimitStream, type Conn, type ConnHandler, formatAddr, serveConnections } from "@x/shouty";
import type { ServeOptions, Server } from "@x/shouty";

/** What the proxy needs beside the options of its server. */
export interface ProxyOptions extends ServeOptions {
  /** The server that gets the lines. */
  upstream: Deno.ConnectOptions;
  /** Text that is put in front of each line. */
  prefix: string;
  /** Maximum time in milliseconds until the upstream has accepted a connection or a line. @default {15_000} */
  upstreamTimeout?: number;
}

/** Connects each client to the upstream. */
export function prefixProxy({ upstream, prefix, upstreamTimeout = 15_000 }: ProxyOptions): ConnHandler {
  return async (conn) => {
    // Each byte is a character, so that no byte changes on its way.
    conn.setFraming({ encoding: "latin1" });
    try {
      const signal = AbortSignal.any([conn.signal, AbortSignal.timeout(upstreamTimeout)]);
      using up = await Deno.connect({ ...upstream, signal });
      up.setNoDelay(true);
      // Ends when either side ends. The loop below meets the same errors.
      forward(conn, prefix, up, upstreamTimeout).catch(() => {});
      // Passes on whole lines only, so that an error line never follows half a reply.
      const replies = up.readable.pipeThrough(new ByteLimitStream(), { signal: conn.signal });
      for await (const lines of replies) await conn.write(lines);
    } catch {
      // A client whose time is up needs no error of the upstream.
      if (!conn.signal.aborted) await conn.write("error: upstream failed\n");
    }
  };
}

/** Sends the client's lines to the upstream, and ends that side after the last. */
async function forward(conn: Conn, prefix: string, up: Deno.TcpConn, timeout: number): Promise<void> {
  const writer = up.writable.getWriter();
  const prefixBytes = String.fromCharCode(...new TextEncoder().encode(prefix));
  for await (const line of conn.lines) {
    // The server's own timeouts do not run meanwhile, because it is not waiting for the client.
    const timer = setTimeout(() => up[Symbol.dispose](), timeout);
    const bytes = Uint8Array.from(`${prefixBytes}${line}\n`, (char) => char.charCodeAt(0));
    await writer.write(bytes).finally(() => clearTimeout(timer));
  }
  await up.closeWrite();
}

/** Serves the proxy on loopback. A client that waits for its reply counts as idle, so the idle timeout is longer. */
export function serveProxy(options: ProxyOptions): Server {
  return serveConnections({ hostname: "127.0.0.1", idleTimeout: 60_000, ...options }, prefixProxy(options));
}

if (import.meta.main) {
  const [port, upstream, prefix] = Deno.args;
  const { hostname, port: upstreamPort } = new URL(`tcp://${upstream}`);
  const server = serveProxy({ port: Number(port), upstream: { hostname, port: Number(upstreamPort) }, prefix });
  console.error(`listening on ${formatAddr(server.addr)}`);
}
