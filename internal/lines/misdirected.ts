/**
 * Recognizes clients that speak another protocol at the plain port: HTTP, such as a browser, or TLS. Both are
 * recognized byte by byte, in constant memory, however the peer cuts its segments.
 *
 * @module
 */

import { Forwarding } from "../api/transport.ts";
import { LF } from "./ascii.ts";

/** Maximum bytes of an HTTP request line; a longer line is handled as a line of text. */
const LONGEST_REQUEST_LINE = 8 * 1024;
const SPACE = 32;

const BODY = "This port speaks lines of text, not HTTP.\n";

/** The answer to a client that speaks HTTP. */
export const BAD_REQUEST: string = [
  "HTTP/1.1 400 Bad Request",
  "Content-Type: text/plain; charset=utf-8",
  `Content-Length: ${BODY.length}`,
  "Connection: close",
  "",
  BODY,
].join("\r\n");

/** The answer to a client that speaks TLS: a TLS record with the fatal alert "handshake failure". */
export const TLS_ALERT: Uint8Array<ArrayBuffer> = new Uint8Array([21, 3, 1, 0, 2, 2, 40]);

/** The peer speaks another protocol. */
export class MisdirectedError extends Error {
  /** The answer to the peer, in its own protocol. */
  readonly answer: string | Uint8Array;
  /** The number of bytes in the read that showed it. */
  readonly bytes: number;

  /**
   * @param answer The answer to the peer.
   * @param bytes The number of bytes in the read that showed it.
   */
  constructor(answer: string | Uint8Array, bytes: number) {
    super("The peer speaks another protocol");
    this.answer = answer;
    this.bytes = bytes;
  }
}

/** Recognizes the first bytes of a TLS handshake record, of any TLS version. */
export class TlsRecord {
  #at = 0;

  /** Whether a handshake record begins with this byte; no request line does. */
  static begins(byte: number): boolean {
    return byte === 22;
  }

  /**
   * Takes the next byte.
   *
   * @returns Whether these bytes begin a TLS handshake; undefined while more bytes have to decide that.
   */
  take(byte: number): boolean | undefined {
    const fits = this.#at === 0 ? byte === 22 : this.#at === 1 ? byte === 3 : byte <= 4;
    return fits ? ++this.#at === 3 || undefined : false;
  }
}

/** The beginning of the preface that an HTTP/2 client with prior knowledge sends; the version follows. */
const PREFACE = "PRI *";

/** Recognizes an HTTP request line (a method, a target, and a version), or the first line of HTTP/2. */
export class RequestLine {
  #bytes = 0;
  #words = 0;
  #wordEmpty = true;
  /** The first bytes of the line, and its third word. */
  #begun = "";
  #version = "";

  /** Whether a method begins with this byte: it is a capital letter. */
  static begins(byte: number): boolean {
    return byte >= 65 && byte <= 90;
  }

  /**
   * Takes the next byte.
   *
   * @returns Whether these bytes are a request line; undefined while more bytes have to decide that.
   */
  take(byte: number): boolean | undefined {
    if (byte === LF) return (this.#begun === PREFACE ? /^HTTP\/[12]\.\d\r?$/ : /^HTTP\/1\.\d\r?$/).test(this.#version);
    if (++this.#bytes > LONGEST_REQUEST_LINE) return false;
    if (this.#bytes <= PREFACE.length) this.#begun += String.fromCharCode(byte);
    if (byte === SPACE) {
      const fits = !this.#wordEmpty && ++this.#words < 3;
      this.#wordEmpty = true;
      return fits && undefined;
    }
    this.#wordEmpty = false;
    if (this.#words === 2) {
      this.#version += String.fromCharCode(byte);
      return this.#version.length <= "HTTP/1.1\r".length && undefined;
    }
    const fits = this.#words === 0 ? RequestLine.begins(byte) : byte > SPACE;
    return fits && undefined;
  }
}

/** Returns what recognizes a protocol that begins with this byte; undefined if there is none. */
function detectorFor(byte: number): RequestLine | TlsRecord | undefined {
  if (TlsRecord.begins(byte)) return new TlsRecord();
  return RequestLine.begins(byte) ? new RequestLine() : undefined;
}

/** A transport whose read rejects with a {@linkcode MisdirectedError} if the peer begins to speak HTTP or TLS. */
export class MisdirectedTransport extends Forwarding {
  /** Looks at the first line. The first byte decides which of the two protocols it looks for. */
  #detector: RequestLine | TlsRecord | undefined;
  #decided = false;

  /** Looks no further: TLS is about to begin, as the handler wants. */
  expectTls(): void {
    this.#decided = true;
  }

  override read(into: Uint8Array): Promise<number | null> {
    const read = this.inner.read(into);
    return this.#decided ? read : read.then((count) => this.#took(into, count));
  }

  #took(into: Uint8Array, count: number | null): number | null {
    for (let at = 0; at < (count ?? 0) && !this.#decided; at++) {
      this.#detector ??= detectorFor(into[at]);
      const is = this.#detector === undefined ? false : this.#detector.take(into[at]);
      if (is === undefined) continue;
      this.#decided = true;
      if (is) throw new MisdirectedError(this.#detector instanceof TlsRecord ? TLS_ALERT : BAD_REQUEST, count!);
      this.#detector = undefined;
    }
    return count;
  }
}
