/**
 * Lines from any stream of bytes.
 *
 * @module
 */

import { TextLineStream } from "@std/streams/text-line-stream";
import { checkMethods, checkOptions } from "../api/check.ts";
import { LimitError } from "../api/errors.ts";
import { ByteLimitStream, SOURCES } from "./byte_limit_stream.ts";

/** Options of {@linkcode lineStream}. */
export interface LineStreamOptions {
  /**
   * Maximum length of a line, in bytes, without its line end. After a longer line the stream fails.
   *
   * @default {65_536}
   */
  maxLineBytes?: number | undefined;
}

/**
 * Cuts a stream of bytes into lines, by piping it through a {@linkcode ByteLimitStream}, a `TextDecoderStream` and a
 * `TextLineStream`. A line ends at LF, and one CR before it is dropped. Invalid UTF-8 becomes U+FFFD, a BOM is kept as
 * text. An unfinished last line counts as a line, but not if it comes from `conn.readable` and the server has cut it off,
 * as in a drain.
 *
 * @param readable The bytes, such as `conn.readable`.
 * @param options The limit.
 * @returns The lines. If a line is too long, the stream hands out the lines before it, and then fails with a
 * {@linkcode LimitError}.
 * @throws {RangeError | TypeError} If an option is wrong.
 *
 * @example
 * ```ts
 * import { lineStream } from "@x/shouty";
 * import { assertEquals } from "@std/assert";
 *
 * const bytes = new Blob(["one\r\ntw", "o\nthree"]).stream();
 * assertEquals(await Array.fromAsync(lineStream(bytes)), ["one", "two", "three"]);
 * ```
 */
export function lineStream(
  readable: ReadableStream<Uint8Array>,
  options: LineStreamOptions = {},
): ReadableStream<string> {
  checkMethods("readable", readable, "a ReadableStream", ["pipeThrough"]);
  checkOptions("lineStream options", options);
  const { maxLineBytes = 65_536 } = options;
  const source = SOURCES.get(readable);
  const limited = new ByteLimitStream({ maxLineBytes, error: false, unterminated: source?.unterminated });
  return readable
    .pipeThrough(limited)
    .pipeThrough(new TextDecoderStream("utf-8", { ignoreBOM: true }))
    .pipeThrough(new TextLineStream())
    .pipeThrough(
      new TransformStream<string, string>({
        flush() {
          // An earlier error would drop the lines that are still in the streams before this one.
          if (limited.breach === undefined) return;
          const error = new LimitError(limited.breach, maxLineBytes);
          throw source?.own(error) ?? error;
        },
      }),
    );
}
