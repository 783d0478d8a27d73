/**
 * The shouter as a conversation handler, which reads the client's lines one by one.
 *
 * Run it with a port, 8080 by default: `deno run --allow-net examples/shout_stream.ts 8080`
 *
 * ```text
 * $ nc 127.0.0.1 8080
 * Hello. How are you?
 * HELLO. HOW ARE YOU?
 * ```
 *
 * @module
 */

import { type Conn, formatAddr, serveConnections, type ServeOptions, type Server, shout } from "@x/shouty";

/** Answers each line in upper case. */
export async function shoutLines(conn: Conn): Promise<void> {
  for await (const line of conn.lines) await conn.write(`${shout(line)}\n`);
}

/** Serves shouted lines on loopback; the options go to the server. */
export function serveShouts(options: ServeOptions = {}): Server {
  return serveConnections({ hostname: "127.0.0.1", ...options }, shoutLines);
}

if (import.meta.main) {
  const server = serveShouts({ port: Number(Deno.args[0] ?? 8080) });
  console.error(`listening on ${formatAddr(server.addr)}`);
}
