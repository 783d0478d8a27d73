/**
 * The shouter through Web streams: a byte-limiting stream piped through a `TextLineStream`, on the server's own clocks.
 *
 * `lineStream` is `ByteLimitStream`, `TextDecoderStream` and `TextLineStream`, one piped through the other. The server
 * adds what a pipe lacks: timeouts for silent clients and slow readers, a limit on connections, events, and a drain.
 * `lineTimeout` alone does not run, because a stream of bytes has no lines: `maxAge` bounds a client that trickles.
 *
 * Run it with a port, 8080 by default: `deno run --allow-net examples/streams.ts 8080`
 *
 * ```text
 * $ nc 127.0.0.1 8080
 * Hello. How are you?
 * HELLO. HOW ARE YOU?
 * ```
 *
 * @module
 */

import type { ConnHandler, ServeOptions, Server } from "@x/shouty";
import { formatAddr, lineStream, serveConnections, shout } from "@x/shouty";

/** Answers each line in upper case; a line may have `maxLineBytes` at most. */
export function shoutStreams(maxLineBytes?: number): ConnHandler {
  return (conn) =>
    lineStream(conn.readable, { maxLineBytes })
      .pipeThrough(mapLines((line) => `${shout(line)}\n`))
      .pipeTo(conn.writable, { signal: conn.signal });
}

function mapLines(map: (line: string) => string): TransformStream<string, string> {
  return new TransformStream({ transform: (line, controller) => controller.enqueue(map(line)) });
}

/** Serves shouted lines on loopback; the options go to the server. */
export function serveStreams(options: ServeOptions = {}): Server {
  return serveConnections({ hostname: "127.0.0.1", ...options }, shoutStreams(options.maxLineBytes));
}

if (import.meta.main) {
  const server = serveStreams({ port: Number(Deno.args[0] ?? 8080) });
  console.error(`listening on ${formatAddr(server.addr)}`);
}
