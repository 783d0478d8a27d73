/**
 * shouty: a TCP line server that runs like clockwork, and the library to build others with.
 *
 * @module
 */

export { ByteLimitStream, type ByteLimitStreamOptions } from "./internal/byte_limit_stream.ts";
export type { Clock } from "./internal/clocks.ts";
export type { ConnOptions } from "./internal/conn_options.ts";
export type { ServerStats, Traffic } from "./internal/counters.ts";
export { AcceptRejection, ConnectionClosedError, LimitError } from "./internal/errors.ts";
export type * from "./internal/events.ts";
export type { Conn, ConnHandler, LineHandler, Reply } from "./internal/handlers.ts";
export type { Breach } from "./internal/limiter.ts";
export type { AdmissionRejectReason, CloseReason, ErrorLineReason } from "./internal/reasons.ts";
export type { ListenerRejectReason, RejectReason } from "./internal/reasons.ts";
export type { DrainMode, ServeOptions, ShutdownOptions } from "./internal/serve_options.ts";
export { lineStream, type LineStreamOptions } from "./internal/streams.ts";
export { shout } from "./internal/shout.ts";
export { formatAddr, type Listener, type Transport } from "./internal/transport.ts";
export { serve, serveConnections } from "./server.ts";
export type { Server, ServerState } from "./server.ts";

if (import.meta.main) {
  const { requireDeno } = await import("./cli/deno_version.ts");
  requireDeno();
  const { main } = await import("./cli.ts");
  await main(Deno.args);
}
