/**
 * shouty: a TCP line server that runs like clockwork, and the library to build others with.
 *
 * @module
 */

export { type ConnOptions } from "./conn.ts";
export { ByteLimitStream, type ByteLimitStreamOptions } from "./internal/byte_limit_stream.ts";
export { type Clock } from "./internal/clocks.ts";
export { type ServerStats, type Traffic } from "./internal/counters.ts";
export { ConnectionClosedError, LimitError } from "./internal/errors.ts";
export type * from "./internal/events.ts";
export type { Conn, ConnHandler, LineHandler, Reply } from "./internal/handlers.ts";
export type { Breach } from "./internal/limiter.ts";
export type { CloseReason, ErrorLineReason, RejectReason } from "./internal/reasons.ts";
export { shout } from "./internal/shout.ts";
export { formatAddr, type Listener, type Transport } from "./internal/transport.ts";
export { type DrainMode, serve, serveConnections, type ServeOptions } from "./server.ts";
export type { Server, ServerState, ShutdownOptions } from "./server.ts";

if (import.meta.main) {
  const { main } = await import("./cli.ts");
  await main(Deno.args);
}
