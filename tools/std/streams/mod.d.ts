/**
 * What `@std/streams` exports, declared for the copy that `tools/setup.ts` takes
 * from npm.
 * @module
 */
export * from "./text_line_stream.d.ts";

/** What becomes of the delimiter: end of its chunk, start of the next, or gone. */
export type DelimiterDisposition = "suffix" | "prefix" | "discard";

/** Options of {@linkcode DelimiterStream} and {@linkcode TextDelimiterStream}. */
export interface DelimiterStreamOptions {
  /** @default {"discard"} */
  disposition?: DelimiterDisposition;
}

/** Cuts bytes at a delimiter. */
export class DelimiterStream extends TransformStream<Uint8Array, Uint8Array> {
  constructor(delimiter: Uint8Array, options?: DelimiterStreamOptions);
}

/** Cuts text at a delimiter. */
export class TextDelimiterStream extends TransformStream<string, string> {
  constructor(delimiter: string, options?: DelimiterStreamOptions);
}

/** Options of {@linkcode LimitedBytesTransformStream}. */
export interface LimitedBytesTransformStreamOptions {
  /** Fails with a `RangeError` at the limit instead of ending. @default {false} */
  error?: boolean;
}

/** Passes chunks on while they fit into `size` bytes in all. */
export class LimitedBytesTransformStream extends TransformStream<Uint8Array, Uint8Array> {
  constructor(size: number, options?: LimitedBytesTransformStreamOptions);
}

/** Options of {@linkcode LimitedTransformStream}. */
export interface LimitedTransformStreamOptions {
  /** Fails with a `RangeError` at the limit instead of ending. @default {false} */
  error?: boolean;
}

/** Passes `size` chunks on. */
export class LimitedTransformStream<T> extends TransformStream<T, T> {
  constructor(size: number, options?: LimitedTransformStreamOptions);
}

/** Passes the bytes from `start` to before `end` on. */
export class ByteSliceStream extends TransformStream<Uint8Array, Uint8Array> {
  constructor(start?: number, end?: number);
}

/** Options of {@linkcode Buffer.bytes}. */
export interface BufferBytesOptions {
  /** Returns a copy, not a view. @default {true} */
  copy?: boolean;
}

/** Bytes that grow as they are written and shrink as they are read. */
export class Buffer {
  constructor(ab?: ArrayBufferLike | ArrayLike<number>);
  /** Takes bytes out. */
  get readable(): ReadableStream<Uint8Array>;
  /** Puts bytes in. */
  get writable(): WritableStream<Uint8Array>;
  /** The unread bytes. */
  bytes(options?: BufferBytesOptions): Uint8Array;
  /** Tells whether nothing is unread. */
  empty(): boolean;
  /** Count of unread bytes. */
  get length(): number;
  /** Count of bytes that fit without growing. */
  get capacity(): number;
  /** Keeps the first `n` unread bytes. */
  truncate(n: number): void;
  /** Drops everything. */
  reset(): void;
  /** Makes room for `n` more bytes. */
  grow(n: number): void;
}

/** One stream after the other. */
export function concatReadableStreams<T>(
  ...streams: ReadableStream<T>[]
): ReadableStream<T>;
/** All streams at once, in the order in which chunks arrive. */
export function mergeReadableStreams<T>(
  ...streams: ReadableStream<T>[]
): ReadableStream<T>;
/** A chunk of each stream in turn, until all end. */
export function zipReadableStreams<T>(
  ...streams: ReadableStream<T>[]
): ReadableStream<T>;
/** A chunk of each stream in turn, until one ends. */
export function earlyZipReadableStreams<T>(
  ...streams: ReadableStream<T>[]
): ReadableStream<T>;

/** Makes a transform stream of a generator function. */
export function toTransformStream<I, O>(
  transformer: (src: ReadableStream<I>) => Iterable<O> | AsyncIterable<O>,
  writableStrategy?: QueuingStrategy<I>,
  readableStrategy?: QueuingStrategy<O>,
): TransformStream<I, O>;

/** Reads to the end, as one `ArrayBuffer`. */
export function toArrayBuffer(
  readableStream: ReadableStream<Uint8Array>,
): Promise<ArrayBuffer>;
/** Reads to the end, as one `Blob`. */
export function toBlob(stream: ReadableStream<Uint8Array>): Promise<Blob>;
/** Reads to the end, as bytes. */
export function toBytes(
  stream: ReadableStream<Uint8Array>,
): Promise<Uint8Array<ArrayBuffer>>;
/** Reads to the end, as parsed JSON. */
export function toJson(stream: ReadableStream): Promise<unknown>;
/** Reads to the end, as one string, from chunks of text or of UTF-8. */
export function toText(stream: ReadableStream): Promise<string>;
