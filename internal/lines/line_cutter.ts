/**
 * Cuts input into lines, one by one, under any framing.
 *
 * @module
 */

import type { LineEnd, ResolvedFraming } from "../api/framing.ts";
import type { Breach } from "../api/reasons.ts";
import { CR } from "./ascii.ts";
import { begunBytes, indexOfBytes, type InputBuffer } from "./input_buffer.ts";
import { begunCharacter, decode, decodeShort, independent } from "./text.ts";

/**
 * Maximum bytes that are decoded at once: decoding each line by itself takes three times as long as cutting it out of
 * text. Only part of the input is decoded, because the next read may want its bytes.
 */
const WINDOW_BYTES = 2048;

/** Maximum length of text whose slices the engine copies anyway. */
const COPIED_LENGTH = 12;

/** Cuts lines out of an {@linkcode InputBuffer}, so that what follows a line can be read as bytes. */
export class LineCutter {
  readonly #input: InputBuffer;
  #framing!: ResolvedFraming;
  maxLineBytes: number;
  /** Whether each line has memory of its own. */
  independentLines: boolean;
  readonly #owner: { discarded(): void };
  /** How the line ended that was handed out last. */
  lastLineEnd: LineEnd | undefined;
  /** What was wrong with the input; there are no more lines after that. */
  breach: Breach | undefined;
  /** Text in which each character stands for one byte of the input, and the position of its first byte. */
  #window = "";
  #windowAt = 0;
  /** Up to this position, the bytes are not such text. */
  #noWindowBefore = 0;
  /** Where the rest of a long line begins that is to be skipped; and its beginning, if that is to be handed out. */
  #skippedTo: number | undefined;
  #truncated: string | undefined;

  /**
   * @param input The input.
   * @param framing How lines are framed.
   * @param maxLineBytes Maximum length of a line, in bytes, without its line end.
   * @param independentLines Whether each line has memory of its own.
   * @param owner Told of each line that is too long and discarded.
   */
  constructor(
    input: InputBuffer,
    framing: ResolvedFraming,
    maxLineBytes: number,
    independentLines: boolean,
    owner: { discarded(): void },
  ) {
    this.#input = input;
    this.framing = framing;
    this.maxLineBytes = maxLineBytes;
    this.independentLines = independentLines;
    this.#owner = owner;
  }

  get framing(): ResolvedFraming {
    return this.#framing;
  }

  /** Changes the framing of the lines that have not been handed out. */
  set framing(framing: ResolvedFraming) {
    this.#framing = framing;
    this.#window = "";
    this.#noWindowBefore = 0;
    this.#input.searchAnew();
  }

  /** Changes limits, perhaps also that on the size of the input. */
  setLimits(limits: { readonly maxLineBytes: number; readonly independentLines: boolean }): void {
    this.maxLineBytes = limits.maxLineBytes;
    this.independentLines = limits.independentLines;
    // It may hold bytes that are beyond the limit now.
    this.#window = "";
  }

