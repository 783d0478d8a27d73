/**
 * The shouter by hand: web streams in place of `serve()`, with `ByteLimitStream` as their limit.
 *
 * The same shape in small. `serve()` has what this does without: clocks for slow lines and slow readers, endings that
 * lose no reply, a bound on connections, an accept loop that outlives a failure, events, counters; and it is several
 * times as fast.
 *
 * Run it with a port, 8080 by default: `deno run --allow-net examples/by_hand.ts 8080`
 *
 * ```text
 * $ nc 127.0.0.1 8080
 * Hello. How are you?
 * HELLO. HOW ARE YOU?
 * ```
 *
 * @module
 */

import { TextLineStream } from "@std/streams/text-line-stream";
import { ByteLimitStream, formatAddr, shout } from "@x/shouty";

/** How {@linkcode serveByHand} serves. */
export interface ByHandOptions {
  /** The port; 0 for any that is free. */
  port: number;
  /** How many milliseconds a client may be silent. */
  idleTimeout: number;
  /** Stops listening when it aborts. */
  signal: AbortSignal;
}

/** Serves shouted lines on loopback. `finished` settles when it has stopped and the last connection has ended. */
export function serveByHand(
  { port, idleTimeout, signal }: ByHandOptions,
): { addr: Deno.NetAddr; finished: Promise<void> } {
  const listener = Deno.listen({ hostname: "127.0.0.1", port });
  signal.addEventListener("abort", () => listener.close());
  return { addr: listener.addr, finished: accept(listener, idleTimeout) };
}

async function accept(listener: Deno.Listener<Deno.TcpConn>, idleTimeout: number): Promise<void> {
  const connections = new Set<Promise<void>>();
  for await (const conn of listener) {
    const connection = serveConn(conn, idleTimeout).finally(() => connections.delete(connection));
    connections.add(connection);
  }
  await Promise.all(connections);
}

async function serveConn(conn: Deno.TcpConn, idleTimeout: number): Promise<void> {
  const idle = new AbortController();
  // A pipe waits for a write that is under way, which a peer that does not read would hold up for ever.
  idle.signal.addEventListener("abort", () => conn.close());
  const restart = () => {
    clearTimeout(timer);
    timer = setTimeout(() => idle.abort(), idleTimeout);
  };
  let timer: ReturnType<typeof setTimeout> | undefined;
  restart();
  try {
    conn.setNoDelay(true);
    await ReadableStream.from(readAll(conn))
      .pipeThrough(new ByteLimitStream({ maxLineBytes: 1024 }))
      .pipeThrough(new TextDecoderStream("utf-8", { ignoreBOM: true }))
      .pipeThrough(new TextLineStream())
      .pipeThrough(mapLines((line) => (restart(), `${shout(line)}\n`)))
      .pipeThrough(new TextEncoderStream())
      .pipeTo(conn.writable, { signal: idle.signal });
  } catch {
    // Silent for too long, over the limit, or gone: that is the end of this connection, and of no other.
  } finally {
    clearTimeout(timer);
  }
}

/** `conn.readable` would close the connection at the end of input, with replies still to be written. */
async function* readAll(conn: Deno.Conn): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const buffer = new Uint8Array(16 * 1024);
  for (let count; (count = await conn.read(buffer)) !== null;) yield buffer.slice(0, count);
}

function mapLines(map: (line: string) => string): TransformStream<string, string> {
  return new TransformStream({ transform: (line, controller) => controller.enqueue(map(line)) });
}

if (import.meta.main) {
  const stop = new AbortController();
  Deno.addSignalListener("SIGINT", () => stop.abort());
  const { addr, finished } = serveByHand({
    port: Number(Deno.args[0] ?? 8080),
    idleTimeout: 10_000,
    signal: stop.signal,
  });
  console.error(`listening on ${formatAddr(addr)}`);
  await finished;
  Deno.exit();
}
