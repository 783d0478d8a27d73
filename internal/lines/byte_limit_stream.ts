/**
 * The limiter as a stream.
 *
 * @module
 */

import { checkBoolean, checkBufferBytes, checkOptions, checkWhole } from "../api/check.ts";
import { LimitError } from "../api/errors.ts";
import type { Breach } from "../api/reasons.ts";
import { Limiter } from "./limiter.ts";

/** Options of {@linkcode ByteLimitStream}. */
export interface ByteLimitStreamOptions {
  /**
   * The longest line that passes, in bytes, without its line end.
   *
   * @default {65536}
   */
  maxLineBytes?: number | undefined;
  /**
   * How many bytes pass in all.
   *
   * @default {Infinity}
   */
  maxConnectionBytes?: number | undefined;
  /**
   * What a breach does: `true` makes the stream fail at once with a {@linkcode LimitError}, and lines that its reader
   * has not taken yet are lost; `false` ends it after the whole lines before the breach, and
   * {@linkcode ByteLimitStream.breach} tells why.
   *
   * @default {true}
   */
  error?: boolean | undefined;
}

/**
 * Lets whole lines pass and nothing else: each chunk that leaves is one or more lines with their line ends, the
 * unfinished line is held back, and a last line without its end gets an LF. What it holds is bounded by its limits, so
 * that `TextDecoderStream` and `TextLineStream`, which have none, can stand behind it.
 *
 * @example Bounded lines from any stream of bytes
 * ```ts
 * import { ByteLimitStream } from "@x/shouty";
 * import { TextLineStream } from "@std/streams";
 * import { assertEquals } from "@std/assert";
 *
 * const lines = new Blob(["one\r\ntw", "o\nthree"]).stream()
 *   .pipeThrough(new ByteLimitStream({ maxLineBytes: 1024 }))
 *   .pipeThrough(new TextDecoderStream())
 *   .pipeThrough(new TextLineStream());
 *
 * assertEquals(await Array.fromAsync(lines), ["one", "two", "three"]);
 * ```
 */
export class ByteLimitStream extends TransformStream<Uint8Array, Uint8Array<ArrayBuffer>> {
  readonly #limiter: Limiter;

  /**
   * Makes a stream that has seen nothing yet.
   *
   * @param options The limits, and what a breach does.
   * @throws {RangeError} If a limit is out of range.
   * @throws {TypeError} If an option is of the wrong type.
   */
  constructor(options: ByteLimitStreamOptions = {}) {
    checkOptions("ByteLimitStream options", options);
    const { maxLineBytes = 65_536, maxConnectionBytes = Infinity, error = true } = options;
    checkBufferBytes("maxLineBytes", maxLineBytes);
    checkWhole("maxConnectionBytes", maxConnectionBytes, 1, Infinity);
    checkBoolean("error", error);
    const limiter = new Limiter({ maxLineBytes, maxConnectionBytes });
    super({
      transform(chunk, controller) {
        for (let rest = chunk; rest.length > 0 && limiter.breach === undefined;) {
          const space = limiter.space();
          const part = rest.subarray(0, space.length);
          space.set(part);
          const block = limiter.take(part.length);
          if (block !== undefined) controller.enqueue(block.slice());
          rest = rest.subarray(part.length);
        }
        if (limiter.breach === undefined) return;
        if (!error) return controller.terminate();
        throw new LimitError(limiter.breach, limiter.breach === "byte-limit" ? maxConnectionBytes : maxLineBytes);
      },
      flush(controller) {
        const block = limiter.end();
        if (block !== undefined) controller.enqueue(block.slice());
      },
    });
    this.#limiter = limiter;
  }

  /** The limit that was passed, or `undefined` while none was. */
  get breach(): Breach | undefined {
    return this.#limiter.breach;
  }
}
