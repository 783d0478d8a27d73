/**
 * A connection to a server that may close it while this side still writes.
 *
 * @module
 */

import type { Clock } from "../api/serve_options.ts";
import { Forwarding, type Transport } from "../api/transport.ts";

/** Maximum time for which a failed write waits to be reported while the input is not read, in milliseconds. */
const UNREAD_MS = 1000;

/**
 * Reports that a write has failed only when the input has been read to its end, or was not read for a while. A server that
 * closes a connection at which this side still writes has mostly said why before, and its system then sends a reset. The
 * write fails at once, while the server's last words wait in this side's system. They can still be read after that.
 */
export class ServerTransport extends Forwarding {
  readonly #clock: Clock;
  #reading = false;
  /** The error of the write that has failed. */
  #failure: { readonly error: unknown } | undefined;
  /** Resolves when a failed write may be reported: the input has ended or is not read, or the connection is closed. */
  readonly #reportable = Promise.withResolvers<void>();
  /** Resolves when the input has ended, or the connection is closed. */
  readonly #over = Promise.withResolvers<void>();
  #ended = false;
  #stopTimer = () => {};
  /** Called with the error of a write when it may be reported. While it is set, that write rejects at the end alone. */
  onWriteFailed: ((error: unknown) => void) | undefined;

  /**
   * @param inner The connection.
   * @param clock Measures how long the input is not read.
   */
  constructor(inner: Transport, clock: Clock) {
    super(inner);
    this.#clock = clock;
  }

  override async read(into: Uint8Array): Promise<number | null> {
    this.#stopTimer();
    this.#reading = true;
    try {
      const count = await this.inner.read(into);
      if (count !== null) return count;
      // In place of the end of input: not all that was written has been sent. What was read before may still wait for the
      // caller, so a failed write waits on.
      if (this.#failure !== undefined) throw this.#failure.error;
      this.#release();
      return null;
    } finally {
      this.#reading = false;
      this.#startTimer();
    }
  }

  override async write(bytes: Uint8Array): Promise<number> {
    try {
      return await this.inner.write(bytes);
    } catch (error) {
      this.#failure = { error };
      this.#startTimer();
      await this.#reportable.promise;
      this.onWriteFailed?.(error);
      if (this.onWriteFailed !== undefined) await this.#over.promise;
      throw error;
    }
  }

  protected override ending(): void {
    this.#release();
  }

  /** Lets a failed write be reported at the end of the time, unless the input is read meanwhile. */
  #startTimer(): void {
    if (this.#failure === undefined || this.#reading || this.#ended) return;
    this.#stopTimer();
    this.#stopTimer = this.#clock.setTimer(() => this.#reportable.resolve(), UNREAD_MS, true);
  }

  #release(): void {
    this.#ended = true;
    this.#stopTimer();
    this.#reportable.resolve();
    this.#over.resolve();
  }
}

/**
 * TLS over such a connection. It reports a failed write when the connection beneath it would: TLS itself must not know of
 * it before the input has ended, since it decrypts nothing more after a failure.
 */
export class SecuredTransport extends Forwarding {
  /** Rejects the outstanding call. */
  #reject: (error: unknown) => void = () => {};
  #failure: { readonly error: unknown } | undefined;

  /**
   * @param inner TLS over `server`.
   * @param server The connection to the server.
   */
  constructor(inner: Transport, server: ServerTransport) {
    super(inner);
    server.onWriteFailed = (error) => {
      this.#failure = { error };
      this.#reject(error);
    };
  }

  override write(bytes: Uint8Array): Promise<number> {
    return this.#unlessFailed(() => this.inner.write(bytes));
  }

  override closeWrite(): Promise<void> {
    return this.#unlessFailed(() => this.inner.closeWrite());
  }

  /** Calls a function whose promise may settle late if the connection beneath has failed. */
  async #unlessFailed<T>(call: () => Promise<T>): Promise<T> {
    if (this.#failure !== undefined) throw this.#failure.error;
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    this.#reject = reject;
    call().then(resolve, reject);
    return await promise;
  }
}
