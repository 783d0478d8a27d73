/**
 * The handlers of a server, and the connection that they get.
 *
 * @module
 */

/** The connection to one client, as a handler gets it. */
export interface Conn {
  /** The connection's number, from 1, in the order of acceptance. */
  readonly id: number;
  /** The peer's address. */
  readonly remoteAddr: Deno.Addr;
  /** This side's address. */
  readonly localAddr: Deno.Addr;
  /**
   * The lines that the peer sends, decoded and without their ends, for a conversation handler. It is one iterator, for
   * one loop at a time: after a loop that was left with `break`, another loop goes on with the next line. It ends when
   * there are no more lines, for whatever reason, and never throws.
   *
   * A line may be a slice of a block of up to 64 KiB, which stays in memory as long as the line. Copy a line that you
   * keep for long.
   *
   * @throws {TypeError} In a line handler, which gets the lines as its argument.
   */
  readonly lines: AsyncIterableIterator<string, undefined>;
  /**
   * The bytes that the peer sends, for a conversation handler: one stream, the same object each time. It shares its
   * position in the input with {@linkcode Conn.lines}, and reads only when it is pulled. It ends when the input or the
   * connection ends, for whatever reason. Unlike the stream of a `Deno.Conn`, it does not close the connection, neither
   * at the end of input nor when it is cancelled; after a cancel, bytes that it has not handed out stay for the next
   * read.
   *
   * @throws {TypeError} In a line handler, which gets the lines as its argument.
   */
  readonly readable: ReadableStream<Uint8Array<ArrayBuffer>>;
  /**
   * A stream for text and bytes, which are written as by {@linkcode Conn.write}. Closing it ends this side once
   * everything has been written; the peer can go on sending. Aborting it aborts the connection, with reason `closed`,
   * unless the connection is ending already.
   */
  readonly writable: WritableStream<Uint8Array | string>;
  /**
   * Aborts when the connection ends, for whatever reason; its `reason` is the {@linkcode CloseReason}. A listener of
   * this signal must not throw: the runtime reports that as an uncaught error, which ends the process.
   */
  readonly signal: AbortSignal;
  /**
   * Writes text as UTF-8, or bytes as they are; no line end is added. Data is sent in the order of the calls, before
   * the replies to later lines. A handler that awaits each write keeps little memory for a slow peer.
   *
   * @param data The text or bytes; bytes are copied. Text must not end within a surrogate pair.
   * @returns A promise that settles when there is room for more: at once while less than 64 KiB wait to be written (or
   * `maxQueuedBytes`, if that is less), otherwise when the kernel has taken enough of them. It does not mean that the
   * peer has received the data, which TCP cannot tell.
   * @throws {ConnectionClosedError} If the connection has ended. (A rejection; a caller may ignore it.)
   * @throws {TypeError} If the data is neither text nor bytes. (A rejection; a caller may ignore it.)
   */
  write(data: string | Uint8Array): Promise<void>;
  /**
   * Closes the connection gracefully: what has been written is sent, then the connection ends, with reason `closed`. If
   * a line handler is working on a line, its reply is sent first.
   */
  close(): void;
}

/** The reply of a line handler: a line without its end, or `undefined` for no reply. */
export type Reply = string | undefined | void;

/** A line handler answers one line. It is the faster of the two kinds of handlers. */
export interface LineHandler {
  /**
   * Answers one line. While its promise is pending, the connection's later lines wait; other connections do not.
   *
   * @param line The line, without its end. It may be a slice of a block of up to 64 KiB, which stays in memory as long
   * as the line: copy a line that you keep for long.
   * @param conn The connection.
   * @returns The reply, to which the server adds an LF.
   */
  (line: string, conn: Conn): Reply | Promise<Reply>;
  /**
   * Answers many lines at once. If this method exists, the server calls it in place of the handler, and its replies
   * must be the same as the handler's. If it throws, none of these lines is answered.
   *
   * @param lines One or more whole lines, each ended by one LF.
   * @param conn The connection.
   * @returns All their replies in order, each ended by one LF.
   */
  block?(lines: string, conn: Conn): string;
}

/** The name of the method by which a {@linkcode BytesHandler} answers bytes. It is not exported to users. */
export const ANSWER_BYTES: unique symbol = Symbol("answer bytes");

/**
 * A line handler that can answer up to 4 KiB of whole lines as bytes, for handlers that come with the server: for a
 * short line, decoding and encoding takes longer than the rest of its answer.
 */
export interface BytesHandler extends LineHandler {
  /**
   * Answers the bytes of whole lines, each ended by LF or CRLF; the other bytes can be any. The server calls it before
   * `block` and the handler, and its replies must be the same as theirs. It is not called if `maxLinesPerSecond` or
   * `maxBytesPerSecond` is set, or while the server is short of memory. If it throws, none of the lines is answered.
   *
   * @param lines The lines, which it may overwrite, except for the last LF; the buffer behind them is the server's.
   * @returns The replies in order, each ended by LF: the same array, or another one, which is copied. `undefined` makes
   * the server answer what `lines` holds now as text.
   */
  [ANSWER_BYTES]?(lines: Uint8Array): Uint8Array | undefined;
}

/** A conversation handler talks with one peer. When it returns, the server closes the connection gracefully. */
export type ConnHandler = (conn: Conn) => void | Promise<void>;
