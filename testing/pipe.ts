/**
 * The two ends of a connection in memory.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import type { ProxyInfo, TlsInfo, Transport } from "../internal/api/transport.ts";
import { rounds } from "../internal/time/event_loop.ts";
import { LINE_WORK, TURN_BYTES } from "../internal/time/turns.ts";

/** What a server's end knows of the client besides its address. */
export interface PeerInfo {
  tls?: TlsInfo | undefined;
  proxy?: ProxyInfo | undefined;
}

/** Number of rounds of the event loop in which a connection in memory was read. */
let roundNumber = 0;
let isRoundCounted = false;

/** The current round, as a number that differs from those of earlier rounds. */
function currentRound(): number {
  if (!isRoundCounted) {
    isRoundCounted = true;
    roundNumber++;
    setImmediate(() => isRoundCounted = false);
  }
  return roundNumber;
}

/** Counts the calls that have changed a connection in memory, all connections together; see `FakeClock`. */
export const PIPE_CHANGES: { count: number } = { count: 0 };

/** One direction of a connection: bytes that were sent and not read yet, `capacity` at most. */
class Pipe {
  readonly #capacity: number;
  #chunks: Uint8Array[] = [];
  #held = 0;
  /** Number of bytes read, now and when a write last began to wait or {@linkcode progress} was last called. */
  #read = 0;
  #readBefore = 0;
  /** The last round of the event loop in which there was a read, and the work of the reads in it, in bytes. */
  #round = 0;
  #roundWork = 0;
  #ended = false;
  #error: Error | undefined;
  #change = Promise.withResolvers<void>();

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  /** Whether there are unread bytes. */
  get unread(): boolean {
    return this.#held > 0;
  }

  async read(into: Uint8Array): Promise<number | null> {
    // Otherwise two sides that write and read for ever would keep timers, and everything else, from running: in memory,
    // neither waits for the kernel.
    if (this.#workInRound() > TURN_BYTES) await rounds();
    while (this.#held === 0 && !this.#ended && this.#error === undefined) await this.#change.promise;
    if (this.#error !== undefined) throw this.#error;
    let count = 0;
    while (count < into.length && this.#chunks.length > 0) {
      const chunk = this.#chunks[0];
      const part = chunk.subarray(0, into.length - count);
      into.set(part, count);
      count += part.length;
      if (part.length === chunk.length) this.#chunks.shift();
      else this.#chunks[0] = chunk.subarray(part.length);
    }
    this.#held -= count;
    this.#read += count;
    this.#roundWork += count;
    this.#changed();
    return count === 0 && into.length > 0 ? null : count;
  }

  /** Counts a read; returns the work of the reads in this round of the event loop. */
  #workInRound(): number {
    const now = currentRound();
    if (this.#round !== now) this.#roundWork = 0;
    this.#round = now;
    return this.#roundWork += LINE_WORK;
  }

  /** Number of bytes read since a write began to wait, or since the last call. */
  progress(): number {
    const count = this.#read - this.#readBefore;
    this.#readBefore = this.#read;
    return count;
  }

  async write(bytes: Uint8Array): Promise<number> {
    this.#readBefore = this.#read;
    while (this.#held === this.#capacity && !this.#ended && this.#error === undefined) await this.#change.promise;
    if (this.#error !== undefined || this.#ended) throw this.#error ?? new Error("Cannot write: the pipe has ended");
    // What `slice` returns of a `Buffer` is no copy.
    const chunk = new Uint8Array(bytes.subarray(0, this.#capacity - this.#held));
    if (chunk.length > 0) this.#chunks.push(chunk);
    this.#held += chunk.length;
    this.#changed();
    return chunk.length;
  }

  /** Ends the input: the unread bytes can be read, and then comes the end. */
  end(): void {
    this.#ended = true;
    this.#changed();
  }

  /** Drops the unread bytes, and rejects reads and writes with the error. */
  fail(error: Error): void {
    this.#error ??= error;
    this.#chunks = [];
    this.#held = 0;
    this.#changed();
  }

  #changed(): void {
    PIPE_CHANGES.count++;
    this.#change.resolve();
    this.#change = Promise.withResolvers();
  }
}

/**
 * One end of a connection. It is as strict as a `Deno.Conn`: one read at a time, and no call after `close`. Where TCP
 * leaves a choice, it takes the worse: a reset always destroys what the other end has not read yet.
 */
export class End implements Transport {
  readonly localAddr: Deno.Addr;
  readonly remoteAddr: Deno.Addr;
  readonly tls: TlsInfo | undefined;
  readonly proxy: ProxyInfo | undefined;
  readonly #in: Pipe;
  readonly #out: Pipe;
  #reading = false;
  #ended = false;
  #closed = false;

  /** Creates both ends of a connection, whose directions hold `capacity` bytes each. */
  static pair(capacity: number, addr: Deno.Addr, peerAddr: Deno.Addr, info: PeerInfo = {}): [End, End] {
    const [there, back] = [new Pipe(capacity), new Pipe(capacity)];
    return [new End(there, back, [addr, peerAddr], info), new End(back, there, [peerAddr, addr], {})];
  }

  private constructor(input: Pipe, output: Pipe, addrs: readonly [Deno.Addr, Deno.Addr], info: PeerInfo) {
    this.#in = input;
    this.#out = output;
    [this.localAddr, this.remoteAddr] = addrs;
    [this.tls, this.proxy] = [info.tls, info.proxy];
  }

  async read(into: Uint8Array): Promise<number | null> {
    this.#check();
    if (this.#reading) throw new Deno.errors.Busy("Cannot read: another read is outstanding");
    this.#reading = true;
    try {
      return await this.#in.read(into);
    } catch (error) {
      throw this.#closed ? new Deno.errors.Interrupted("The connection was closed during a read") : error;
    } finally {
      this.#reading = false;
    }
  }

  async write(bytes: Uint8Array): Promise<number> {
    this.#check();
    if (this.#ended) throw new Deno.errors.BrokenPipe("Cannot write: this side has ended");
    try {
      return await this.#out.write(bytes);
    } catch (error) {
      if (this.#closed) throw new Deno.errors.Interrupted("The connection was closed during a write");
      if (this.#ended) throw new Deno.errors.BrokenPipe("Cannot write: this side has ended");
      // The other end is closed, and answers bytes with a reset.
      this.#in.fail(new Deno.errors.ConnectionReset("The other end has reset the connection"));
      throw error;
    }
  }

  progress(): number {
    return this.#out.progress();
  }

  // deno-lint-ignore require-await -- what it throws is a rejection
  async closeWrite(): Promise<void> {
    this.#check();
    this.#ended = true;
    this.#out.end();
  }

  /** Closes both directions. With unread input it resets the connection, as a kernel does. */
  close(): void {
    this.#check();
    if (this.#in.unread) return this.reset();
    this.#closed = true;
    this.#out.end();
    this.#in.fail(new Deno.errors.BrokenPipe("The other end has closed the connection"));
  }

  reset(): void {
    this.#check();
    this.#closed = true;
    const error = new Deno.errors.ConnectionReset("The other end has reset the connection");
    this.#out.fail(error);
    this.#in.fail(error);
  }

  #check(): void {
    if (this.#closed) throw new Deno.errors.BadResource("The connection is closed");
  }
}
