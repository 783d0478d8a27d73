/**
 * Reading bytes: a number of them, or up to a delimiter.
 *
 * @module
 */

import { checkBytesOptions, checkCount } from "../api/check.ts";
import { delimitersOf } from "../api/framing.ts";
import type { Delimiter, ReadBytesOptions, ReadUntilOptions } from "../api/handlers.ts";
import { firstToEnd } from "../lines/input_buffer.ts";
import type { Begun } from "../time/expiry.ts";
import type { Input } from "./input.ts";
import { busy, bytes, endOf, throwEof, tooLong } from "./read_errors.ts";

type Bytes = Uint8Array<ArrayBuffer>;

/** Reads a number of bytes. */
export function readExactly(source: Input, count: number, options: ReadBytesOptions = {}): Promise<Bytes> {
  try {
    if (source.refuses()) throw busy();
    const { maxBytes, boundary } = checkBytesOptions("readExactly", options);
    checkCount("count", count);
    if (count > maxBytes) throw tooLong(source, maxBytes);
    const { input } = source.reader;
    const take = () => input.size >= count ? input.take(count) : undefined;
    const atHand = source.takeAtOnce(options, take);
    if (atHand !== undefined) return Promise.resolve(atHand);
    const ended = () => throwEof(source, `Cannot read ${bytes(count)}: ${endOf(source)}`);
    return source.read({ take, begun: () => begunBytes(source, boundary), mostBytes: () => count, ended }, options);
  } catch (error) {
    return source.reader.refuse(error);
  }
}

/** Reads up to a delimiter, or one of several; null if there is no more input. */
export function readUntil(
  source: Input,
  delimiter: Delimiter | readonly Delimiter[],
  options: ReadUntilOptions = {},
): Promise<Bytes | null> {
  try {
    if (source.refuses()) throw busy();
    const { maxBytes, boundary, keepDelimiter } = checkBytesOptions("readUntil", options);
    const wanted = delimitersOf(delimiter, source.cutter.framing.encoding);
    const { input } = source.reader;
    const take = () => takeUntil(source, wanted, maxBytes, keepDelimiter);
    const atHand = source.takeAtOnce(options, take);
    if (atHand !== undefined) return Promise.resolve(atHand);
    const cut = () => throwEof(source, `Cannot read up to the delimiter: ${endOf(source)}`);
    const [begun, ended] = [() => begunBytes(source, boundary), () => input.size > 0 || input.cutOff ? cut() : null];
    return source.read<Bytes | null>({ take, begun, mostBytes: () => maxBytes + longest(wanted), ended }, options);
  } catch (error) {
    return source.reader.refuse(error);
  }
}

/** What has begun while a read of bytes waits: nothing, if a message begins with it of which no byte has come. */
function begunBytes({ reader }: Input, boundary: boolean): Begun | undefined {
  const { size } = reader.input;
  return boundary && size === 0 ? undefined : size;
}

function takeUntil(source: Input, delimiters: Uint8Array[], maxBytes: number, keeps: boolean): Bytes | undefined {
  const { input } = source.reader;
  const { bytes, start, searched, end } = input;
  const found = firstToEnd(bytes, delimiters, searched, end);
  input.searched = found?.at ?? Math.max(start, end - longest(delimiters) + 1);
  const length = input.searched - start;
  if (length > maxBytes) throw tooLong(source, maxBytes);
  if (found === undefined) return undefined;
  const data = input.take(keeps ? length + found.length : length);
  if (!keeps) input.skip(found.length);
  return data;
}

const longest = (delimiters: Uint8Array[]) => delimiters.reduce((most, { length }) => Math.max(most, length), 0);
