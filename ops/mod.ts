/**
 * What is opt-in: listeners, workers, and what it takes to see and steer a server.
 *
 * The listeners are for the option `listener` of `serve` and `serveConnections`. Each is a `Listener` like that of
 * `Deno.listen`, and several of them can be one server.
 *
 * - {@linkcode listenTls}: TLS 1.2 and 1.3, with client certificates, several names, and a reload without a break;
 *   {@linkcode tlsCredentials} loads a certificate for `conn.startTls`, which begins TLS at a command (STARTTLS)
 * - {@linkcode listenUnix}: a Unix socket with a mode, which replaces the socket file that a crash has left
 * - {@linkcode listenFd}: a socket that another process has opened, such as systemd or an older version of the program, so
 *   that no client is refused at a restart
 * - {@linkcode proxyProtocol}: around another listener, reads the PROXY header of a load balancer, so that limits and logs
 *   see the client's address
 * - {@linkcode withTelnet}: around another listener, takes the commands of Telnet out of the lines
 * - {@linkcode listenEpoll}: Linux alone, `epoll` in place of Deno's sockets; needs `--allow-ffi`
 * - {@linkcode withTrace}: around another listener, shows each read and write, for developers
 *
 * {@linkcode serveWorkers} serves with several workers, each in a thread of its own, with the same ports and one set of
 * limits. The module that the workers run calls {@linkcode serveInWorker}.
 *
 * To see and steer a server:
 *
 * - {@linkcode ServerMetrics}: counts and times what a server does; {@linkcode exportTelemetry} passes that to Deno's
 *   OpenTelemetry, {@linkcode prometheus} writes it as text
 * - {@linkcode serveAdmin}: an HTTP port with health checks, figures, the list of connections, a page, and commands to
 *   pause, drain and limit a running server
 *
 * @example Behind a proxy
 * ```ts
 * import { connect, formatAddr, serve } from "@x/shouty";
 * import { proxyProtocol } from "@x/shouty/ops";
 * import { assertEquals } from "@std/assert";
 *
 * const plain = Deno.listen({ hostname: "127.0.0.1", port: 0 });
 * const listener = proxyProtocol(plain, { from: ["127.0.0.1"] });
 * await using _server = serve({ listener }, (_line, conn) => {
 *   return formatAddr(conn.remoteAddr);
 * });
 *
 * await using proxy = await connect({ port: plain.addr.port });
 * await proxy.write("PROXY TCP4 203.0.113.7 192.0.2.1 501 25\r\n");
 * await proxy.write("who am I?\n");
 * assertEquals(await proxy.readLine(), "203.0.113.7:501");
 * ```
 *
 * @example TLS beside plain text, with one shutdown (not run here: it needs a certificate)
 * ```ts ignore
 * import { serve } from "@x/shouty";
 * import { listenTls } from "@x/shouty/ops";
 *
 * const cert = await Deno.readTextFile("cert.pem");
 * const key = await Deno.readTextFile("key.pem");
 * const encrypted = await listenTls({ port: 8443, cert, key });
 * const listener = [Deno.listen({ port: 8080 }), encrypted];
 * serve({ listener }, (line) => line.toUpperCase());
 * ```
 *
 * @module
 */

export { type AdminOptions, type AdminPortOptions, serveAdmin } from "./admin/admin.ts";
export type { Admin } from "./admin/port.ts";
export { type MetricsSnapshot, ServerMetrics } from "./metrics/metrics.ts";
export type { Instrument } from "./metrics/instruments.ts";
export type { Attributes, Reading, Series, Sink } from "./metrics/figures.ts";
export type { Quantiles } from "./metrics/recent.ts";
export { prometheus, type PrometheusMetrics } from "./metrics/prometheus.ts";
export { exportTelemetry, type Telemetry } from "./metrics/telemetry.ts";
export type { Trace } from "./metrics/spans.ts";
export { ProxyHeaderError } from "./proxy/errors.ts";
export { listenEpoll, type ListenEpollOptions } from "./epoll/epoll.ts";
export { listenFd, type ListenFdOptions } from "./fd/fd.ts";
export type { FdListener } from "./sockets/fd_listener.ts";
export { proxyProtocol, type ProxyProtocolOptions } from "./proxy/protocol.ts";
export { withTelnet } from "./wrappers/telnet.ts";
export { formatTrace, type TraceEntry, type TraceOptions, withTrace } from "./wrappers/trace.ts";
export { listenTls, type ListenTlsOptions, type TlsListener } from "./tls/tls.ts";
export type { CertificateInfo } from "./tls/certificates/certificate.ts";
export type { SniCertificate, TlsCredentials } from "./tls/credentials.ts";
export { TlsCredentialsError, type TlsCredentialsOption } from "./tls/errors.ts";
export type { HandshakeBegunEvent, HandshakeEndedEvent, HandshakeEvent, HandshakeFailure } from "./tls/observed.ts";
export type { OnHandshake } from "./tls/observed.ts";
export { tlsCredentials, type TlsServerCredentials } from "./tls/handle.ts";
export { serveInWorker, type WorkerService } from "./workers/worker/in_worker.ts";
export type { ServeWorkersOptions, WorkerEvent } from "./workers/options.ts";
export type {
  WorkerCrashedEvent,
  WorkersAloneEvent,
  WorkerStartedEvent,
  WorkerStoppedEvent,
} from "./workers/options.ts";
export type { WorkerConn } from "./workers/supervision/remote_conn.ts";
export type { WorkerState } from "./workers/supervision/supervisor.ts";
export { serveWorkers } from "./workers/workers.ts";
export type { WorkerInfo, WorkersServer } from "./workers/workers_server.ts";
export { listenUnix, type ListenUnixOptions } from "./sockets/unix.ts";
