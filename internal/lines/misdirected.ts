/**
 * Clients that mean another server: a browser, or anything that speaks TLS, at the plain port. Both are recognized byte
 * by byte, in constant memory, however the peer cuts its segments.
 *
 * @module
 */

import { LF } from "./ascii.ts";

/** Maximum bytes of a request line; a longer line is taken for one of the server's own. */
const LONGEST_REQUEST_LINE = 8 * 1024;
const SPACE = 32;

const BODY = "This port speaks lines of text, not HTTP.\n";

/** What a client is told that speaks HTTP. */
export const BAD_REQUEST: string = [
  "HTTP/1.1 400 Bad Request",
  "Content-Type: text/plain; charset=utf-8",
  `Content-Length: ${BODY.length}`,
  "Connection: close",
  "",
  BODY,
].join("\r\n");

/** What a client is told that speaks TLS: a fatal alert, "handshake failure", as a TLS record. */
export const TLS_ALERT: Uint8Array<ArrayBuffer> = new Uint8Array([21, 3, 1, 0, 2, 2, 40]);

/** The peer means another server. */
export class MisdirectedError extends Error {
  /** What to answer the peer, in its own language. */
  readonly answer: string | Uint8Array;
  /** How many bytes came with the read that showed it. */
  readonly bytes: number;

  /**
   * @param answer What to answer the peer.
   * @param bytes How many bytes came with the read that showed it.
   */
  constructor(answer: string | Uint8Array, bytes: number) {
    super("The peer speaks another protocol");
    this.answer = answer;
    this.bytes = bytes;
  }
}

/** Recognizes a handshake record of any TLS version, which begins with a ClientHello. */
export class TlsRecord {
  #at = 0;

  /** Whether a record can begin with this byte, and no request line. */
  static begins(byte: number): boolean {
    return byte === 22;
  }

  /**
   * Takes the next byte.
   *
   * @returns Whether these bytes begin a TLS handshake; undefined as long as that is open.
   */
  take(byte: number): boolean | undefined {
    const fits = this.#at === 0 ? byte === 22 : this.#at === 1 ? byte === 3 : byte <= 4;
    return fits ? ++this.#at === 3 || undefined : false;
  }
}

/** What a client of HTTP/2 that does not ask begins with, but for the version. */
const PREFACE = "PRI *";

/** Recognizes an HTTP request line: a method, a target, and a version; or the beginning of HTTP/2. */
export class RequestLine {
  #bytes = 0;
  #words = 0;
  #wordEmpty = true;
  /** The first bytes, and the last word. */
  #begun = "";
  #version = "";

  /**
   * Takes the next byte.
   *
   * @returns Whether these bytes are a request line; undefined as long as that is open.
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
    const fits = this.#words === 0 ? byte >= 65 && byte <= 90 : byte > SPACE;
    return fits && undefined;
  }
}
