/**
 * What each worker of the command runs; see `--workers`.
 *
 * @module
 */

import type { Listener } from "../../internal/api/transport.ts";
import { proxyProtocol } from "../../ops/proxy/protocol.ts";
import { withTelnet } from "../../ops/wrappers/telnet.ts";
import type { TlsCredentials } from "../../ops/tls/credentials.ts";
import type { TlsServerCredentials } from "../../ops/tls/handle.ts";
import { serveInWorker } from "../../ops/workers/worker/in_worker.ts";
import type { SERVE } from "../flags/flags.ts";
import type { Values } from "../line/parse.ts";

/** What a worker gets from the command. */
export interface Work {
  readonly flags: Pick<
    Values<typeof SERVE.flags>,
    "proxyHeaderTimeout" | "proxyProtocol" | "telnet" | "tlsHandshakeTimeout"
  >;
  /** What is spoken at each place. */
  readonly places: readonly { readonly tls: boolean; readonly proxied: boolean }[];
  /** The texts of the certificate's files; null without TLS. */
  readonly files: TlsCredentials | null;
}

serveInWorker(async ({ flags, places, files }: Work) => {
  const security = files === null ? undefined : await openSecurity(files, flags.tlsHandshakeTimeout);
  return {
    // In the same order as the command wraps listeners without workers.
    async wrap(listener: Listener, index: number) {
      const { tls, proxied } = places[index];
      const { proxyProtocol: from, proxyHeaderTimeout: headerTimeout, telnet } = flags;
      let wrapped = proxied ? proxyProtocol(listener, { from: from!, headerTimeout }) : listener;
      if (tls) wrapped = await security!.wrap(wrapped);
      return telnet ? withTelnet(wrapped) : wrapped;
    },
    async reload(work: unknown) {
      await security?.credentials.reload((work as Work).files!);
    },
  };
});

async function openSecurity(files: TlsCredentials, handshakeTimeout: number) {
  // Imported only if it is used, as in `tls.ts`.
  const [{ listenTls }, { tlsCredentials }] = await Promise.all([
    import("../../ops/tls/tls.ts"),
    import("../../ops/tls/handle.ts"),
  ]);
  const credentials: TlsServerCredentials = await tlsCredentials({ ...files, handshakeTimeout });
  return { credentials, wrap: (listener: Listener) => listenTls({ listener, credentials }) };
}
