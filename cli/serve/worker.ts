/**
 * What each worker of the command runs; see `--workers`.
 *
 * @module
 */

import type { Listener } from "../../internal/api/transport.ts";
import type { TlsCredentials } from "../../ops/tls/credentials.ts";
import { serveInWorker } from "../../ops/workers/worker/in_worker.ts";
import type { SERVE } from "../flags/flags.ts";
import type { Values } from "../line/parse.ts";
import { loadTls, type Spoken, type WrapFlags, wrapListener } from "./wrap.ts";

/** What a worker gets from the command. */
export interface Work {
  readonly flags: WrapFlags & Pick<Values<typeof SERVE.flags>, "tlsHandshakeTimeout">;
  /** What is spoken at each place. */
  readonly places: readonly Spoken[];
  /** The texts of the certificate's files; null without TLS. */
  readonly files: TlsCredentials | null;
}

serveInWorker(async ({ flags, places, files }: Work) => {
  const tls = files === null ? undefined : await loadTls({ ...files, handshakeTimeout: flags.tlsHandshakeTimeout });
  return {
    wrap: (listener: Listener, index: number) => wrapListener(listener, places[index], flags, { tls: tls?.wrap }),
    async reload(work: unknown) {
      await tls?.credentials.reload((work as Work).files!);
    },
  };
});
