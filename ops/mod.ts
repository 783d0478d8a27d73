/**
 * Opt-in listeners: TLS, Unix sockets and `epoll` in place of `Deno.listen`; the PROXY protocol and Telnet around another
 * listener.
 *
 * @module
 */

export { ProxyHeaderError } from "./proxy/errors.ts";
export { listenEpoll, type ListenEpollOptions } from "./epoll/epoll.ts";
export { proxyProtocol, type ProxyProtocolOptions } from "./proxy/protocol.ts";
export { withTelnet } from "./telnet/telnet.ts";
export { listenTls, type ListenTlsOptions, type TlsListener } from "./tls/tls.ts";
export type { CertificateInfo } from "./tls/certificate.ts";
export {
  type SniCertificate,
  type TlsCredentials,
  TlsCredentialsError,
  type TlsCredentialsOption,
} from "./tls/credentials.ts";
export { tlsCredentials, type TlsServerCredentials } from "./tls/handle.ts";
export { listenUnix, type ListenUnixOptions } from "./unix.ts";
