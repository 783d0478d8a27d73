/**
 * Opt-in operations: what a server on the open internet, or behind something, may want, each in place of or around a
 * listener.
 *
 * @module
 */

export { ProxyHeaderError } from "../internal/proxy_header.ts";
export { listenEpoll, type ListenEpollOptions } from "./epoll.ts";
export { proxyProtocol, type ProxyProtocolOptions } from "./proxy_protocol.ts";
export { withTelnet } from "./telnet.ts";
export { listenTls, type ListenTlsOptions, type TlsListener } from "./tls.ts";
export type { CertificateInfo } from "./tls_certificate.ts";
export { type TlsCredentials, TlsCredentialsError } from "./tls_credentials.ts";
export { listenUnix, type ListenUnixOptions } from "./unix.ts";
