/**
 * The handlers of a server, and the connection that they get.
 *
 * @module
 */

import type { ConnOptions } from "./conn_options.ts";
import type { ClosedEvent } from "./events.ts";
import type { Framing, LineEnd } from "./framing.ts";
import type { CloseReason } from "./reasons.ts";
import type { ProxyInfo, TlsCredentialsHandle, TlsInfo } from "./transport.ts";

/** Options of a single read. */
export interface ReadOptions {
  /**
   * Maximum time that the read may take, in milliseconds, more than 0. While the read waits, `idleTimeout` and
   * `firstLineTimeout` do not run. When the time is up, the read rejects with a `Deno.errors.TimedOut`. The connection
   * goes on, and what has come stays for the next read. `Infinity` waits for ever for the first byte: once something has
   * begun, `lineTimeout` and `minBytesPerSecond` bound it all the same, and end the connection. Without this time,
   * `idleTimeout` and `firstLineTimeout` apply.
   */
  timeout?: number | undefined;
  /**
   * Rejects the read with the signal's reason when it aborts, and at once if it has aborted already, also if what is to
   * be read has come. The connection goes on, and what has come stays for the next read.
   */
  signal?: AbortSignal | undefined;
}

/** Options of a read of a line. */
export interface ReadLineOptions extends ReadOptions {
  /**
   * Whether a message of the protocol begins with this line. At a shutdown with `drain: "finish"`, at `maxAge` and at
   * `maxLines`, the input may end before it: the read then gives `null`. With `false`, the line belongs to a message that
   * has begun, or is an answer that the peer owes, and the input does not end before it. The read then waits for the line
   * as long as `drainTimeout`, the 10 s beyond `maxAge`, and the clocks of the connection allow.
   *
   * @default {true}
   */
  boundary?: boolean | undefined;
}

/** Options of a read of bytes, which are in memory until all of them have come. */
export interface ReadBytesOptions extends ReadOptions {
  /**
   * Maximum number of bytes that may be asked for, or may come before the delimiter: from 1 byte to 256 MiB.
   *
   * @default {1_048_576}
   */
  maxBytes?: number | undefined;
  /**
   * Whether a message of the protocol begins with this read. At a shutdown with `drain: "finish"`, at `maxAge` and at
   * `maxLines`, the input may end at this read, once everything that the peer has sent is read, as it may at a read of a
   * line. `readUntil` then gives `null`, and `readExactly` rejects with `Deno.errors.UnexpectedEof`. With `false`, the
   * bytes belong to a message that has begun, and the input does not end before them. The read then waits for them as long
   * as `drainTimeout`, the 10 s beyond `maxAge`, and the clocks of the connection allow.
   *
   * @default {false}
   */
  boundary?: boolean | undefined;
}

/** Text, in the connection's encoding, or bytes that end what is read: 1 to 1024 bytes. */
export type Delimiter = string | Uint8Array;

/** Options of a read up to a delimiter. */
export interface ReadUntilOptions extends ReadBytesOptions {
  /**
   * Whether the delimiter is given, too, behind the bytes before it: so a handler sees which of several has come.
   *
   * @default {false}
   */
  keepDelimiter?: boolean | undefined;
}

/** Options of {@linkcode Conn.close}. */
export interface CloseOptions {
  /** A last line for the peer, without its line end. */
  lastWord?: string | undefined;
  /** The handler's own word for the end, for the event, the log and the counters. */
  detail?: string | undefined;
}

/**
 * The phases of a connection, in their order; it never goes back. In `ending` a limit or a clock has ended the input,
 * and the handler may still write; in `leaving` the connection writes the output that waits and its last line; in
 * `lingering` it discards what the peer still sends.
 */
export type ConnPhase = "open" | "ending" | "leaving" | "lingering" | "closed";

/**
 * What a connection waits for:
 *
 * - `first-byte`: the first byte from its peer
 * - `peer`: more input; nothing has begun
 * - `line`: the rest of a line
 * - `body`: the rest of what a read such as `readExactly` asks for, or the next line of a message
 * - `write`: the peer, to take what was written
 * - `handler`: the handler
 * - `close`: the end
 * - `turn`: a turn of the event loop, memory, or a rate limit
 */
