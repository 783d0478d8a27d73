/**
 * Clients that mean another server: a browser, or anything that speaks TLS, at the plain port.
 *
 * @module
 */

const REQUEST_LINE = /^[A-Z]+ \S+ HTTP\/1\.\d\r?$/;
const LONGEST_REQUEST_LINE = 8 * 1024;
const LF = 10;
const CR = 13;
const DOT = 46;
const LATIN1 = new TextDecoder("latin1");

const BODY = "This port speaks lines of text, not HTTP.\n";
const BAD_REQUEST = [
  "HTTP/1.1 400 Bad Request",
  "Content-Type: text/plain; charset=utf-8",
  `Content-Length: ${BODY.length}`,
  "Connection: close",
  "",
  BODY,
].join("\r\n");

/** A fatal alert, "handshake failure", as a TLS record. */
const TLS_ALERT = new Uint8Array([21, 3, 1, 0, 2, 2, 40]);

/**
 * What to answer a client that means another server, in its own language.
 *
 * @param bytes The first bytes that it sent.
 * @returns The answer; `undefined` if it may mean this one.
 */
export function answerMisdirected(bytes: Uint8Array): string | Uint8Array | undefined {
  // A handshake record of any version, which begins with a ClientHello.
  if (bytes.length >= 3 && bytes[0] === 22 && bytes[1] === 3 && bytes[2] <= 4) return TLS_ALERT;
  const end = bytes.indexOf(LF);
  // Nearly every line is known to be none by its third to last byte, without being decoded.
  const dot = bytes[end - 1] === CR ? end - 3 : end - 2;
  if (bytes[dot] !== DOT || end > LONGEST_REQUEST_LINE) return undefined;
  const line = LATIN1.decode(bytes.subarray(0, end));
  return REQUEST_LINE.test(line) ? BAD_REQUEST : undefined;
}
