/**
 * Finding out that a client means another server, before the server's own reader has its first line.
 *
 * @module
 */

import { Forwarding } from "../api/transport.ts";
import { BAD_REQUEST, MisdirectedError, RequestLine, TLS_ALERT, TlsRecord } from "./misdirected.ts";

/** A transport whose read rejects with a {@linkcode MisdirectedError} where the peer begins to speak HTTP or TLS. */
export class MisdirectedTransport extends Forwarding {
  /** What looks at the first line: the first byte decides which it is, if any. */
  #look: RequestLine | TlsRecord | undefined;
  #decided = false;

  override read(into: Uint8Array): Promise<number | null> {
    const read = this.inner.read(into);
    return this.#decided ? read : read.then((count) => this.#took(into, count));
  }

  #took(into: Uint8Array, count: number | null): number | null {
    for (let at = 0; at < (count ?? 0); at++) {
      this.#look ??= TlsRecord.begins(into[at]) ? new TlsRecord() : new RequestLine();
      const is = this.#look.take(into[at]);
      if (is === undefined) continue;
      this.#decided = true;
      if (is) throw new MisdirectedError(this.#look instanceof TlsRecord ? TLS_ALERT : BAD_REQUEST, count!);
      this.#look = undefined;
      break;
    }
    return count;
  }
}
