/**
 * The object that a handler gets as its connection.
 *
 * @module
 */

import { checkCloseOptions, checkString, checkTimeout } from "../api/check.ts";
import type { ConnOptions } from "../api/conn_options.ts";
import { ConnectionClosedError, harmless, showAs } from "../api/errors.ts";
import type { ClosedEvent, ConnInfo } from "../api/events.ts";
import { type Framing, type LineEnd, resolveFraming } from "../api/framing.ts";
import type {
  CloseOptions,
  Conn,
  ConnStats,
  Delimiter,
  ReadBytesOptions,
  ReadLineOptions,
  ReadUntilOptions,
} from "../api/handlers.ts";
import type { CloseReason } from "../api/reasons.ts";
import type { ProxyInfo, TlsCredentialsHandle, TlsInfo, Transport } from "../api/transport.ts";
import type { LineCutter } from "../lines/line_cutter.ts";
import { checkData, encode, encodeLine } from "../lines/text.ts";
import type { ConnectionClocks } from "../time/conn_clocks.ts";
import type { Input } from "../reads/input.ts";
import type { Outbox } from "../io/outbox.ts";
import type { Reader } from "../io/reader.ts";
import { readExactly, readUntil } from "../reads/byte_reads.ts";
import { readLine } from "../reads/line_reads.ts";
import { Batches, bodyOf, Lines, readableOf } from "../reads/streams.ts";

type Bytes = Uint8Array<ArrayBuffer>;

/** The connection behind a handle. */
export interface Core extends ConnInfo {
  readonly signal: AbortSignal;
  readonly finishing: AbortSignal;
  readonly closed: Promise<ClosedEvent>;
  /** Why the input ended; undefined while there may be more. */
  readonly ending: CloseReason | undefined;
  /** Why nothing can be written any more; undefined while writes are taken. */
  readonly writingEnded: CloseReason | undefined;
  close(options?: CloseOptions): void;
  setLimits(limits: ConnOptions): void;
  setDeadline(milliseconds: number, detail?: string): void;
  stats(): ConnStats;
  /** The handler has aborted `conn.writable`. */
  writingAborted(error: unknown): void;
}

/** The parts of a connection that its handle uses. */
export interface HandleParts {
  readonly transport: Transport;
  /** Rejects what the handler may not do. */
  readonly reader: Pick<Reader, "refuse">;
  /** Where writes go. */
  readonly outbox: Outbox;
  /** Told that the handler has written. */
  readonly clocks: ConnectionClocks;
  /** Knows the framing, and how the last line ended. */
  readonly cutter: LineCutter;
  /** Where reads come from; absent for a line handler, which gets each line as its argument. */
  readonly input: Input | undefined;
  startTls(credentials: TlsCredentialsHandle): Promise<TlsInfo>;
  /** This side has ended. */
  sideEnded(): void;
}

/** The handler's view of a connection. It calls the input and the outbox directly. */
export class Handle<Data> implements Conn<Data> {
  readonly #core: Core;
  readonly #parts: HandleParts;
  readonly #outbox: Outbox;
  readonly #clocks: ConnectionClocks;
  readonly #cutter: LineCutter;
  readonly #input: Input | undefined;
  #lines: Lines | undefined;
  #batches: Batches | undefined;
  #readable: ReadableStream<Bytes> | undefined;
  #writable: WritableStream<Uint8Array | string> | undefined;
  data!: Data;

  /**
   * @param core The connection.
   * @param parts Its parts.
   */
  constructor(core: Core, parts: HandleParts) {
    this.#core = core;
    this.#parts = parts;
    this.#outbox = parts.outbox;
    this.#clocks = parts.clocks;
    this.#cutter = parts.cutter;
    this.#input = parts.input;
  }

  get id(): number {
    return this.#core.id;
  }

  get remoteAddr(): Deno.Addr {
    return this.#core.remoteAddr;
  }

  get localAddr(): Deno.Addr {
    return this.#core.localAddr;
  }

  get tls(): TlsInfo | undefined {
    return this.#parts.transport.tls;
  }

  get proxy(): ProxyInfo | undefined {
    return this.#parts.transport.proxy;
  }

  get signal(): AbortSignal {
    return this.#core.signal;
  }

  get finishing(): AbortSignal {
    return this.#core.finishing;
  }

  get closed(): Promise<ClosedEvent> {
    return this.#core.closed;
  }

  get ending(): CloseReason | undefined {
    return this.#core.ending;
  }

  get lastLineEnd(): LineEnd | undefined {
    return this.#cutter.lastLineEnd;
  }

