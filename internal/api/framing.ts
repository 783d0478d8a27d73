/**
 * How lines are framed: where a line ends, how its bytes become text, and what happens to a line that does not fit.
 *
 * @module
 */

import { checkOptions, checkWord, show } from "./check.ts";

/** How lines are framed. */
export interface Framing {
  /**
   * What ends a line:
   *
   * - `any`: LF; one CR before it is dropped
   * - `lf`: LF; a CR before it belongs to the line
   * - `crlf`: CR LF; a CR or an LF alone belongs to the line
   * - `{ delimiter }`: text in the `encoding`, or bytes, of 1 to 16 bytes, such as `"\0"`
   *
   * What the server adds itself, such as the end of a line handler's reply, ends with LF under `any` and `lf`, and
   * otherwise with what ends a line.
   *
   * @default {"any"}
   */
  lineEnd: "any" | "lf" | "crlf" | { readonly delimiter: string | Uint8Array };
  /**
   * How text is encoded, in both directions. Under `latin1`, each byte is the character of the same number, and to
   * write a character above U+00FF is a `TypeError`.
   *
   * @default {"utf-8"}
   */
  encoding: "utf-8" | "latin1";
  /**
   * What a line does that is not valid UTF-8: `replace` puts U+FFFD in place of its invalid bytes, `error` ends the
   * input before it, with reason `invalid-text`.
   *
   * @default {"replace"}
   */
  invalidText: "replace" | "error";
  /**
   * What happens to a last line that the end of input cuts off: `line` hands it out as a line, `drop` discards it,
   * `error` discards it, and the connection ends with reason `unterminated` instead of `end`.
   *
   * @default {"line"}
   */
  unterminated: "line" | "drop" | "error";
  /**
   * What happens to a line that is longer than `maxLineBytes`: `close` ends the connection, with reason
   * `line-too-long`; `discard` sends the line of `lastWords` for that reason and goes on behind the line; `truncate`
   * hands out its first `maxLineBytes` bytes, or fewer, so as not to cut a character of UTF-8. With these two, a read of
   * bytes after a read of such a line was given up gets only what had not come by then.
   *
   * @default {"close"}
   */
  onLongLine: "close" | "discard" | "truncate";
}

/** A framing that was checked, with what follows from it. It is never changed, so that connections can share it. */
export interface ResolvedFraming extends Readonly<Framing> {
  /** The bytes that end a line. */
  readonly delimiter: Uint8Array;
  /** The same as text, if text can be searched for it: one character per byte, whatever the encoding. */
  readonly delimiterText: string | undefined;
  /** What `lastLineEnd` tells of a line, unless a CR before its delimiter was dropped. */
  readonly endName: LineEnd;
  /** Whether one CR before the delimiter belongs to the line end. */
  readonly dropsCr: boolean;
  /** What the server puts behind a line of its own. */
  readonly ending: string | Uint8Array;
}

/** How a line ended: with LF, CR LF, or a delimiter of the caller's choice; `none` if the end of input cut it off. */
export type LineEnd = "lf" | "crlf" | "delimiter" | "none";

const ENCODER = new TextEncoder();

/** Maximum length of a delimiter, in bytes. */
const LONGEST_DELIMITER = 16;

const DEFAULTS: Framing = {
  lineEnd: "any",
  encoding: "utf-8",
  invalidText: "replace",
  unterminated: "line",
  onLongLine: "close",
};

/**
 * Checks a framing and fills in what it leaves out.
 *
 * @param framing What the caller has set.
 * @param base What holds for the rest.
 * @returns The framing.
 * @throws {RangeError | TypeError} If a value is wrong.
 */
