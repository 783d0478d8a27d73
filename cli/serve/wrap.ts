/**
 * What is around a listening socket, in the command's own isolate and in its workers.
 *
 * @module
 */

import type { Listener } from "../../internal/api/transport.ts";
import { proxyProtocol } from "../../ops/proxy/protocol.ts";
import type { TlsCredentials } from "../../ops/tls/credentials.ts";
import type { TlsServerCredentials } from "../../ops/tls/handle.ts";
import { withTelnet } from "../../ops/wrappers/telnet.ts";
import type { SERVE } from "../flags/flags.ts";
import type { Values } from "../line/parse.ts";

/** The values of the flags about what is spoken. */
export type WrapFlags = Pick<Values<typeof SERVE.flags>, "proxyProtocol" | "proxyHeaderTimeout" | "telnet">;

/** What is spoken at one place. */
export interface Spoken {
  /** Whether a peer can be on the list of proxies. */
  readonly proxied: boolean;
  readonly tls: boolean;
}

/** Wraps a listener; the new listener owns it. */
export type Wrap = (listener: Listener) => Listener | Promise<Listener>;

/**
 * Adds the PROXY protocol and TLS, where they are spoken, the trace and Telnet: this is the order of the bytes.
 *
 * @param inner The listening socket.
 * @param spoken What is spoken there.
 * @param flags The flags' values.
 * @param wraps What adds TLS, which is there if it is spoken anywhere, and the trace, if one is wanted.
 * @returns The listener for the server.
 */
export async function wrapListener(
  inner: Listener,
  { proxied, tls }: Spoken,
  { proxyProtocol: from, proxyHeaderTimeout: headerTimeout, telnet }: WrapFlags,
  wraps: { readonly tls: Wrap | undefined; readonly trace?: Wrap | undefined },
): Promise<Listener> {
  let listener = proxied ? proxyProtocol(inner, { from: from!, headerTimeout }) : inner;
  if (tls) listener = await wraps.tls!(listener);
  if (wraps.trace !== undefined) listener = await wraps.trace(listener);
  return telnet ? withTelnet(listener) : listener;
}

/**
 * Loads TLS with credentials.
 *
 * @param options The credentials, and the options of handshakes.
 * @returns The credentials, which can be replaced, and what adds TLS to a listener.
 * @throws {TlsCredentialsError} (As a rejection.) If one of them cannot be used.
 */
export async function loadTls(
  options: TlsCredentials,
): Promise<{ readonly credentials: TlsServerCredentials; readonly wrap: Wrap }> {
  // Imported only if it is used: loading it takes longer than all the rest of the command.
  const [{ listenTls }, { tlsCredentials }] = await Promise.all([
    import("../../ops/tls/tls.ts"),
    import("../../ops/tls/handle.ts"),
  ]);
  const credentials = await tlsCredentials(options);
  return { credentials, wrap: (listener) => listenTls({ listener, credentials }) };
}
