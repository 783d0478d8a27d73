/**
 * One connection under TLS, over an engine.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import { checkTransferred } from "../../../internal/api/check.ts";
import {
  closeQuietly,
  Forwarding,
  resetQuietly,
  type TlsInfo,
  type Transport,
} from "../../../internal/api/transport.ts";
import { TURNS } from "../../../internal/time/turns.ts";
import type { Session } from "./session.ts";

/**
 * A connection's decrypted bytes. It owns the transport that carries the encrypted ones, called the inner transport here.
 *
 * It reads from the inner transport only during a `read` that finds no decrypted bytes, so that it never holds more than
 * the bytes of one inner read and an unfinished record.
 */
export class EngineTransport extends Forwarding {
  readonly #session: Session;
  /** The value of `Output.sent` when the last write began, or at the last call of `progress`. */
  #sentBefore = 0;
  #closed = false;

  /**
   * @param inner The inner transport.
   * @param session The session, whose handshake is done.
   */
  constructor(inner: Transport, session: Session) {
    super(inner);
    this.#session = session;
  }

  /** What the handshake has agreed on. */
  override get tls(): TlsInfo {
    return this.#session.tls!;
  }

  /** Output that waits for the peer, decrypted input that waits for a read, and by how much the read buffer has grown. */
  override get heldBytes(): number {
    const { output, unread, buffer } = this.#session;
    return output.waitingBytes + unread.length + buffer.grownBytes + super.heldBytes;
  }

  override get whole(): Promise<unknown> | undefined {
    return this.#session.whole ?? super.whole;
  }

  override read(into: Uint8Array): Promise<number | null> {
    const { unread, hasPeerEnded, failure } = this.#session;
    if (unread.length > 0) return Promise.resolve(unread.take(into));
    if (hasPeerEnded) return Promise.resolve(null);
    if (failure !== undefined) return Promise.reject(failure);
    return this.#readInner(into).then((count) => this.#received(into, count), (error) => this.#failed(error));
  }

  override write(bytes: Uint8Array): Promise<number> {
    const { output, failure } = this.#session;
    if (failure !== undefined) return Promise.reject(failure);
    if (output.flushing !== undefined) return output.flushing.then(() => this.write(bytes));
    this.#sentBefore = output.sent;
    const count = this.#session.encrypt(bytes);
    return output.flush()?.then(() => this.#written(count)) ?? Promise.resolve(count);
  }

  override async closeWrite(): Promise<void> {
    const { output } = this.#session;
    await output.flushing;
    this.#session.check();
    this.#session.end();
    await output.flush();
    this.#session.check();
    await this.inner.closeWrite();
  }

  /** Sends close_notify if that needs no waiting: without it, the peer has to take the end for an attack. */
  override close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const { failure, output } = this.#session;
    const tell = failure === undefined && output.flushing === undefined;
    if (tell) {
      // After `closeWrite`, there is no second one to send.
      this.#session.end();
      output.flush();
    }
    this.#session.failed(new Deno.errors.Interrupted("The connection was closed"));
    this.#session.free();
    // The write of close_notify begins in a later turn.
    if (tell) setImmediate(() => closeQuietly(this.inner));
    else closeQuietly(this.inner);
  }

  /** Always there: an inner transport that cannot be reset is closed, without close_notify. */
  override get reset(): () => void {
    return this.#reset;
  }

  /** Counts encrypted bytes: those that the inner transport has taken, and those that it reports as taken by the peer. */
  override get progress(): (() => number) | undefined {
    return this.inner.progress && this.#progress;
  }

  /** Resets without close_notify, so that the peer cannot take an answer that was cut off for a whole one. */
  #reset(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#session.failed(new Deno.errors.Interrupted("The connection was reset"));
    this.#session.free();
    resetQuietly(this.inner);
  }

  #progress(): number {
    const { sent } = this.#session.output;
    const left = sent - this.#sentBefore;
    this.#sentBefore = sent;
    return left + this.inner.progress!();
  }

  /** Reads encrypted bytes. A connection that always has some takes turns with others. */
  #readInner(into: Uint8Array): Promise<number | null> {
    const { buffer } = this.#session;
    const turn = buffer.work > 0 ? TURNS.take(buffer.work) : undefined;
    if (turn === undefined) return this.inner.read(buffer.part(into.length));
    return turn.then(() => {
      this.#session.check();
      return this.inner.read(buffer.part(into.length));
    });
  }

  #received(into: Uint8Array, count: number | null): number | null | Promise<number | null> {
    const decrypted = this.#decrypt(count, into);
    return decrypted === 0 ? this.#readOn(into) : decrypted;
  }

  /** Reads until bytes are decrypted; for records that come in parts, or are empty. */
  async #readOn(into: Uint8Array): Promise<number | null> {
    for (;;) {
      const count = await this.#readInner(into).catch((error) => this.#failed(error));
      const decrypted = this.#decrypt(count, into);
      if (decrypted !== 0) return decrypted;
    }
  }

  /** Decrypts what has been read; returns the number of decrypted bytes, or `null` at the end of input. */
  #decrypt(count: number | null, into: Uint8Array): number | null {
    const session = this.#session;
    if (this.#closed) throw session.failure;
    if (count === null) throw this.#cutOff();
    checkTransferred("read", count, session.buffer.bytes.length);
    session.unread.open(into);
    session.feed(count);
    session.buffer.rest();
    const decrypted = session.unread.shut(into);
    if (decrypted > 0) return decrypted;
    if (session.hasPeerEnded) return null;
    session.check();
    return 0;
  }

  /** Input may end only after close_notify: otherwise an attacker on the network could cut a line short. */
  #cutOff(): unknown {
    this.#session.failed(new Deno.errors.UnexpectedEof("The peer ended the connection without TLS's close_notify"));
    return this.#session.failure;
  }

  #failed(error: unknown): never {
    this.#session.failed(error);
    throw this.#session.failure;
  }

  #written(count: number): number {
    this.#session.check();
    return count;
  }
}