export function resolveFraming(framing: Partial<Framing> = {}, base: Framing = DEFAULTS): ResolvedFraming {
  checkOptions("framing", framing);
  const { lineEnd = base.lineEnd, encoding = base.encoding, invalidText = base.invalidText } = framing;
  const { unterminated = base.unterminated, onLongLine = base.onLongLine } = framing;
  checkWord("framing.encoding", encoding, ["utf-8", "latin1"]);
  const delimiter = delimiterOf(lineEnd, encoding);
  checkWord("framing.invalidText", invalidText, ["replace", "error"]);
  checkWord("framing.unterminated", unterminated, ["line", "drop", "error"]);
  checkWord("framing.onLongLine", onLongLine, ["close", "discard", "truncate"]);
  const searchable = encoding === "latin1" || delimiter.every((byte) => byte < 0x80);
  return {
    // A copy: the caller may change the array.
    lineEnd: typeof lineEnd === "object" ? { delimiter } : lineEnd,
    ...{ encoding, invalidText, unterminated, onLongLine, delimiter },
    delimiterText: searchable ? String.fromCharCode(...delimiter) : undefined,
    endName: lineEnd === "any" ? "lf" : typeof lineEnd === "string" ? lineEnd : "delimiter",
    dropsCr: lineEnd === "any",
    ending: delimiter.every((byte) => byte < 0x80) ? String.fromCharCode(...delimiter) : delimiter,
  };
}

function delimiterOf(lineEnd: unknown, encoding: Framing["encoding"]): Uint8Array {
  if (lineEnd === "any" || lineEnd === "lf") return Uint8Array.of(10);
  if (lineEnd === "crlf") return Uint8Array.of(13, 10);
  if (typeof lineEnd !== "object" || lineEnd === null || !("delimiter" in lineEnd)) {
    throw new TypeError(`Cannot use framing.lineEnd ${show(lineEnd)}: expected "any", "lf", "crlf" or { delimiter }`);
  }
  return bytesOf("framing.lineEnd.delimiter", lineEnd.delimiter, LONGEST_DELIMITER, encoding);
}

/** Checks a delimiter of at least one byte, and returns a copy of its bytes; text is encoded as the connection's is. */
function bytesOf(
  name: string,
  delimiter: unknown,
  longest: number,
  encoding: Framing["encoding"],
): Uint8Array {
  if (typeof delimiter !== "string" && !(delimiter instanceof Uint8Array)) {
    throw new TypeError(`Cannot use ${name}: expected a string or a Uint8Array, got ${show(delimiter)}`);
  }
  const bytes = typeof delimiter !== "string"
    // What `slice` returns of a `Buffer` is no copy.
    ? new Uint8Array(delimiter)
    : encoding === "latin1"
    ? latin1Of(`use ${name}`, delimiter)
    : ENCODER.encode(delimiter);
  if (bytes.length > 0 && bytes.length <= longest) return bytes;
  throw new RangeError(`Cannot use ${name} of ${bytes.length} bytes: expected 1 to ${longest} bytes`);
}

/** Maximum length of a delimiter of one read, in bytes, and maximum number of its delimiters. */
const LONGEST_OF_READ = 1024;
const MOST_OF_READ = 16;

/** Checks the delimiter of one read, or several, and returns a copy of the bytes of each. */
export function delimitersOf(delimiter: unknown, encoding: Framing["encoding"]): Uint8Array[] {
  const all: unknown[] = Array.isArray(delimiter) ? delimiter : [delimiter];
  if (all.length === 0 || all.length > MOST_OF_READ) {
    throw new RangeError(`Cannot use ${all.length} delimiters: expected 1 to ${MOST_OF_READ}`);
  }
  return all.map((one) => bytesOf("delimiter", one, LONGEST_OF_READ, encoding));
}

/**
 * Encodes text as ISO 8859-1, in which each character is the byte of the same number.
 *
 * @param what What cannot be done if a character is beyond that, to be read after "Cannot".
 * @param text The text.
 * @throws {TypeError} If the text has such a character.
 */
export function latin1Of(what: string, text: string): Uint8Array {
  const beyond = /[^\0-\xff]/u.exec(text)?.[0].codePointAt(0);
  if (beyond !== undefined) {
    const name = beyond.toString(16).toUpperCase().padStart(4, "0");
    throw new TypeError(`Cannot ${what} U+${name}: latin1 ends at U+00FF`);
  }
  const bytes = new Uint8Array(text.length);
  // `Uint8Array.from` would take twenty times as long.
  for (let at = 0; at < bytes.length; at++) bytes[at] = text.charCodeAt(at);
  return bytes;
}