export type WaitsFor = "first-byte" | "peer" | "line" | "body" | "write" | "handler" | "close" | "turn";

/** What a connection has done so far, and what it waits for. */
export interface ConnStats {
  /** The number of whole lines read. */
  readonly lines: number;
  /** The number of bytes read. */
  readonly bytesIn: number;
  /** The number of bytes written. */
  readonly bytesOut: number;
  /** The time since it was accepted, in milliseconds. */
  readonly ageMs: number;
  /** The time for which it has waited for its peer, in milliseconds; 0 if it does not. */
  readonly idleMs: number;
  /** Its phase. */
  readonly phase: ConnPhase;
  /** What it waits for. */
  readonly waitsFor: WaitsFor;
  /** The handler's own word, from `conn.close` or `conn.setDeadline`. */
  readonly detail?: string;
}

/**
 * The connection to one client, as a handler gets it.
 *
 * All reads share one position in the input: the next read gets what comes next, whichever read it is. There is one
 * read at a time: a second one rejects with a `TypeError`, and the first goes on. In a line handler, which gets the
 * lines as its argument, every read is a `TypeError`.
 *
 * A promise of a read, a write or `startTls` that the handler awaits only later, or never, does no harm if it rejects
 * meanwhile. The promises of Web streams do: there, as everywhere in Deno, an unhandled rejection ends the process.
 */
