/**
 * The object that a handler gets as its connection.
 *
 * @module
 */

import type { ConnectionClocks } from "../time/conn_clocks.ts";
import { ConnectionClosedError, harmless } from "../api/errors.ts";
import type { Conn } from "../api/handlers.ts";
import { Lines } from "./lines.ts";
import type { Outbox } from "./outbox.ts";
import type { Reader } from "./reader.ts";
import type { CloseReason } from "../api/reasons.ts";
import { readableOf } from "./streams.ts";

/** The connection behind a handle. */
interface Core {
  readonly id: number;
  readonly remoteAddr: Deno.Addr;
  readonly localAddr: Deno.Addr;
  readonly signal: AbortSignal;
  /** Why the connection is ending or has ended; undefined before that. */
  readonly reason: CloseReason | undefined;
  close(): void;
  /** The handler has aborted `conn.writable`. */
  writingAborted(error: unknown): void;
}

/** The handler's view of a connection. It calls the reader and the outbox directly. */
export class Handle implements Conn {
  readonly #core: Core;
  readonly #outbox: Outbox;
  readonly #clocks: ConnectionClocks;
  readonly #reader: Reader | undefined;
  readonly #lines: Lines | undefined;
  #readable: ReadableStream<Uint8Array<ArrayBuffer>> | undefined;
  #writable: WritableStream<Uint8Array | string> | undefined;

  /**
   * @param core The connection.
   * @param outbox Where writes go.
   * @param clocks Told that the handler has written.
   * @param reader Where the lines come from; absent for a line handler, which gets each line as its argument.
   */
  constructor(core: Core, outbox: Outbox, clocks: ConnectionClocks, reader?: Reader) {
    this.#core = core;
    this.#outbox = outbox;
    this.#clocks = clocks;
    this.#reader = reader;
    if (reader !== undefined) this.#lines = new Lines(reader, outbox, clocks);
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

  get signal(): AbortSignal {
    return this.#core.signal;
  }

  get lines(): Lines {
    if (this.#lines !== undefined) return this.#lines;
    throw new TypeError("Cannot use conn.lines in a line handler: it gets each line as its argument");
  }

  get readable(): ReadableStream<Uint8Array<ArrayBuffer>> {
    const [reader, lines] = [this.#reader, this.#lines];
    if (reader === undefined || lines === undefined) {
      throw new TypeError("Cannot use conn.readable in a line handler: it gets each line as its argument");
    }
    return this.#readable ??= readableOf(reader, this.#outbox, this.#clocks, () => lines.giveBack());
  }

  get writable(): WritableStream<Uint8Array | string> {
    return this.#writable ??= new WritableStream({
      write: (data) => this.write(data),
      // After a breach the server still writes its error line, and then ends this side itself.
      close: () =>
        [undefined, "end"].includes(this.#reader?.endReason) ? this.#outbox.closeWrite() : this.#outbox.flush(),
      abort: (error) => this.#core.writingAborted(error),
    });
  }

  write(data: string | Uint8Array): Promise<void> {
    if (typeof data !== "string" && !(data instanceof Uint8Array)) {
      const got = data === null ? "null" : typeof data;
      return harmless(Promise.reject(new TypeError(`Cannot write: expected a string or a Uint8Array, got ${got}`)));
    }
    const { reason } = this.#core;
    if (reason !== undefined) return harmless(Promise.reject(new ConnectionClosedError(reason)));
    this.#clocks.handlerWrote();
    return this.#outbox.write(data);
  }

  close(): void {
    this.#core.close();
  }
}
