/**
 * The limiter: cuts input into blocks of whole lines, or finds that a limit was passed. Line handlers that answer many
 * lines at once get their lines from it, and so does `ByteLimitStream`; {@linkcode LineCutter} cuts line by line.
 *
 * @module
 */

import type { SizeBreach } from "../api/reasons.ts";
import { CR, LF } from "./ascii.ts";
import type { InputBuffer } from "./input_buffer.ts";

/** Cuts input into blocks of whole lines, each ended by LF. Each byte is searched once. */
export class Limiter {
  /** The input. */
  readonly input: InputBuffer;
  readonly #maxLineBytes: number;
  readonly #dropsCr: boolean;
  /** The limit that was passed; nothing more is handed out after that. */
  breach: SizeBreach | undefined;

  /**
   * @param maxLineBytes Maximum length of a line, in bytes, without its line end.
   * @param dropsCr Whether one CR before LF belongs to the line end.
   * @param input The input.
   */
  constructor(
    maxLineBytes: number,
    dropsCr: boolean,
    input: InputBuffer,
  ) {
    this.#maxLineBytes = maxLineBytes;
    this.#dropsCr = dropsCr;
    this.input = input;
  }

  /** Maximum size of a line with its line end, in bytes. */
  get mostBytes(): number {
    return this.#maxLineBytes + 2;
  }

  /**
   * Takes `count` bytes that were read into the input's space.
   *
   * @returns One or more whole lines with their line ends, valid until the next call of `space`; `undefined` if no line
   * ended.
   */
  take(count: number): Uint8Array<ArrayBuffer> | undefined {
    this.input.added(count);
    return this.cut();
  }

  /**
   * Hands out the whole lines that have come.
   *
   * @returns One or more whole lines with their line ends, valid until the next call of `space`; `undefined` if there
   * is none.
   */
  cut(): Uint8Array<ArrayBuffer> | undefined {
    if (this.breach !== undefined) return undefined;
    const block = this.#cut();
    if (this.input.overLimit) this.breach ??= "byte-limit";
    return block;
  }

  /**
   * Ends the input. An unfinished last line counts as a line.
   *
   * @returns That line with an LF, or `undefined` if there is none.
   */
  end(): Uint8Array<ArrayBuffer> | undefined {
    if (this.breach !== undefined || this.input.size === 0) return undefined;
    this.input.append(LF, this.mostBytes);
    return this.#cut();
  }

  #cut(): Uint8Array<ArrayBuffer> | undefined {
    const { input } = this;
    const { bytes, start } = input;
    let end = lastLineEnd(bytes, input.searched, input.end) || start;
    if (end - start > this.#maxLineBytes) end = this.#cutAtBreach(end);
    input.skip(end - start);
    input.searched = input.end;
    if (this.breach === undefined && this.#tooLong(end, input.end)) this.breach = "line-too-long";
    return end > start ? bytes.subarray(start, end) : undefined;
  }

  /** Finds the first line that is too long. Only a block that is longer than `maxLineBytes` can hold one. */
  #cutAtBreach(end: number): number {
    for (let { start, searched } = this.input; start < end;) {
      const lineEnd = this.input.bytes.indexOf(LF, searched);
      if (this.#tooLong(start, lineEnd)) {
        this.breach = "line-too-long";
        return start;
      }
      start = searched = lineEnd + 1;
    }
    return end;
  }

  /** Whether a line is too long. A CR at its end may belong to the line end, so it is not counted. */
  #tooLong(start: number, end: number): boolean {
    const length = end - start - this.#maxLineBytes;
    return length > 1 || length === 1 && !(this.#dropsCr && this.input.bytes[end - 1] === CR);
  }
}

/**
 * Returns where the last whole line in [from, end) ends, or 0. Most reads end with a line end, so it looks there first.
 */
export function lastLineEnd(buffer: Uint8Array, from: number, end: number): number {
  if (buffer[end - 1] === LF && end > from) return end;
  const last = buffer.subarray(from, end).lastIndexOf(LF);
  return last < 0 ? 0 : from + last + 1;
}