export interface Conn<Data = undefined> extends AsyncDisposable {
  /** The connection's number, from 1, in the order of acceptance. */
  readonly id: number;
  /** The peer's address. */
  readonly remoteAddr: Deno.Addr;
  /** This side's address. */
  readonly localAddr: Deno.Addr;
  /** What the option `data` made for this connection. */
  readonly data: Data;
  /** What the TLS handshake has agreed on, and the peer's certificate; undefined if the connection is not encrypted. */
  readonly tls: TlsInfo | undefined;
  /** What a PROXY header has said about the connection, besides the addresses; undefined if there was none. */
  readonly proxy: ProxyInfo | undefined;
  /**
   * Aborts when the connection ends, for whatever reason; its `reason` is the {@linkcode CloseReason}. If a limit, a
   * clock or a deadline ends the connection, it aborts at once, and the handler may still write: until it settles, but
   * for 1 s at most. If `readable` has met the limit, it aborts when that time is over, so that a pipeline of streams
   * can write what it has got. A listener of this signal must not throw: the runtime reports that as an uncaught error, which
   * ends the process.
   */
  readonly signal: AbortSignal;
  /**
   * Aborts when a shutdown with `drain: "finish"`, `maxAge` or `maxLines` asks the connection to finish; its `reason`
   * says which. A handler that reads lines need not know: its input ends while it waits for a line of
   * which no byte has come, and one that reads messages of bytes, or of several lines, tells where they begin by the
   * option `boundary` of its reads. A handler that only writes should return when it aborts.
   */
  readonly finishing: AbortSignal;
  /**
   * Why there is no more input; undefined while there may be more. It is set before the last read has given `null`, and
   * before a loop over `lines` or `batches` ends. That the peer has ended its side is found by a read: a handler that
   * reads nothing does not learn it from this.
   */
  readonly ending: CloseReason | undefined;
  /**
   * Resolves when the connection is closed. It never rejects. The handler of the connection may await it only in a
   * conversation, after {@linkcode Conn.close}: otherwise, the connection waits for the handler.
   */
  readonly closed: Promise<ClosedEvent>;
  /**
   * The lines that the peer sends, decoded and without their ends. It is one iterator: after a loop that was left with
   * `break`, another loop goes on with the next line. It ends when there are no more lines, for whatever reason, which
   * {@linkcode Conn.ending} tells. It throws only a `TypeError`, if another read has not settled.
   */
  readonly lines: AsyncIterableIterator<string, undefined>;
  /** The same lines in arrays: those that have come together, 1024 at most. Each array has at least one. */
  readonly batches: AsyncIterableIterator<string[], undefined>;
  /**
   * Reads the next line. While no byte of it has come, the input may end: at a shutdown with `drain: "finish"`, at
   * `maxAge` and at `maxLines`, unless `boundary` is `false`.
   *
   * @param options A time limit or a signal of this read's own, and whether a message begins with the line.
   * @returns The line, without its end; `null` when there are no more, for whatever reason: {@linkcode Conn.ending} has
   * it.
   * @throws {Deno.errors.TimedOut} If `timeout` has passed. (All errors are rejections.)
   * @throws {TypeError} If another read has not settled, or an option is wrong.
   */
  readLine(options?: ReadLineOptions): Promise<string | null>;
  /**
   * Reads a given number of bytes.
   *
   * @param count The number of bytes, a whole number from 0.
   * @param options A time limit or a signal of this read's own, the largest number allowed, and whether a message begins
   * with it.
   * @returns The bytes, in memory of their own.
   * @throws {Deno.errors.UnexpectedEof} If the input ends before that, for whatever reason. If the peer has ended it,
   * what had come stays readable. (All errors are rejections.)
   * @throws {LimitError} If `count` is above `maxBytes`; nothing is read then.
   * @throws {Deno.errors.TimedOut} If `timeout` has passed.
   * @throws {TypeError | RangeError} If another read has not settled, or an argument is wrong.
   */
  readExactly(count: number, options?: ReadBytesOptions): Promise<Uint8Array<ArrayBuffer>>;
  /**
   * Reads up to a delimiter, and drops the delimiter.
   *
   * @param delimiter The delimiter, or up to 16 of them: then up to the one that ends first, and of two that end with the
   * same byte, the longer one.
   * @param options A time limit or a signal of this read's own, the maximum number of bytes before the delimiter, whether
   * a message begins with it, and whether the delimiter is kept.
   * @returns The bytes before the delimiter, in memory of their own; `null` if the input has ended and nothing was
   * left, also within a message (`boundary: false`), which is then cut off.
   * @throws {Deno.errors.UnexpectedEof} If the input ends before the delimiter. If the peer has ended it, what had
   * come stays readable. (All errors are rejections.)
   * @throws {LimitError} If more than `maxBytes` bytes come before the delimiter; nothing is taken then.
   * @throws {Deno.errors.TimedOut} If `timeout` has passed.
   * @throws {TypeError | RangeError} If another read has not settled, or an argument is wrong.
   */
  readUntil(
    delimiter: Delimiter | readonly Delimiter[],
    options?: ReadUntilOptions,
  ): Promise<Uint8Array<ArrayBuffer> | null>;
  /**
   * Reads a given number of bytes as a stream, one block in memory at a time. Other reads are refused until the stream
   * has ended or was cancelled. What a cancelled stream has not handed out is discarded before the next read. If the
   * input ends early, the stream fails with `Deno.errors.UnexpectedEof`.
   *
   * @param count The number of bytes, a whole number from 0.
   * @returns The stream.
   * @throws {TypeError | RangeError} If another read has not settled, or `count` is wrong.
   */
  readStream(count: number): ReadableStream<Uint8Array<ArrayBuffer>>;
  /**
   * How the line ended that was read last: `lf`, `crlf`, or `delimiter` for a delimiter of your own; `none` if the end
   * of input cut it off, also if `framing.unterminated` made the server drop it. Undefined before the first line.
   */
  readonly lastLineEnd: LineEnd | undefined;
  /**
   * The bytes that the peer sends: one stream, the same object each time. It reads only when it is pulled. It ends when
   * the input or the connection ends, for whatever reason. Unlike the stream of a `Deno.Conn`, it does not close the
   * connection, neither at the end of input nor when it is cancelled. After a cancel, or when its reader was released,
   * bytes that it has not handed out stay for the next read; but a read into a buffer of the caller's own (`byob`) goes
   * on after a release, until the stream is cancelled. Reading the stream while another read waits fails with a
   * `TypeError` and makes the stream unusable; the connection's other reads still work.
   *
   * A drain, `maxAge`, `maxLines` or a reset can end it in the middle of a message. Code that cuts it into messages has to
   * look at `ending` at its end: only with `end` is the rest all that the peer has sent. `lineStream` does so.
   */
  readonly readable: ReadableStream<Uint8Array<ArrayBuffer>>;
  /**
   * A stream for text and bytes, which are written as by {@linkcode Conn.write}. Closing it ends this side once
   * everything has been written; the peer can go on sending. Aborting it aborts the connection at once, with reason
   * `closed` and a reset where the transport can send one, unless the connection is ending already.
   */
  readonly writable: WritableStream<Uint8Array | string>;
  /**
   * Writes text, in the encoding of `framing`, or bytes as they are; no line end is added. Data is sent in the order of
   * the calls, before the replies to later lines. A handler that awaits each write keeps little memory for a slow peer.
   *
   * @param data The text or bytes; bytes are copied. Text must not end within a surrogate pair.
   * @returns A promise that settles when there is room for more: at once while less than 64 KiB wait to be written (or
   * `maxQueuedBytes`, if that is less), otherwise when the kernel has taken enough of them.
   * @throws {ConnectionClosedError} If the connection has ended, or this side has. (A rejection; a caller may ignore
   * it.)
   * @throws {TypeError} If the data is neither text nor bytes, or has a character that the encoding does not have. (A
   * rejection; a caller may ignore it.)
   */
  write(data: string | Uint8Array): Promise<void>;
  /**
   * Waits until the kernel has taken everything that was written so far. That does not mean that the peer has received
   * it, which TCP cannot tell.
   *
   * @throws {ConnectionClosedError} If the connection has ended, or this side has. (A rejection; a caller may ignore
   * it.)
   */
  flushed(): Promise<void>;
  /**
   * Ends this side once everything has been written; the peer reads the end of input, and can go on sending. Later
   * writes are refused.
   *
   * @returns A promise that settles when this side has ended. It never rejects.
   */
  closeWrite(): Promise<void>;
  /**
   * Closes the connection gracefully: what has been written is sent, then the connection ends, with reason `closed`. If
   * a line handler is working on a line, its reply is sent first.
   *
   * @param options A last line for the peer, and a word of the handler's own for the end.
   * @throws {TypeError} If an option is wrong, or `lastWord` has a character that the connection's encoding lacks.
   */
  close(options?: CloseOptions): void;
  /**
   * Changes limits of this connection. They hold from the next read, and for one that waits already, and for bytes that
   * have come, too; a clock whose limit is changed starts anew. A limit that has its default from `idleTimeout` keeps its
   * value when that is changed. If the connection of a line handler waits for its peer meanwhile, limits on the size of
   * what has come are looked at when more comes.
   *
   * @param limits The limits that change.
   * @throws {RangeError | TypeError} If a limit is wrong; nothing is changed then.
   */
  setLimits(limits: ConnOptions): void;
  /**
   * Changes the framing of this connection. It holds from the next read, and for one that waits already, and for bytes
   * that have come, too; in a line handler from the next line, or, if the connection waits for its peer meanwhile, when
   * more comes.
   *
   * @param framing What changes.
   * @throws {RangeError | TypeError} If a value is wrong; nothing is changed then.
   */
  setFraming(framing: Partial<Framing>): void;
  /**
   * Sets the time by which the handler must be done, or have set another: for a step that spans several reads, such as
   * a login. When the time is up, the connection is closed, with reason `deadline`.
   *
   * @param milliseconds The time from now, more than 0; `Infinity` takes the deadline back.
   * @param detail A word for what was late, for the event, the log and the counters.
   * @throws {RangeError | TypeError} If the time is wrong.
   */
  setDeadline(milliseconds: number, detail?: string): void;
  /** Returns what the connection has done so far, and what it waits for. */
  stats(): ConnStats;
  /**
   * Begins TLS on a connection that has begun in plain text, as SMTP's `STARTTLS` does. First sends what has been
   * written; what is written meanwhile is sent encrypted. `conn`, its limits, and a loop over `lines` go on.
   *
   * If plain text has come behind the client's command, the connection ends with reason `starttls-injection`: an
   * attacker may have inserted that text. A handshake that fails, as it does if plain text comes later, or that takes
   * longer than `handshakeTimeout` of the credentials, ends it with reason `tls-handshake`.
   *
   * Begin TLS in a loop over `lines`, or in a line handler, which gets the next line when TLS has begun. What a handler
   * has got before it calls this, the server cannot check: lines behind the command in an array of `batches`, and what a
   * pipeline behind `readable` has read ahead, have come in plain text, and the handler must drop them.
   *
   * @param credentials The certificate and the key, from `tlsCredentials` of `@x/shouty/ops`.
   * @returns What the handshake has agreed on; the same as {@linkcode Conn.tls} from then on.
   * @throws {ConnectionClosedError} If the handshake fails, or the connection ends meanwhile; `cause` is the error of
   * the handshake. Also if this side has ended: then the connection goes on. (All errors are rejections.)
   * @throws {TypeError} If the connection is encrypted already or begins to be, if another read has not settled or the
   * rest of a cancelled body has not come, if a line handler answers no line or answers a `block`, if this side is the
   * client, or if the credentials are none.
   *
   * @example Beginning TLS at a client's command (not run here: it needs a certificate)
   * ```ts ignore
   * import { serveConnections } from "@x/shouty";
   * import { tlsCredentials } from "@x/shouty/ops";
   *
   * const credentials = await tlsCredentials({ cert: await Deno.readTextFile("cert-and-key.pem") });
   * serveConnections({ port: 2525 }, async (conn) => {
   *   for await (const line of conn.lines) {
   *     if (line !== "STARTTLS") {
   *       await conn.write(conn.tls === undefined ? "530 STARTTLS first\r\n" : "250 Ok\r\n");
   *       continue;
   *     }
   *     await conn.write("220 Go ahead\r\n");
   *     await conn.startTls(credentials);
   *   }
   * });
   * ```
   */
  startTls(credentials: TlsCredentialsHandle): Promise<TlsInfo>;
  /** Closes the connection as {@linkcode Conn.close} does, and waits until it is closed. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** The reply of a line handler: a line without its end, or `undefined` for no reply. */
export type Reply = string | undefined | void;

/** A line handler answers one line. It is the faster of the two kinds of handlers. */
export interface LineHandler<Data = undefined> {
  /**
   * Answers one line. While its promise is pending, the connection's later lines wait; other connections do not.
   *
   * @param line The line, without its end.
   * @param conn The connection.
   * @returns The reply, to which the server adds the line end.
   */
  (line: string, conn: Conn<Data>): Reply | Promise<Reply>;
  /**
   * Answers many lines at once. If this method exists, the server calls it in place of the handler while lines end with LF
   * or CR LF, no other part of `framing` asks for each line on its own, and `maxLinesPerSecond` is not set; its replies
   * must be the same as the handler's. If it throws, none of these lines is answered.
   *
   * @param lines One or more whole lines, each ended by one LF.
   * @param conn The connection.
   * @returns All their replies in order, each ended by one LF.
   */
  block?(lines: string, conn: Conn<Data>): string | Promise<string>;
}

/** The name of the method by which a {@linkcode BytesHandler} answers bytes. It is not exported to users. */
export const ANSWER_BYTES: unique symbol = Symbol("answer bytes");

/**
 * A line handler that can answer whole lines as bytes, if they are short or no more than 4 KiB, for handlers that come
 * with the server: for a short line, decoding and encoding takes longer than the rest of its answer.
 */
export interface BytesHandler<Data = undefined> extends LineHandler<Data> {
  /**
   * Answers the bytes of whole lines, each ended by LF or CRLF; the other bytes can be any. The server calls it before
   * `block` and the handler, and its replies must be the same as theirs. It is not called if `maxLinesPerSecond` is
   * set, or while the server is short of memory. If it throws, none of the lines is answered.
   *
   * @param lines The lines, which it may overwrite, except for the last LF; the buffer behind them is the server's.
   * @returns The replies in order, each ended by LF: the same array, or another one, which is copied. `undefined` makes
   * the server answer what `lines` holds now as text.
   */
  [ANSWER_BYTES]?(lines: Uint8Array): Uint8Array | undefined;
}

/** A conversation handler talks with one peer. When it returns, the server closes the connection gracefully. */
export type ConnHandler<Data = undefined> = (conn: Conn<Data>) => void | Promise<void>;
