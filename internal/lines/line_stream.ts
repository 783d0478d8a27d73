/**
 * Lines from any stream of bytes.
 *
 * @module
 */

import { TextLineStream } from "@std/streams/text-line-stream";
import { checkBufferBytes, checkMethods, checkOptions } from "../api/check.ts";
import { LimitError } from "../api/errors.ts";
import { ByteLimitStream } from "./byte_limit_stream.ts";

/** Options of {@linkcode lineStream}. */
export interface LineStreamOptions {
  /**
   * The longest line that passes, in bytes, without its line end.
   *
   * @default {65_536}
   */
  maxLineBytes?: number | undefined;
}

/**
 * Cuts a stream of bytes into lines: a {@linkcode ByteLimitStream}, a `TextDecoderStream` and a `TextLineStream`, one
 * piped through the other. A line ends at LF, and one CR before it is dropped; invalid UTF-8 becomes U+FFFD, a BOM is
 * text, and a last line without its end is a line too.
 *
 * @param readable The bytes, such as `conn.readable`.
 * @param options How long a line may be.
 * @returns The lines. After the lines before one that is too long, it fails with a {@linkcode LimitError}.
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
  checkBufferBytes("maxLineBytes", maxLineBytes);
  const limited = new ByteLimitStream({ maxLineBytes, error: false });
  return readable
    .pipeThrough(limited)
    .pipeThrough(new TextDecoderStream("utf-8", { ignoreBOM: true }))
    .pipeThrough(new TextLineStream())
    .pipeThrough(
      new TransformStream<string, string>({
        flush() {
          // Not before: an error drops the lines that are still on their way.
          if (limited.breach !== undefined) throw new LimitError(limited.breach, maxLineBytes);
        },
      }),
    );
}
