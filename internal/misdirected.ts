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
 * What to answer a client that begins to speak TLS, in its own language.
 *
 * @param bytes The first bytes that it sent.
 * @returns The answer; `undefined` if it may mean this server.
 */
export function answerTls(bytes: Uint8Array): Uint8Array | undefined {
  // A handshake record of any version, which begins with a ClientHello.
  return bytes.length >= 3 && bytes[0] === 22 && bytes[1] === 3 && bytes[2] <= 4 ? TLS_ALERT : undefined;
}

/**
 * What to answer a client that asks in HTTP, in its own language.
 *
 * @param lines The first lines that it sent, each with its line end.
 * @returns The answer; `undefined` if it may mean this server.
 */
export function answerHttp(lines: Uint8Array): string | undefined {
  const end = lines.indexOf(LF);
  // Nearly every line is known to be none by its third to last byte, without being decoded.
  const dot = lines[end - 1] === CR ? end - 3 : end - 2;
  if (lines[dot] !== DOT || end > LONGEST_REQUEST_LINE) return undefined;
  const line = LATIN1.decode(lines.subarray(0, end));
  return REQUEST_LINE.test(line) ? BAD_REQUEST : undefined;
}
