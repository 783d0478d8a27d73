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
  /** Where the lines go. */
  upstream: Deno.ConnectOptions;
  /** What is put in front of each. */
  prefix: string;
  /** How long the upstream may take to accept a connection or a line, in milliseconds. @default {15_000} */
  upstreamTimeout?: number;
}

/** Connects each client to the upstream. */
export function prefixProxy({ upstream, prefix, upstreamTimeout = 15_000 }: ProxyOptions): ConnHandler {
  return async (conn) => {
    try {
      const signal = AbortSignal.any([conn.signal, AbortSignal.timeout(upstreamTimeout)]);
      using up = await Deno.connect({ ...upstream, signal });
      up.setNoDelay(true);
      // It ends when either side does, and has nothing to say that the replies do not tell.
      forward(conn, prefix, up, upstreamTimeout).catch(() => {});
      // Only whole lines, so that an error line is one of its own.
      const replies = up.readable.pipeThrough(new ByteLimitStream(), { signal: conn.signal });
      for await (const lines of replies) await conn.write(lines);
    } catch {
      await conn.write("error: upstream failed\n");
    }
  };
}

/** Sends the client's lines on, and then the end of them. */
async function forward(conn: Conn, prefix: string, up: Deno.TcpConn, timeout: number): Promise<void> {
  const writer = up.writable.getWriter();
  for await (const line of conn.lines) {
    // The clocks of the connection stand still meanwhile: it is not the client who is waited for.
    const timer = setTimeout(() => up[Symbol.dispose](), timeout);
    await writer.write(new TextEncoder().encode(`${prefix}${line}\n`)).finally(() => clearTimeout(timer));
  }
  await up.closeWrite();
}

/** Serves the proxy on loopback. A client that waits for its reply looks idle, so there is more time for that. */
export function serveProxy(options: ProxyOptions): Server {
  return serveConnections({ hostname: "127.0.0.1", idleTimeout: 60_000, ...options }, prefixProxy(options));
}

if (import.meta.main) {
  const [port, upstream, prefix] = Deno.args;
  const { hostname, port: upstreamPort } = new URL(`tcp://${upstream}`);
  const server = serveProxy({ port: Number(port), upstream: { hostname, port: Number(upstreamPort) }, prefix });
  console.error(`listening on ${formatAddr(server.addr)}`);
}