  get lines(): Lines {
    return this.#lines ??= new Lines(this.#reads("lines"));
  }

  get batches(): Batches {
    return this.#batches ??= new Batches(this.#reads("batches"));
  }

  get readable(): ReadableStream<Bytes> {
    return this.#readable ??= readableOf(this.#reads("readable"));
  }

  #reads(name: string): Input {
    if (this.#input !== undefined) return this.#input;
    throw notInLineHandler(name);
  }

  readLine(options?: ReadLineOptions): Promise<string | null> {
    return this.#input === undefined ? this.#refuse("readLine") : readLine(this.#input, options);
  }

  readExactly(count: number, options?: ReadBytesOptions): Promise<Bytes> {
    return this.#input === undefined ? this.#refuse("readExactly") : readExactly(this.#input, count, options);
  }

  readUntil(delimiter: Delimiter | readonly Delimiter[], options?: ReadUntilOptions): Promise<Bytes | null> {
    return this.#input === undefined ? this.#refuse("readUntil") : readUntil(this.#input, delimiter, options);
  }

  #refuse(name: string): Promise<never> {
    return this.#parts.reader.refuse(notInLineHandler(name));
  }

  readStream(count: number): ReadableStream<Bytes> {
    return bodyOf(this.#reads("readStream"), count);
  }

  get writable(): WritableStream<Uint8Array | string> {
    return this.#writable ??= new WritableStream({
      // The stream's own `abort` would be called only when a write that waits for the peer has settled.
      start: ({ signal }) => signal.addEventListener("abort", () => this.#core.writingAborted(signal.reason)),
      write: (data) => this.write(data),
      // While the connection ends, the server still writes its last line, and then ends this side itself.
      close: () => [undefined, "end"].includes(this.#core.ending) ? this.#endWriting() : this.#outbox.flush(),
    });
  }

  write(data: string | Uint8Array): Promise<void> {
    const reason = this.#core.writingEnded ?? this.#outbox.closed;
    if (reason !== undefined || this.#outbox.ending) {
      return this.#parts.reader.refuse(new ConnectionClosedError(reason));
    }
    try {
      const bytes = typeof data === "string" ? encode(data, this.#cutter.framing.encoding) : checkData(data);
      this.#clocks.handlerActed();
      if (this.#input?.takeAnswersLast()) this.#outbox.writeNextAtOnce();
      return this.#outbox.write(bytes);
    } catch (error) {
      return this.#parts.reader.refuse(error);
    }
  }

  flushed(): Promise<void> {
    return harmless(this.#outbox.flushed().catch((error) => this.#parts.reader.refuse(error)));
  }

  closeWrite(): Promise<void> {
    // If it fails, the connection has ended, and so has this side.
    return this.#endWriting().catch(() => {});
  }

  async #endWriting(): Promise<void> {
    try {
      await this.#outbox.closeWrite();
    } catch (error) {
      // An error of the transport says that the peer is gone, which is no fault of a handler that closes `conn.writable`.
      if (error instanceof ConnectionClosedError) throw error;
    } finally {
      this.#parts.sideEnded();
    }
  }

  close(options: CloseOptions = {}): void {
    checkCloseOptions(options);
    // Throws if the framing has no such characters.
    if (options.lastWord !== undefined) encodeLine(options.lastWord, this.#cutter.framing);
    this.#core.close(options);
  }

  setLimits(limits: ConnOptions): void {
    this.#core.setLimits(limits);
  }

  setFraming(framing: Partial<Framing>): void {
    this.#cutter.framing = resolveFraming(framing, this.#cutter.framing);
    this.#input?.reader.handlerWait.lookAgain();
  }

  setDeadline(milliseconds: number, detail?: string): void {
    checkTimeout("deadline", milliseconds);
    checkString("detail", detail);
    this.#core.setDeadline(milliseconds, detail);
  }

  stats(): ConnStats {
    return this.#core.stats();
  }

  startTls(credentials: TlsCredentialsHandle): Promise<TlsInfo> {
    return harmless(this.#parts.startTls(credentials).catch((error) => this.#parts.reader.refuse(error)));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
    // A line handler is a part of what its connection waits for.
    if (this.#input !== undefined) await this.closed;
  }
}

function notInLineHandler(name: string): TypeError {
  return new TypeError(`Cannot use conn.${name} in a line handler: it gets each line as its argument`);
}

showAs<Handle<unknown>>(Handle, "Conn", ["id", "remoteAddr", "localAddr", "ending", "data"]);
