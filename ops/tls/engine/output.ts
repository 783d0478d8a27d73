/**
 * Sends what an engine has encrypted.
 *
 * @module
 */

import { checkTransferred } from "../../../internal/api/check.ts";
import type { Transport } from "../../../internal/api/transport.ts";
import type { Engine } from "./engine.ts";

/** Writes the output of an engine to a transport, one write at a time, until the engine has none left. */
export class Output {
  readonly #transport: Transport;
  readonly #engine: Engine;
  readonly #onError: (error: unknown) => void;
  /** What the present write is to send. */
  #bytes: Uint8Array | undefined;
  #flushing: Promise<void> | undefined;
  #sent = 0;
  #stopped = false;

  /**
   * @param transport The transport to write to; its owner closes it.
   * @param engine The engine whose output is sent.
   * @param onError Called when a write has failed; nothing is sent after that.
   */
  constructor(transport: Transport, engine: Engine, onError: (error: unknown) => void) {
    this.#transport = transport;
    this.#engine = engine;
    this.#onError = onError;
  }

  /** Number of bytes that the transport has taken. */
  get sent(): number {
    return this.#sent;
  }

  /** Number of bytes that the transport has not taken yet. */
  get waitingBytes(): number {
    return this.#bytes?.length ?? 0;
  }

  /** Settles when nothing is left to send, or nothing can be sent any more; undefined if that is so now. */
  get flushing(): Promise<void> | undefined {
    return this.#flushing;
  }

  /** Makes no further calls to the transport. */
  stop(): void {
    this.#stopped = true;
    this.#bytes = undefined;
  }

  /**
   * Sends what the engine has.
   *
   * @returns A promise that settles like `flushing`; undefined if there is nothing to send.
   */
  flush(): Promise<void> | undefined {
    if (this.#flushing !== undefined || this.#stopped) return this.#flushing;
    const bytes = this.#engine.drain();
    if (bytes.length === 0) return undefined;
    this.#bytes = bytes;
    return this.#flushing = this.#write(bytes);
  }

  #write(bytes: Uint8Array): Promise<void> {
    return this.#transport.write(bytes).then((count) => this.#taken(count), (error) => this.#failed(error));
  }

  #taken(count: number): void | Promise<void> {
    try {
      // A write of no bytes would be tried again for ever.
      if (this.#bytes !== undefined) checkTransferred("write", count, this.#bytes.length);
    } catch (error) {
      return this.#failed(error);
    }
    this.#sent += count;
    // There are none if it was stopped meanwhile.
    const rest = this.#bytes?.subarray(count);
    if (rest !== undefined && rest.length > 0) return this.#write(this.#bytes = rest);
    this.#done();
    // The engine may have answered the peer meanwhile.
    return this.flush();
  }

  #failed(error: unknown): void {
    this.stop();
    this.#done();
    this.#onError(error);
  }

  #done(): void {
    this.#bytes = undefined;
    this.#flushing = undefined;
  }
}
