/**
 * Finding out that a client means another server, before the server's own reader has its first line.
 *
 * @module
 */

import { BAD_REQUEST, MisdirectedError, RequestLine, TLS_ALERT, TlsRecord } from "./misdirected.ts";
import { Forwarding } from "../api/transport.ts";

/** A transport whose read rejects with a {@linkcode MisdirectedError} where the peer begins to speak HTTP or TLS. */
export class MisdirectedTransport extends Forwarding {
  /** What looks at the first line, until it is known not to be that. */
  #http: RequestLine | undefined = new RequestLine();
  #tls: TlsRecord | undefined = new TlsRecord();

  override read(into: Uint8Array): Promise<number | null> {
    const read = this.inner.read(into);
    return this.#http === undefined && this.#tls === undefined ? read : this.#look(read, into);
  }

  async #look(read: Promise<number | null>, into: Uint8Array): Promise<number | null> {
    const count = await read;
    for (const byte of into.subarray(0, count ?? 0)) {
      const tls = this.#tls?.take(byte);
      const http = this.#http?.take(byte);
      if (tls) throw new MisdirectedError(TLS_ALERT, count!);
      if (http) throw new MisdirectedError(BAD_REQUEST, count!);
      if (tls === false) this.#tls = undefined;
      if (http === false) this.#http = undefined;
      if (this.#tls === undefined && this.#http === undefined) break;
    }
    return count;
  }
}
