/**
 * The limiter as a Web stream.
 *
 * @module
 */

import { checkBoolean, checkBufferBytes, checkFunction, checkOptions, checkWhole, show } from "../api/check.ts";
import { LimitError } from "../api/errors.ts";
import type { SizeBreach } from "../api/reasons.ts";
import { InputBuffer } from "./input_buffer.ts";
import { Limiter } from "./limiter.ts";

/** Options of {@linkcode ByteLimitStream}. */
export interface ByteLimitStreamOptions {
  /**
   * Maximum length of a line, in bytes, without its line end. `error` says what a longer line does.
   *
   * @default {65536}
   */
  maxLineBytes?: number | undefined;
  /**
   * Maximum number of bytes in all. `error` says what more bytes do.
   *
   * @default {Infinity}
   */
  maxConnectionBytes?: number | undefined;
  /**
   * What happens when a limit is passed. `true` makes the stream fail at once with a {@linkcode LimitError}; lines that
   * its reader has not taken yet are lost. `false` ends the stream after the whole lines before the breach, and
   * {@linkcode ByteLimitStream.breach} has the limit.
   *
   * @default {true}
   */
  error?: boolean | undefined;
  /**
   * What happens to an unfinished last line at the end of the input: it gets an LF, or is dropped. It is called then.
   * What a server has cut off is no line: `() => conn.ending === "end" ? "line" : "drop"` is for `conn.readable`.
   *
   * @default {() => "line"}
   */
  unterminated?: (() => "line" | "drop") | undefined;
}

/** What a stream of a connection's bytes tells of its connection. */
interface Source {
  /** Whether an unfinished last line counts as a line. It does if the peer has ended its side. */
  unterminated(): "line" | "drop";
  /** Marks an error as one of this input: another connection whose handler passes it on is not at fault. */
  own<E extends Error>(error: E): E;
}

/** The streams of connections' bytes. */
export const SOURCES: WeakMap<ReadableStream<Uint8Array>, Source> = new WeakMap();

/** Checks what was written to the stream. Without a `length`, it would be taken for no bytes. */
function checkChunk(chunk: unknown): void {
  if (chunk instanceof Uint8Array) return;
  throw new TypeError(
    `Cannot limit what was written: expected a Uint8Array, got ${typeof chunk === "string" ? "text" : show(chunk)}`,
  );
}

/**
 * Passes whole lines on. Each chunk that it hands out is one or more lines with their line ends; an unfinished line is
 * held back until it ends, and an unfinished last line gets an LF. Its limits bound its memory, and that of a
 * `TextDecoderStream` and a `TextLineStream` behind it, which have no limits of their own.
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
   * Makes a stream with these limits.
   *
   * @param options The limits, and what happens when one is passed.
   * @throws {RangeError} If a limit is out of range.
   * @throws {TypeError} If an option is of the wrong type.
   */
  constructor(options: ByteLimitStreamOptions = {}) {
    checkOptions("ByteLimitStream options", options);
    const { maxLineBytes = 65_536, maxConnectionBytes = Infinity, error = true, unterminated } = options;
    checkBufferBytes("maxLineBytes", maxLineBytes);
    checkWhole("maxConnectionBytes", maxConnectionBytes, 1, Infinity);
    checkBoolean("error", error);
    checkFunction("unterminated", unterminated, true);
    const limiter = new Limiter(maxLineBytes, true, new InputBuffer(maxConnectionBytes));
    super({
      transform(chunk, controller) {
        checkChunk(chunk);
        for (let rest = chunk; rest.length > 0 && limiter.breach === undefined;) {
          const space = limiter.input.space(limiter.mostBytes);
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
        const block = unterminated?.() === "drop" ? undefined : limiter.end();
        if (block !== undefined) controller.enqueue(block.slice());
      },
    });
    this.#limiter = limiter;
  }

  /** The limit that was passed, or `undefined` if none was. */
  get breach(): SizeBreach | undefined {
    return this.#limiter.breach;
  }
}