  /** Whether the beginning of a line that is too long has been dropped, and its end has not come. */
  get skipping(): boolean {
    if (this.#skippedTo === undefined) return false;
    // The rest of the line was read as bytes, and perhaps what comes after it.
    if (this.#skippedTo !== this.#input.position) this.#endSkipping();
    return this.#skippedTo !== undefined;
  }

  /** Maximum size of a line with its line end, in bytes. */
  get mostBytes(): number {
    return this.maxLineBytes + this.#framing.delimiter.length + 1;
  }

  /** Whether a line has begun. */
  get begun(): boolean {
    return this.#input.end > this.#input.start || this.skipping;
  }

  /**
   * Returns the next line that has come whole; `undefined` if there is none yet, or after a breach.
   *
   * @param leavesLong Whether a line that is too long is left for the next call.
   */
  next(leavesLong = false): string | undefined {
    const input = this.#input;
    if (input.end === input.start) return undefined;
    const window = this.#window;
    const from = input.position - this.#windowAt;
    if (from >= window.length || this.#skippedTo !== undefined) return this.#nextInBytes(leavesLong);
    // If the delimiter cannot be searched for as text, there is no window, and this is not reached.
    const { delimiterText = "", dropsCr } = this.#framing;
    const end = window.indexOf(delimiterText, from);
    if (end < 0) return this.#nextInBytes(leavesLong);
    const withCr = dropsCr && end > from && window.charCodeAt(end - 1) === CR;
    const to = withCr ? end - 1 : end;
    if (to - from > this.maxLineBytes) return this.#nextInBytes(leavesLong);
    this.#take(end - from, withCr);
    const line = window.slice(from, to);
    if (end + delimiterText.length === window.length) this.#window = "";
    return this.independentLines && to - from > COPIED_LENGTH ? independent(line) : line;
  }

  /** Adds the next lines that have come whole to an array, up to a number, or to one that is too long or not text. */
  nextLines(lines: string[], most: number): void {
    for (let line; most > 0 && (line = this.next(true)) !== undefined; most--) lines.push(line);
  }

  /** Notes that another line has been cut, of `length` bytes without its delimiter. */
  #take(length: number, withCr: boolean): void {
    const { endName, delimiter } = this.#framing;
    this.lastLineEnd = withCr ? "crlf" : endName;
    this.#input.skip(length + delimiter.length);
  }

  #nextInBytes(leavesLong: boolean): string | undefined {
    while (this.breach === undefined) {
      const { bytes, start, searched, end } = this.#input;
      const { delimiter, dropsCr } = this.#framing;
      const at = indexOfBytes(bytes, delimiter, searched, end);
      if (at < 0) return this.#unfinished(leavesLong);
      const withCr = dropsCr && at > start && bytes[at - 1] === CR;
      const to = withCr ? at - 1 : at;
      if (this.skipping) {
        const line = this.#endSkipping();
        if (line === undefined) this.#input.skip(at - start + delimiter.length);
        else return this.#take(at - start, withCr), line;
      } else if (to - start > this.maxLineBytes) {
        if (leavesLong) return undefined;
        this.#tooLong();
      } else {
        const line = this.#decode(start, to, at + delimiter.length < end);
        if (line !== undefined) this.#take(at - start, withCr);
        else if (!leavesLong) this.breach = "invalid-text";
        return line;
      }
    }
  }

  /** Decodes one line; and, if more bytes follow a short one, text from which the next lines can be cut. */
  #decode(start: number, to: number, more: boolean): string | undefined {
    const { bytes, position, end } = this.#input;
    const short = to - start < WINDOW_BYTES / 4 && this.#framing.delimiterText !== undefined;
    if (!more || !short || position < this.#noWindowBefore) {
      return decodeShort(bytes, start, to) ?? decode(bytes.subarray(start, to), this.#framing);
    }
    const length = Math.min(end - start, WINDOW_BYTES);
    const text = decode(bytes.subarray(start, start + length), this.#framing);
    // Each character takes at least one byte, so the lengths are equal only if each takes just one.
    if (text?.length !== length) {
      this.#noWindowBefore = position + length;
      return decode(bytes.subarray(start, to), this.#framing);
    }
    [this.#window, this.#windowAt] = [text, position];
    const line = text.slice(0, to - start);
    return this.independentLines ? independent(line) : line;
  }

  /** Looks at a line whose end has not come. */
  #unfinished(leavesLong = false): undefined {
    const { bytes, start, end } = this.#input;
    const { delimiter, dropsCr } = this.#framing;
    const begun = begunBytes(bytes, delimiter, start, end);
    const cr = dropsCr && end > start && bytes[end - 1] === CR ? 1 : 0;
    this.#input.searched = Math.max(start, end - begun);
    if (this.skipping) {
      // A CR may belong to the line end, and `lastLineEnd` needs it.
      this.#input.skip(end - start - Math.max(begun, cr));
      this.#skippedTo = this.#input.position;
    } else if (end - start - Math.max(begun, cr) > this.maxLineBytes && !leavesLong) {
      this.#tooLong();
      if (this.breach === undefined) this.#unfinished();
    }
  }

  /** The line at the start of the input is too long. */
  #tooLong(): void {
    const { bytes, start, position } = this.#input;
    if (this.#framing.onLongLine === "close") return void (this.breach = "line-too-long");
    this.#skippedTo = position;
    if (this.#framing.onLongLine === "discard") return this.#owner.discarded();
    let to = start + this.maxLineBytes;
    if (this.#framing.encoding === "utf-8") to -= begunCharacter(bytes, start, to);
    this.#truncated = decode(bytes.subarray(start, to), this.#framing);
    if (this.#truncated === undefined) this.breach = "invalid-text";
  }

  #endSkipping(): string | undefined {
    this.#skippedTo = undefined;
    const line = this.#truncated;
    this.#truncated = undefined;
    return line;
  }

  /**
   * The input has ended, and {@linkcode next} has no more lines.
   *
   * @returns The last line, if the end of input has cut it off and it counts as a line.
   */
  end(): string | undefined {
    if (!this.begun || this.breach !== undefined) return undefined;
    const { bytes, start, end, overLimit, size } = this.#input;
    const { unterminated, dropsCr } = this.#framing;
    if (overLimit) return undefined;
    const withCr = dropsCr && end > start && bytes[end - 1] === CR;
    const to = withCr ? end - 1 : end;
    // Until the input ended, a partial line end at its end was not counted as part of the line.
    if (!this.skipping && to - start > this.maxLineBytes) this.#tooLong();
    if (this.breach !== undefined) return undefined;
    const { skipping } = this;
    const truncated = this.#endSkipping();
    this.lastLineEnd = "none";
    this.#input.skip(size);
    if (unterminated === "drop") return undefined;
    if (unterminated === "error") return void (this.breach = "unterminated");
    if (skipping) return truncated;
    const line = decode(bytes.subarray(start, to), this.#framing);
    if (line === undefined) this.breach = "invalid-text";
    return line;
  }

  /**
   * Notes how the last of the lines ended that were cut elsewhere.
   *
   * @param lines The lines, each with its end.
   * @param whole Whether the end of the last one has come, and was not added.
   */
  gave(lines: Uint8Array, whole: boolean): void {
    const { dropsCr, endName } = this.#framing;
    const withCr = dropsCr && lines[lines.length - 2] === CR;
    this.lastLineEnd = !whole ? "none" : withCr ? "crlf" : endName;
  }

  /** Counts the whole lines that have come, up to a maximum. */
  count(most: number): number {
    const { bytes, start, end } = this.#input;
    const { delimiter } = this.#framing;
    let count = 0;
    for (let at = start; count < most; count++) {
      at = indexOfBytes(bytes, delimiter, at, end);
      if (at < 0) break;
      at += delimiter.length;
    }
    return count;
  }
}
