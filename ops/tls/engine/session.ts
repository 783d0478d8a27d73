/**
 * The state of one TLS connection over an engine.
 *
 * @module
 */

import type { TlsInfo, Transport } from "../../../internal/api/transport.ts";
import type { PeerVerifier } from "../peer/peer.ts";
import { Engine, type EngineOptions, type EngineOwner } from "./engine.ts";
import { isText, type ReadBuffer, RecordCutter } from "./encrypted_input.ts";
import { Output } from "./output.ts";
import { Unread } from "./unread.ts";
import type { TlsWrapClass } from "./wrap.ts";

/** An engine, what it has told of its connection, and where its output goes. It does not read from the transport. */
export class Session implements EngineOwner {
  /** Where encrypted bytes are read to. */
  readonly buffer: ReadBuffer;
  readonly output: Output;
  readonly unread: Unread = new Unread();
  readonly #engine: Engine;
  readonly #verifier: PeerVerifier | undefined;
  readonly #records = new RecordCutter();
  /** Whether the verifier has to look at the peer after each record. */
  #checksEarly: boolean;
  #tls: TlsInfo | undefined;
  #hasPeerEnded = false;
  #failure: unknown;

  /**
   * @param transport The transport that gets the output; its owner closes it.
   * @param buffer The buffer for encrypted input.
   * @param Wrap The class of the object beneath the engine.
   * @param options What to encrypt and decrypt with.
   * @param verifier Verifies the peer; undefined if it is not asked for a certificate.
   * @throws {Error} If the options cannot be used.
   */
  constructor(
    transport: Transport,
    buffer: ReadBuffer,
    Wrap: TlsWrapClass,
    options: EngineOptions,
    verifier: PeerVerifier | undefined,
  ) {
    this.buffer = buffer;
    this.#verifier = verifier;
    this.#checksEarly = verifier !== undefined;
    this.#engine = new Engine(Wrap, options, this);
    this.output = new Output(transport, this.#engine, (error) => this.failed(error));
  }

  /** What the handshake has agreed on; undefined until it is done. */
  get tls(): TlsInfo | undefined {
    return this.#tls;
  }

  /** Whether the peer has sent close_notify. */
  get hasPeerEnded(): boolean {
    return this.#hasPeerEnded;
  }

  /** Settles when the rest of the record that has begun has come; undefined if none has. */
  get whole(): Promise<void> | undefined {
    return this.#records.whole;
  }

  /** The first error; undefined if there was none. */
  get failure(): unknown {
    return this.#failure;
  }

  /** Throws the first error, if there was one. */
  check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Keeps an error, if it is the first; called also by the engine. */
  failed(error: unknown): void {
    this.#failure ??= error;
  }

  /** Decrypts the first bytes of the buffer, and sends what the handshake answers, or an alert. */
  feed(count: number): void {
    const { bytes } = this.buffer;
    const full = this.buffer.isFull(count);
    const shaking = this.#tls === undefined;
    const start = full ? performance.now() : 0;
    const input = count === bytes.length ? bytes : bytes.subarray(0, count);
    const isWhole = isText(bytes, count);
    if (this.#checksEarly) this.#feedRecords(input);
    else {
      // Most reads bring one whole record. To follow each would cost time.
      if (!isWhole || this.#records.isWithin) this.#records.follow(input);
      this.#engine.feed(input);
    }
    this.buffer.adapt(count, full ? performance.now() - start : 0);
    // Later, the engine seldom answers what comes, and to look would cost 6 % of the time of a short line. But a peer may
    // wait for the alert of a failure, or for what answers a message behind text that the handler does not answer.
    if (shaking || this.#failure !== undefined || !isWhole) this.output.flush();
  }

  /** Encrypts some of the bytes; returns how many. They are to be sent with a flush of the output. */
  encrypt(bytes: Uint8Array): number {
    return this.#engine.encrypt(bytes);
  }

  /** Encrypts close_notify, which is to be sent with a flush of the output. */
  end(): void {
    this.#engine.end();
  }

  /** Sends nothing more, and gives the engine's memory back. */
  free(): void {
    this.output.stop();
    this.#engine.free();
  }

  /** Called by the engine. */
  decrypted(bytes: Uint8Array): void {
    this.unread.add(bytes);
  }

  /** Called by the engine. */
  peerEnded(): void {
    this.#hasPeerEnded = true;
  }

  /** Called by the engine. */
  established(): void {
    this.#checksEarly = false;
    try {
      this.#tls = this.#engine.info(this.#verifier?.check(this.#engine));
    } catch (error) {
      this.#refuse(error);
    }
  }

  #feedRecords(bytes: Uint8Array): void {
    for (const part of this.#records.cut(bytes)) {
      this.#engine.feed(part);
      if (this.#failure === undefined && this.#checksEarly) this.#checkEarly();
      if (this.#failure !== undefined) return;
    }
  }

  #checkEarly(): void {
    try {
      this.#verifier?.checkEarly(this.#engine);
    } catch (error) {
      this.#refuse(error);
    }
  }

  /** Refuses the peer. It gets nothing of what is in the output, such as a session that it could resume. */
  #refuse(error: unknown): void {
    this.output.stop();
    this.failed(error);
  }
}
