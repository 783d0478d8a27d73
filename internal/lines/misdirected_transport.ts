/**
 * Detects clients that speak HTTP or TLS, before the server's reader has the first line.
 *
 * @module
 */

import { Forwarding } from "../api/transport.ts";
import { BAD_REQUEST, MisdirectedError, RequestLine, TLS_ALERT, TlsRecord } from "./misdirected.ts";

/** A transport whose read rejects with a {@linkcode MisdirectedError} if the peer begins to speak HTTP or TLS. */
export class MisdirectedTransport extends Forwarding {
  /** Looks at the first line. The first byte decides which of the two protocols it looks for. */
  #detector: RequestLine | TlsRecord | undefined;
  #decided = false;

  override read(into: Uint8Array): Promise<number | null> {
    const read = this.inner.read(into);
    return this.#decided ? read : read.then((count) => this.#took(into, count));
  }

  #took(into: Uint8Array, count: number | null): number | null {
    for (let at = 0; at < (count ?? 0); at++) {
      this.#detector ??= TlsRecord.begins(into[at]) ? new TlsRecord() : new RequestLine();
      const is = this.#detector.take(into[at]);
      if (is === undefined) continue;
      this.#decided = true;
      if (is) throw new MisdirectedError(this.#detector instanceof TlsRecord ? TLS_ALERT : BAD_REQUEST, count!);
      this.#detector = undefined;
      break;
    }
    return count;
  }
}
