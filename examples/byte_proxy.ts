/**
 * A proxy of bytes: each client gets a connection to the target, and what one side sends reaches the other as it is. It
 * knows no lines and no protocol, so it can stand before a database as well as before a mail server.
 *
 * Run it with a port and the target, `HOST:PORT` or `unix:PATH`, here in front of `examples/redis.ts`:
 * `deno run -A examples/byte_proxy.ts 6380 127.0.0.1:6379`
 *
 * ```text
 * $ redis-cli -p 6380
 * 127.0.0.1:6380> SET greeting hello
 * OK
 * ```
 *
 * Each side may end while the other still sends. A side that breaks off resets the other one, where the system lets the
 * proxy do so: the client if the listener is one of `listenEpoll`, as below on Linux. Deno's own sockets can only end.
 *
 * @module
 */

import { type Conn, connect, type ConnectOptions, type ConnHandler, formatAddr, serveConnections } from "@x/shouty";
import type { ServeOptions, Server, ServerEvent } from "@x/shouty";
import { listenEpoll } from "@x/shouty/ops";

/** Maximum time for which one end may take nothing of what waits for it, or owe an answer to one that has ended. */
const PATIENCE_MS = 3_600_000;
/** Time that the clients have to finish in a shutdown, in milliseconds. */
const DRAIN_MS = 10_000;
/**
 * The limits of both sides. Only the two ends know what their silence means, such as that of a subscriber. So no clock
 * runs while both are silent; the kernel's keep-alive finds an end that has vanished.
 */
const LIMITS = { idleTimeout: Infinity, halfCloseTimeout: Infinity, writeTimeout: PATIENCE_MS };

/** Connects each client to the target. */
export function byteProxy(target: ConnectOptions): ConnHandler {
  return async (client) => {
    const gone = new AbortController();
    broken(client).then((reason) => gone.abort(new Error(`client: ${reason}`)));
    try {
      const server = await connect({ ...LIMITS, ...target, signal: gone.signal });
      broken(server).then((reason) => client.writable.abort(new Error(`target: ${reason}`)));
      await Promise.all([pass(client, server, "client"), pass(server, client, "target")]);
    } catch (error) {
      // The target cannot be reached. The client has got nothing that it could take for a part of an answer.
      client.close({ detail: `${error}` });
    }
  };
}

/** Resolves, with the reason, when a connection breaks off: when it is closed before both sides have ended. */
async function broken({ closed }: Conn): Promise<string> {
  const { reason } = await closed;
  return reason === "end" ? new Promise(() => {}) : reason;
}

/** Passes on what one side sends, and then its end. */
async function pass(from: Conn, to: Conn, side: string): Promise<void> {
  try {
    // `from.readable.pipeTo(to.writable)` does the same, but takes a third more processor time, and locks `writable`.
    for await (const bytes of from.readable) await to.write(bytes);
  } catch {
    return; // The other side has broken off.
  }
  // The bytes also end, without an error, where a connection breaks off.
  if (from.ending !== "end") return await to.writable.abort(new Error(`${side}: ${from.ending}`));
  await to.closeWrite();
  to.setLimits({ idleTimeout: PATIENCE_MS });
}

/** Serves the proxy on loopback; the options go to the server. */
export function serveByteProxy(target: ConnectOptions, options: ServeOptions = {}): Server {
  return serveConnections({ hostname: "127.0.0.1", ...LIMITS, ...options }, byteProxy(target));
}

/** Lets the clients finish. Those that are left after a time are reset: an end would look like that of their answers. */
export async function drain(server: Server, milliseconds: number): Promise<void> {
  const reset = () => Array.from(server.connections, (client) => client.writable.abort(new Error("shutdown")));
  const timer = setTimeout(reset, milliseconds);
  // Not `finish`: bytes have no boundary at which a client could be told to end.
  await server.shutdown({ drain: "linger", drainTimeout: Infinity });
  clearTimeout(timer);
}

/** Logs the connections that did not end by themselves. */
function log(event: ServerEvent): void {
  if (event.type !== "closed" || event.reason === "end") return;
  console.error(`${formatAddr(event.conn.remoteAddr)}: ${event.reason}, ${event.detail ?? event.error ?? "no error"}`);
}

function parse(target: string): ConnectOptions {
  if (target.startsWith("unix:")) return { path: target.slice("unix:".length) };
  const { hostname, port } = new URL(`tcp://${target}`);
  return { hostname, port: Number(port) };
}

if (import.meta.main) {
  const [port, target] = Deno.args;
  const here = { hostname: "127.0.0.1", port: Number(port) };
  const listener = Deno.build.os === "linux" ? listenEpoll(here) : undefined;
  const server = serveByteProxy(parse(target), { ...here, listener, onEvent: log });
  console.error(`listening on ${formatAddr(server.addr)}`);
  const signals = Deno.build.os === "windows" ? ["SIGINT"] as const : ["SIGINT", "SIGTERM"] as const;
  for (const signal of signals) Deno.addSignalListener(signal, () => drain(server, DRAIN_MS));
  await server.finished;
  Deno.exit();
}
