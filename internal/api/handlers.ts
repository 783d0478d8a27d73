/**
 * What a handler sees, and what it is.
 *
 * @module
 */

/** One client, as a handler sees it. */
export interface Conn {
  /** The connection's number, from 1, in the order of acceptance. */
  readonly id: number;
  /** The peer's address. */
  readonly remoteAddr: Deno.Addr;
  /** This side's address. */
  readonly localAddr: Deno.Addr;
  /**
   * The lines that the peer sends, decoded and without their ends, for a conversation handler. It is one iterator for
   * one reader at a time: a loop left with `break` can be taken up by another. It ends when there will be no more lines,
   * whatever the cause, and never throws.
   *
   * A line may be a slice of the block that it came with, up to 64 KiB that stay in memory with it. Copy what you keep
   * for long.
   *
   * @throws {TypeError} In a line handler, which gets the lines as its argument.
   */
  readonly lines: AsyncIterableIterator<string, undefined>;
  /**
   * The bytes that the peer sends, for a conversation handler: one stream, the same object each time. It shares the
   * position with {@linkcode Conn.lines}, reads only when it is pulled, and, unlike that of a `Deno.Conn`, closes nothing
   * at the end of input. It ends for every ending. To cancel it closes nothing either; what it has not handed out stays
   * for the next read.
   *
   * @throws {TypeError} In a line handler, which gets the lines as its argument.
   */
  readonly readable: ReadableStream<Uint8Array<ArrayBuffer>>;
  /**
   * Where text and bytes can be piped to, as {@linkcode Conn.write} takes them. To close it ends this side, once all has
   * left; the peer can go on sending. To abort it aborts the connection, with reason `closed`, unless that is ending
   * already.
   */
  readonly writable: WritableStream<Uint8Array | string>;
  /**
   * Aborts when the connection ends, whatever ended it, with the {@linkcode CloseReason} as its `reason`. A listener of
   * it must not throw: the runtime reports that as an uncaught error, which ends the process.
   */
  readonly signal: AbortSignal;
  /**
   * Writes text as UTF-8, or bytes, as they are: no line end is added. Writes leave in the order of the calls, before
   * the replies to later lines. Waiting for each of them keeps the memory of a slow peer small.
   *
   * @param data What to write; bytes are copied. Text must not end within a character (a surrogate pair).
   * @returns When there is room for more: at once while less than 64 KiB wait (or `maxQueuedBytes`, if that is less),
   * else when so much has left. It does not say that the peer has it, which TCP cannot tell.
   * @throws {ConnectionClosedError} (As a rejection, safe to ignore.) If the connection has ended.
   * @throws {TypeError} (As a rejection, safe to ignore.) If the data is neither text nor bytes.
   */
  write(data: string | Uint8Array): Promise<void>;
  /**
   * Closes politely: what has been written leaves, then the connection ends, with reason `closed`. A line that is being
   * answered gets its reply first.
   */
  close(): void;
}

/** What a line handler answers: a line without its end, or `undefined` for no reply. */
export type Reply = string | undefined | void;

/** Answers one line; the first door into a connection, and the fast one. */
export interface LineHandler {
  /**
   * Answers one line. While a promise is pending the connection's later lines wait; other connections do not.
   *
   * @param line The line, without its end. It may be a slice of the block that it came with, up to 64 KiB that stay in
   * memory with it: copy what you keep for long.
   * @param conn Its connection.
   * @returns The reply, to which the server adds an LF.
   */
  (line: string, conn: Conn): Reply | Promise<Reply>;
  /**
   * Answers many lines at once. The server calls it, if it is there, in place of the handler, which it must agree with.
   * It gets one or more whole lines, each ended by one LF, and returns all their replies in order, each ended by one LF.
   * If it throws, none of these lines is answered.
   *
   * @param lines The lines.
   * @param conn Their connection.
   * @returns The replies.
   */
  block?(lines: string, conn: Conn): string;
}

/** The name of the method by which {@linkcode BytesHandler} answers bytes; no user can have it. */
export const ANSWER_BYTES: unique symbol = Symbol("answer bytes");

/**
 * A line handler of the server's own that can answer up to 4 KiB of whole lines as the bytes that they came in: for a
 * short line, the way to text and back takes longer than all the rest of an answer.
 */
export interface BytesHandler extends LineHandler {
  /**
   * Answers lines, as they came: any bytes, each line ended by LF or CRLF. It is asked before `block` and the handler, and
   * must agree with them; it is not asked where lines have a pace, or while the server is short of memory.
   *
   * @param lines The lines, which may be overwritten but for the last LF; the buffer behind them is the server's.
   * @returns The replies in order, each ended by LF: the same array, or another, which is copied. `undefined` to have what
   * is in `lines` now answered as text. If it throws, none of the lines is answered.
   */
  [ANSWER_BYTES]?(lines: Uint8Array): Uint8Array | undefined;
}

/** Talks with one peer; the second door. When it returns, the connection closes politely. */
export type ConnHandler = (conn: Conn) => void | Promise<void>;
