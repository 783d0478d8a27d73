/**
 * Opt-in listeners: TLS, Unix sockets and `epoll` in place of `Deno.listen`; the PROXY protocol, Telnet and a trace
 * around another listener. Figures about a server, for OpenTelemetry and for Prometheus; and an admin port, to see and
 * steer a server.
 *
 * @module
 */

export { type Admin, type AdminOptions, type AdminPortOptions, serveAdmin } from "./admin/admin.ts";
export { type MetricsSnapshot, ServerMetrics } from "./metrics/metrics.ts";
export type { Instrument } from "./metrics/instruments.ts";
export type { Attributes, Reading, Series, Sink } from "./metrics/figures.ts";
export type { Quantiles } from "./metrics/recent.ts";
export { prometheus, type PrometheusMetrics } from "./metrics/prometheus.ts";
export { exportTelemetry, type Telemetry } from "./metrics/telemetry.ts";
export type { Trace } from "./metrics/spans.ts";
export { ProxyHeaderError } from "./proxy/errors.ts";
export { listenEpoll, type ListenEpollOptions } from "./epoll/epoll.ts";
export { proxyProtocol, type ProxyProtocolOptions } from "./proxy/protocol.ts";
export { withTelnet } from "./telnet/telnet.ts";
export { formatTrace, type TraceEntry, type TraceOptions, withTrace } from "./trace.ts";
export { listenTls, type ListenTlsOptions, type TlsListener } from "./tls/tls.ts";
export type { CertificateInfo } from "./tls/certificate.ts";
export {
  type SniCertificate,
  type TlsCredentials,
  TlsCredentialsError,
  type TlsCredentialsOption,
} from "./tls/credentials.ts";
export type { HandshakeBegunEvent, HandshakeEndedEvent, HandshakeEvent, HandshakeFailure } from "./tls/observed.ts";
export type { OnHandshake } from "./tls/observed.ts";
export { tlsCredentials, type TlsServerCredentials } from "./tls/handle.ts";
export { listenUnix, type ListenUnixOptions } from "./unix.ts";
