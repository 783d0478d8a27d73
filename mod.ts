/**
 * shouty: a TCP line server that runs like clockwork, and the library to build others with. What `Deno.serve` is to HTTP,
 * this is to lines over TCP: for protocols of lines, of lengths and bodies, or of both, whose clients may be slow, silent,
 * broken or hostile.
 *
 * There are three ways to handle a connection, inside the same server:
 *
 * - a line handler, {@linkcode serve}: gets one line and returns the reply
 * - a conversation, {@linkcode serveConnections}: gets a {@linkcode Conn}, reads lines and bytes, and writes
 * - a conversation in Web streams: the same, with `conn.readable`, `conn.writable` and {@linkcode lineStream}
 *
 * {@linkcode connect} and {@linkcode connectPool} are the other direction, with the same reads, limits and clocks.
 *
 * Every wait and every buffer is bounded by default. A client that says nothing is closed after 10 s
 * (`firstLineTimeout`, `idleTimeout`), and so is one that takes longer for a line (`lineTimeout`) or does not read its
 * replies (`writeTimeout`, 30 s on Deno's sockets). A line has at most 64 KiB (`maxLineBytes`), and all connections
 * together hold at most 128 MiB (`maxBufferedBytes`). What one client does ends its own connection at most, for exactly
 * one reason, which has a name, a counter and an event. {@linkcode Server.shutdown} lets clients finish, and ends by a
 * deadline. {@linkcode ServeOptions} has all options.
 *
 * The library prints nothing, and importing it starts nothing. The same module is the command:
 * `deno run --allow-net jsr:@x/shouty` serves on port 8080 and answers each line in upper case; `--help` shows its flags.
 *
 * `@x/shouty/ops` has TLS, Unix sockets and the PROXY protocol, and `@x/shouty/testing` connections in memory and a clock
 * for tests. The guides are in the repository, in `docs/`.
 *
 * @example A line handler
 * ```ts
 * import { serve } from "@x/shouty";
 * import { assertEquals } from "@std/assert";
 *
 * const where = { hostname: "127.0.0.1", port: 0 };
 * await using server = serve(where, (line) => line.toLowerCase());
 *
 * const { port } = server.addr;
 * using conn = await Deno.connect({ port });
 * await conn.write(new TextEncoder().encode("HELLO\n"));
 * await conn.closeWrite();
 * const replies = await new Response(conn.readable).text();
 * assertEquals(replies, "hello\n");
 * ```
 *
 * @example A conversation: a line that announces a body, then the body
 * ```ts
 * import { connect, serveConnections } from "@x/shouty";
 * import { assertEquals } from "@std/assert";
 *
 * const options = { hostname: "127.0.0.1", port: 0, idleTimeout: 60_000 };
 * await using server = serveConnections(options, async (conn) => {
 *   await conn.write("ready\n");
 *   for await (const line of conn.lines) {
 *     const body = await conn.readExactly(Number(line));
 *     await conn.write(`${body.length} bytes\n`);
 *   }
 * });
 *
 * const { port } = server.addr;
 * await using conn = await connect({ port });
 * assertEquals(await conn.readLine(), "ready");
 * await conn.write("3\na\nb");
 * assertEquals(await conn.readLine(), "3 bytes");
 * ```
 *
 * @module
 */

export { ByteLimitStream, type ByteLimitStreamOptions } from "./internal/lines/byte_limit_stream.ts";
export type { Clock } from "./internal/api/serve_options.ts";
export type { ConnOptions } from "./internal/api/conn_options.ts";
export type { ServerStats } from "./internal/server/counters.ts";
export { AcceptRejection, ConnectionClosedError, LimitError } from "./internal/api/errors.ts";
export type * from "./internal/api/events.ts";
export type { Framing, LineEnd } from "./internal/api/framing.ts";
export type {
  CloseOptions,
  Conn,
  ConnHandler,
  Delimiter,
  LineHandler,
  ReadBytesOptions,
  ReadLineOptions,
  ReadOptions,
  ReadUntilOptions,
  Reply,
} from "./internal/api/handlers.ts";
export type { ConnPhase, ConnStats, WaitsFor } from "./internal/api/handlers.ts";
export type { AdmissionRejectReason, Breach, CloseReason, SizeBreach } from "./internal/api/reasons.ts";
export type { ListenerRejectReason, RejectReason } from "./internal/api/reasons.ts";
export type { AdmitInfo, AdmitResult, DrainMode, ServeOptions, ShutdownOptions } from "./internal/api/serve_options.ts";
export type { ServerLimits } from "./internal/api/serve_options.ts";
export { lineStream, type LineStreamOptions } from "./internal/lines/line_stream.ts";
export { shout } from "./internal/lines/shout.ts";
export { formatAddr, type Listener, type Transport } from "./internal/api/transport.ts";
export type { PeerCertificate, ProxyInfo, TlsCredentialsHandle, TlsInfo } from "./internal/api/transport.ts";
export { connect, connectPool } from "./client.ts";
export type { ConnectOptions, ConnectTlsOptions, DialOptions } from "./internal/client/connect_options.ts";
export type { ConnectErrorEvent, ConnPool, PoolEvent, PoolOptions, PoolStats } from "./internal/client/pool_options.ts";
export { serve, serveConnections } from "./server.ts";
export type { Server, ServerState } from "./internal/server/running.ts";

if (import.meta.main) {
  const { requireDeno } = await import("./cli/system/deno_version.ts");
  requireDeno();
  const { main } = await import("./cli.ts");
  await main(Deno.args);
}
