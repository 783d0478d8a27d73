/**
 * One connection on `node:net`.
 *
 * @module
 */

import type { Socket } from "node:net";
import type { Transport } from "../../internal/api/transport.ts";
import { busyError, closedError, interruptedError, ofDeno } from "../sockets/socket_errors.ts";

/** Maximum bytes of one write. It settles when the kernel has taken all of them, so a larger one would hide progress. */
const WRITE_BYTES = 65_536;

const NOTHING = new Uint8Array(0);

/** A read that waits for input. */
interface Reading {
  readonly into: Uint8Array;
  readonly resolve: (count: number | null) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * A connection. Node gives its input in chunks. What a read does not take of a chunk is kept here, and the socket is
 * paused until it has been read: so the peer feels how fast the server reads. A paused socket notices no reset; the next
 * read or write reports it, as with Deno's own sockets.
 */
export class NodeSocket implements Transport {
  readonly remoteAddr: Deno.Addr;
  readonly localAddr: Deno.Addr;
  readonly #socket: Socket;
  /** Input that no read has taken yet. */
  #rest: Uint8Array = NOTHING;
  /** Whether the input has ended. */
  #ended = false;
  #closed = false;
  /** The error that ended the connection, until a read has thrown it. */
  #error: Error | undefined;
  #reading: Reading | undefined;
  #rejectWrite: ((error: unknown) => void) | undefined;

  /** @param socket The socket, which is paused, and stays open for output when its input ends. */
  constructor(socket: Socket, remoteAddr: Deno.Addr, localAddr: Deno.Addr) {
    this.#socket = socket;
    this.remoteAddr = remoteAddr;
    this.localAddr = localAddr;
    socket.on("data", (chunk: Uint8Array) => this.#receive(chunk));
    socket.on("end", () => this.#end());
    socket.on("error", (error) => this.#fail(ofDeno(error)));
  }

  read(into: Uint8Array): Promise<number | null> {
    if (this.#closed) return Promise.reject(closedError("connection"));
    if (this.#reading !== undefined) return Promise.reject(busyError("read"));
    if (this.#rest.length > 0) return Promise.resolve(this.#take(into));
    if (this.#error !== undefined) return Promise.reject(this.#takeError());
    if (this.#ended) return Promise.resolve(null);
    return new Promise((resolve, reject) => {
      this.#reading = { into, resolve, reject };
      this.#socket.resume();
    });
  }

  write(bytes: Uint8Array): Promise<number> {
    if (this.#closed) return Promise.reject(closedError("connection"));
    if (this.#rejectWrite !== undefined) return Promise.reject(busyError("write"));
    const part = bytes.subarray(0, WRITE_BYTES);
    return new Promise((resolve, reject) => {
      this.#rejectWrite = reject;
      this.#socket.write(part, (error) => {
        // If the connection was closed meanwhile, the promise has been rejected already.
        this.#rejectWrite = undefined;
        if (error) reject(ofDeno(error));
        else resolve(part.length);
      });
    });
  }

  closeWrite(): Promise<void> {
    if (this.#closed) return Promise.reject(closedError("connection"));
    // Node reports an end that fails because the peer has reset the connection as an error of the socket.
    return new Promise((resolve) => this.#socket.end(() => resolve()));
  }

  close(): void {
    this.#interrupt();
    // With unread input, closing sends RST. If FIN goes first, the peer can still read what was sent before it.
    if (this.#socket.writableLength === 0) this.#socket.destroySoon();
    else this.#socket.destroy();
  }

  reset(): void {
    this.#interrupt();
    resetSocket(this.#socket, this.remoteAddr);
  }

  setNoDelay(noDelay = true): void {
    this.#socket.setNoDelay(noDelay);
  }

  setKeepAlive(keepAlive = true): void {
    this.#socket.setKeepAlive(keepAlive);
  }

  ref(): void {
    this.#socket.ref();
  }

  unref(): void {
    this.#socket.unref();
  }

  #interrupt(): void {
    if (this.#closed) throw closedError("connection");
    this.#closed = true;
    this.#rest = NOTHING;
    const error = interruptedError();
    this.#reading?.reject(error);
    this.#rejectWrite?.(error);
    this.#reading = undefined;
  }

  #receive(chunk: Uint8Array): void {
    if (this.#closed) return;
    this.#rest = chunk;
    const reading = this.#reading;
    this.#reading = undefined;
    const count = reading === undefined ? 0 : this.#take(reading.into);
    if (this.#rest.length > 0) this.#socket.pause();
    reading?.resolve(count);
  }

  /** Moves input into a buffer; there is some. */
  #take(into: Uint8Array): number {
    const part = this.#rest.subarray(0, into.length);
    into.set(part);
    // An empty part would keep the whole chunk in memory.
    this.#rest = part.length < this.#rest.length ? this.#rest.subarray(part.length) : NOTHING;
    return part.length;
  }

  #end(): void {
    this.#ended = true;
    this.#reading?.resolve(null);
    this.#reading = undefined;
  }

  #fail(error: Error): void {
    if (this.#closed) return;
    this.#error = error;
    this.#ended = true;
    const reading = this.#reading;
    this.#reading = undefined;
    reading?.reject(this.#takeError());
  }

  #takeError(): Error | undefined {
    const error = this.#error;
    this.#error = undefined;
    return error;
  }
}

/**
 * Resets a connection, or closes it if it is on a Unix socket: Node would report an error there, which ends the process
 * if nothing listens to the socket's errors.
 *
 * @param socket The connection.
 * @param addr The address of either end.
 */
export function resetSocket(socket: Socket, { transport }: Deno.Addr): void {
  if (transport === "tcp") socket.resetAndDestroy();
  else socket.destroy();
}
