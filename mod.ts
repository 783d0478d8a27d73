/**
 * shouty: a TCP line server that runs like clockwork, and the library to build others with.
 *
 * @module
 */

export { ByteLimitStream, type ByteLimitStreamOptions } from "./internal/lines/byte_limit_stream.ts";
export type { Clock } from "./internal/api/serve_options.ts";
export type { ConnOptions } from "./internal/api/conn_options.ts";
export type { ServerStats, Traffic } from "./internal/server/counters.ts";
export { AcceptRejection, ConnectionClosedError, LimitError } from "./internal/api/errors.ts";
export type * from "./internal/api/events.ts";
export type { Framing, LineEnd } from "./internal/api/framing.ts";
export type { CloseOptions, Conn, ConnHandler, LineHandler, ReadOptions, Reply } from "./internal/api/handlers.ts";
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
  const { requireDeno } = await import("./cli/deno_version.ts");
  requireDeno();
  const { main } = await import("./cli.ts");
  await main(Deno.args);
}
